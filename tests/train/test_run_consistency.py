"""From a base to a consistency-trained checkpoint, through the command line: models much too small, a few steps."""

import json
from pathlib import Path

import pytest
import yaml

import jaxspec
from jaxspec.cli import main
from jaxspec.evaluate.train_command import read_train_config
from jaxspec.train.on_policy import RoundSettings
from jaxspec.train.run import LanguageModelConfig
from jaxspec.train.run_consistency import ConsistencyConfig, run_consistency
from jaxspec.train.trainer import TrainSettings
from jaxspec.train.trajectory_batches import StateChoice

CONFIGS = Path(__file__).parents[2] / "configs"

BASE = {
    "task": "text_to_sql",
    "model": {"width": 16, "mlp_width": 16, "layers": 1, "heads": 2},
    "training": {"steps": 3, "progress_every": 0},
    "rows": 4,
    "held_out": 2,
}
CONSISTENCY = {
    "kind": "consistency",
    "task": "text_to_sql",
    "training": {"steps": 3, "progress_every": 0, "checkpoint_every": 2},
    "prompts": 4,
    "collection": {"block": 4, "blocks": 3, "lanes": 4, "shard_prompts": 4},
    "batch_size": 4,
    "states": {"random_share": 0.5},
    "rounds": 1,
    "held_out": 2,
    "sizes": [4],
    "max_new_tokens": 12,
    "watch": False,
}


def write(path: Path, config: dict) -> str:
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.mark.slow
def test_from_the_command_line_to_a_model_that_decodes(tmp_path, capsys) -> None:
    base = write(tmp_path / "base.yaml", BASE | {"folder": str(tmp_path / "base")})
    assert main(["train", "--config", base]) == 0
    trained = write(
        tmp_path / "cllm.yaml", CONSISTENCY | {"base": str(tmp_path / "base" / "model"), "folder": str(tmp_path / "c")}
    )
    capsys.readouterr()
    assert main(["train", "--config", trained, "--json", "--seed", "3"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["mode"] for row in report["after"]] == ["plain", "block", "rolling"]
    assert all(row["identical"] for row in report["before"] + report["after"])
    card = (tmp_path / "c" / "model" / "README.md").read_text()
    assert "trained, block, n = 4: tokens a forward" in card and "jaxspec train --config" in card and "seed: 3" in card
    lm = jaxspec.load(tmp_path / "c" / "model")
    out = jaxspec.generate(lm, ["table"], drafter=jaxspec.drafters.jacobi(4), max_new_tokens=6)
    assert out.ids == jaxspec.generate(lm, ["table"], max_new_tokens=6).ids
    models = ["--base", str(tmp_path / "base" / "model"), "--cllm", str(tmp_path / "c" / "model")]
    assert main(["demo", "jacobi", *models, "--prompts", "2", "--n", "4", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["base", "base_jacobi", "cllm", "cllm_rolling"]
    assert all(row["identical"] and row["prompts"] == 2 and row["tokens_per_forward"] >= 1 for row in rows)
    assert main(["train", "--config", trained]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_given_answers_need_no_collection(tmp_path) -> None:
    base = write(tmp_path / "base.yaml", BASE | {"folder": str(tmp_path / "base")})
    assert main(["train", "--config", base]) == 0
    given = {"answers": "given", "states": {"kind": "initial"}, "loss": {"refinements": 1}, "rounds": 2}
    paths = {"base": str(tmp_path / "base" / "model"), "folder": str(tmp_path / "c")}
    config, go = read_train_config(Path(write(tmp_path / "cllm.yaml", CONSISTENCY | given | paths)))
    report = go(config)
    assert [quality.identical for quality in report.after] == [True] * 3
    assert not list((tmp_path / "c").rglob("trajectories"))
    assert "12 generated examples, each seen once" in (tmp_path / "c" / "model" / "README.md").read_text()


@pytest.mark.parametrize("settings", [{"states": {"kind": "uniform"}}, {"loss": {"teacher": "local"}}])
def test_given_answers_without_trajectories_are_refused(tmp_path, settings) -> None:
    given = CONSISTENCY | {"base": "b", "folder": "f", "answers": "given", "states": {"kind": "initial"}} | settings
    with pytest.raises(ValueError, match="answers='given' has no trajectories"):
        read_train_config(Path(write(tmp_path / "x.yaml", given)))


def test_a_base_of_another_vocabulary_is_refused(tmp_path, tiny_model_folder) -> None:
    path = tmp_path / "cllm.yaml"
    write(path, CONSISTENCY | {"base": str(tiny_model_folder), "folder": str(tmp_path / "c")})
    config, go = read_train_config(path)
    assert go is run_consistency
    with pytest.raises(ValueError, match="take a base that was trained on the task"):
        run_consistency(config)


def test_configs_that_are_kept_can_be_read() -> None:
    kinds = {}
    for path in CONFIGS.glob("*.yaml"):
        if "training" in yaml.safe_load(path.read_text()):
            kinds[path.stem] = type(read_train_config(path)[0])
    assert kinds["text_to_sql"] is LanguageModelConfig and kinds["text_to_sql_cllm"] is ConsistencyConfig


def test_unknown_kinds_are_refused(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    write(path, {"kind": "reinforcement"})
    with pytest.raises(ValueError, match="kind='reinforcement' is not one of language_model, consistency"):
        read_train_config(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_train_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(("answers", "initial"), [("given", "repeat"), ("own", "vocabulary")])
def test_a_model_is_measured_from_the_tokens_it_was_trained_on(answers, initial) -> None:
    config = ConsistencyConfig(
        "text_to_sql",
        "base",
        "folder",
        TrainSettings(1),
        answers=answers,
        collection=RoundSettings(initial="vocabulary"),
        states=StateChoice(kind="initial", random_source="repeat"),
    )
    assert config.initial == initial
