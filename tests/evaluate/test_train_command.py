"""`jaxspec train`: which seeds a seed sets, and what a stopped run says."""

import json
from pathlib import Path

import pytest
import yaml

from jaxspec.cli import main
from jaxspec.evaluate import train_command
from jaxspec.evaluate.train_command import read_train_config
from jaxspec.train.run_consistency import ConsistencyConfig, ConsistencyReport

CONFIG = {"kind": "consistency", "task": "text_to_sql", "base": "b", "folder": "f", "training": {"steps": 3}}
GIVEN = {"answers": "given", "states": {"kind": "initial"}}


def write(path: Path, config: dict) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_seed_is_of_all_draws(tmp_path) -> None:
    path = write(tmp_path / "own.yaml", CONFIG | {"collection": {"block": 4, "seed": 1}})
    config, _ = read_train_config(path, seed=7)
    assert (config.training.seed, config.collection.seed, config.collection.block) == (7, 7, 4)
    config, _ = read_train_config(path)
    assert (config.training.seed, config.collection.seed) == (0, 1)
    config, _ = read_train_config(write(tmp_path / "given.yaml", CONFIG | GIVEN), seed=7)
    assert (config.training.seed, config.collection.seed) == (7, 0)


def test_the_folder_replaces_the_configs(tmp_path) -> None:
    assert read_train_config(write(tmp_path / "c.yaml", CONFIG), folder="other")[0].folder == "other"


def test_the_base_replaces_the_configs(tmp_path) -> None:
    path = write(tmp_path / "c.yaml", CONFIG)
    assert read_train_config(path, base="other")[0].base == "other" and read_train_config(path)[0].base == "b"
    plain = write(tmp_path / "p.yaml", {"task": "text_to_sql"})
    with pytest.raises(ValueError, match="--base=other is for kind=consistency, and .* is of kind=language_model"):
        read_train_config(plain, base="other")
    earlier = write(tmp_path / "w.yaml", CONFIG | {"weights": "run/checkpoints/step_00000001"})
    with pytest.raises(ValueError, match="starts from weights=run/checkpoints/step_00000001; take that setting out"):
        read_train_config(earlier, base="other")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_stopped_run_is_exit_code_1(tmp_path, monkeypatch, capsys, options) -> None:
    report = ConsistencyReport(None, [], [], 1.0, "the model is collapsing")
    monkeypatch.setitem(
        train_command.KINDS, "consistency", (ConsistencyConfig, lambda config, *, resume, command: report)
    )
    path = write(tmp_path / "c.yaml", CONFIG)
    assert main(["train", "--config", str(path), *options]) == train_command.STOPPED
    out = capsys.readouterr().out
    if options:
        assert json.loads(out)["stopped"] == "the model is collapsing"
    else:
        assert out == "stopped, nothing was written: the model is collapsing\n"
