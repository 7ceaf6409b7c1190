"""A folder appears with all that is written into it, or not at all."""

import pytest

from jaxspec.train.whole_folder import whole_folder


def test_a_folder_is_there_when_it_is_whole(tmp_path) -> None:
    path = tmp_path / "run" / "model"
    with pytest.raises(KeyboardInterrupt), whole_folder(path) as written:
        (written / "half").touch()
        raise KeyboardInterrupt
    assert not path.exists()
    with whole_folder(path) as written:
        (written / "all").touch()
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["all"] and [file.name for file in path.parent.iterdir()] == [
        "model"
    ]
