"""What every token of a trajectory is, on trajectories drawn by hand, and its pictures."""

import numpy as np
import pytest
from toy_model import toy_model

from jaxspec.evaluate import jacobi_demo
from jaxspec.evaluate.jacobi_demo import FAST_FORWARDED, RIGHT, STATIONARY, WRONG, kinds_of
from jaxspec.tasks.task import find_task


def test_kinds_of_a_trajectory_drawn_by_hand() -> None:
    iterates = np.array(
        [
            [9, 9, 9, 4],  # the last token happens to be right, and stays so
            [1, 9, 3, 4],  # one token, as any pass; the third comes right behind a wrong one
            [1, 2, 3, 4],  # the second, and with it all that stood behind it
        ]
    )
    expected = [
        [WRONG, WRONG, WRONG, STATIONARY],
        [RIGHT, WRONG, STATIONARY, STATIONARY],
        [RIGHT, RIGHT, FAST_FORWARDED, FAST_FORWARDED],
    ]
    np.testing.assert_array_equal(kinds_of(iterates), expected)


def test_one_token_a_pass_is_no_fast_forwarding() -> None:
    iterates = np.array([[0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 3]])
    kinds = kinds_of(iterates)
    assert set(kinds.ravel().tolist()) == {WRONG, RIGHT}


def test_pictures_show_every_iterate(tmp_path) -> None:
    blocks = jacobi_demo.picture(toy_model(0), "abcab", 4, 8)
    text = jacobi_demo.terminal_picture(blocks).plain
    assert len(blocks) == 2 and text.count("\n") == 1 + sum(1 + len(kinds) for _, kinds in blocks)
    for iterates, kinds in blocks:
        assert kinds.shape == (len(iterates), 4) and (kinds[-1] != WRONG).all()
        assert all("".join(tokens) in text for tokens in iterates)
    jacobi_demo.plot_picture(blocks, tmp_path / "picture.png", "toy")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_picture_keeps_to_the_context() -> None:
    lm, prompt = toy_model(0, context=128), "abcab"
    assert [jacobi_demo.picture_length(lm, prompt, n) for n in (4, 41, 42, 62, 123, 124)] == [12, 123, 84, 62, 123, 0]
    assert len(jacobi_demo.picture(lm, prompt, 42, 84)) == 2


def test_a_model_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="toy has 7 ids and the task has 237"):
        jacobi_demo.compare(toy_model(0), toy_model(1), find_task("text_to_sql"), prompts=1)


@pytest.mark.parametrize("setting", ["prompts", "rounds"])
def test_nothing_to_compare_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=0 is below 1"):
        jacobi_demo.compare(toy_model(0), toy_model(1), find_task("text_to_sql"), **{setting: 0})
