"""From a base to a consistency-trained checkpoint, through the command line: models much too small, a few steps."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import jaxspec
from jaxspec.cli import main
from jaxspec.evaluate.train_command import read_train_config
from jaxspec.tasks.task import find_task
from jaxspec.train.checkpoints import save_checkpoint
from jaxspec.train.consistency import ConsistencySettings
from jaxspec.train.forward import init_params
from jaxspec.train.jacobi_quality import JacobiQuality
from jaxspec.train.lora import LoRA
from jaxspec.train.metrics_log import read_metrics
from jaxspec.train.monitors import CollapseMonitor
from jaxspec.train.on_policy import RoundSettings
from jaxspec.train.optimizer import OptimizerSettings, build_optimizer
from jaxspec.train.run import LanguageModelConfig, ModelShape
from jaxspec.train.run_consistency import ConsistencyConfig, _rows, run_consistency
from jaxspec.train.trainer import TrainResult, TrainSettings, TrainState, train
from jaxspec.train.trajectory_batches import StateChoice
from jaxspec.weights.save import save_model

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


GIVEN = {
    "answers": "given",
    "collection": {"block": 4, "blocks": 3},
    "states": {"kind": "initial"},
    "loss": {"refinements": 1},
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
    paths = {"base": str(tmp_path / "base" / "model"), "folder": str(tmp_path / "c"), "rounds": 2}
    config, go = read_train_config(Path(write(tmp_path / "cllm.yaml", CONSISTENCY | GIVEN | paths)))
    report = go(config)
    assert [quality.identical for quality in report.after] == [True] * 3
    assert not list((tmp_path / "c").rglob("trajectories"))
    assert "12 generated examples, each seen once" in (tmp_path / "c" / "model" / "README.md").read_text()


@pytest.mark.parametrize("settings", [{"states": {"kind": "uniform"}}, {"loss": {"teacher": "local"}}])
def test_given_answers_without_trajectories_are_refused(tmp_path, settings) -> None:
    given = CONSISTENCY | GIVEN | {"base": "b", "folder": "f"} | settings
    with pytest.raises(ValueError, match="answers='given' has no trajectories"):
        read_train_config(Path(write(tmp_path / "x.yaml", given)))


def test_settings_that_given_answers_do_not_use_are_refused(tmp_path) -> None:
    given = CONSISTENCY | GIVEN | {"base": "b", "folder": "f"}
    read_train_config(Path(write(tmp_path / "x.yaml", given)))
    states = given | {"states": {"kind": "initial", "random_source": "repeat", "random_share": 0.5, "window": 4}}
    with pytest.raises(ValueError, match=r"does not use states.window=4, states.random_share=0.5; leave them out"):
        read_train_config(Path(write(tmp_path / "x.yaml", states)))
    collection = given | {"collection": {"block": 4, "known_first": True, "initial": "repeat"}}
    with pytest.raises(ValueError, match=r"does not use collection.initial='repeat', collection.known_first=True;"):
        read_train_config(Path(write(tmp_path / "x.yaml", collection)))


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


@pytest.mark.parametrize(
    ("answers", "collected", "initial"), [("given", "prompt", "repeat"), ("own", "vocabulary", "vocabulary")]
)
def test_a_model_is_measured_from_the_tokens_it_was_trained_on(answers, collected, initial) -> None:
    config = ConsistencyConfig(
        "text_to_sql",
        "base",
        "folder",
        TrainSettings(1),
        answers=answers,
        collection=RoundSettings(initial=collected),
        states=StateChoice(kind="initial", random_source="repeat"),
    )
    assert config.initial == initial


def low_rank(folder: Path) -> ConsistencyConfig:
    """A few steps of adapters on the random model of `start`."""
    return ConsistencyConfig(
        "text_to_sql",
        str(folder.parent / "base"),
        str(folder),
        TrainSettings(4, OptimizerSettings(0.02, warmup=1), checkpoint_every=2, progress_every=0),
        answers="given",
        collection=RoundSettings(block=4, blocks=2),
        batch_size=2,
        states=StateChoice("initial"),
        loss=ConsistencySettings(refinements=1),
        lora=LoRA(rank=2, kernels=("qkv", "down")),
        probed=0,
    )


def save_base(folder: Path, seed: int = 0) -> None:
    tokenizer = find_task("text_to_sql").tokenizer()
    model = ModelShape(16, 16, 1, 2).config(tokenizer.vocabulary_size)
    save_model(folder, model, init_params(model, jax.random.key(seed)), tokenizer)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run that was stopped at step 3, with a checkpoint of step 2, beside its base."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    save_base(folder.parent / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxspec.train.run_consistency._quality", lambda *arguments: [])
        report = run_consistency(low_rank(folder), monitors=[lambda step, _: "enough" if step == 3 else None])
    assert report.stopped == "enough"
    return folder


def test_adapters_change_their_kernels_alone_and_resume_to_the_bit(stopped, tmp_path, unmeasured, monkeypatch) -> None:
    results: list[TrainResult] = []

    def recorded(*arguments, **settings) -> TrainResult:
        results.append(train(*arguments, **settings))
        return results[-1]

    monkeypatch.setattr("jaxspec.train.run_consistency.train", recorded)
    shutil.copytree(stopped.parent / "base", tmp_path / "base")
    shutil.copytree(stopped, tmp_path / "resumed")
    straight = run_consistency(low_rank(tmp_path / "straight"))
    resumed = run_consistency(low_rank(tmp_path / "resumed"), resume=True)
    assert straight.folder is not None and resumed.folder is not None
    logs = [read_metrics(tmp_path / name / "round-0" / "run" / "metrics.jsonl") for name in ("straight", "resumed")]
    assert logs[0] == logs[1] and logs[0][-1]["step"] == 4
    base, one, other = (jaxspec.load(path).params for path in (tmp_path / "base", straight.folder, resumed.folder))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, other))

    lora = low_rank(tmp_path).lora
    assert lora is not None
    assert jax.tree.all(jax.tree.map(np.array_equal, one, lora.combine(results[0].params, base)))
    changed = {
        jax.tree_util.keystr(path)
        for (path, before), after in zip(jax.tree_util.tree_leaves_with_path(base), jax.tree.leaves(one), strict=True)
        if not np.array_equal(before, after)
    }
    assert changed == {f"['layer_0']['{part}']['kernel']" for part in ("attention']['qkv", "mlp']['down")}


def test_a_resumed_run_watches_for_collapse_as_if_never_stopped(stopped, tmp_path, unmeasured, monkeypatch) -> None:
    shutil.copytree(stopped.parent / "base", tmp_path / "base")
    shutil.copytree(stopped, tmp_path / "run")
    watching = []

    class Recorded(CollapseMonitor):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            watching.append((self, self.state))

    monkeypatch.setattr("jaxspec.train.run_consistency.CollapseMonitor", Recorded)
    run_consistency(low_rank(tmp_path / "run"), resume=True)
    ((monitor, at_first),) = watching
    lines = read_metrics(tmp_path / "run" / "round-0" / "run" / "metrics.jsonl")
    assert at_first == CollapseMonitor(None, [(0, line) for line in lines[:2]]).state and at_first.seen == 2
    assert monitor.state == CollapseMonitor(None, [(0, line) for line in lines]).state and monitor.state.seen == 4


def test_another_run_is_not_resumed_and_nothing_is_measured_first(stopped, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("jaxspec.train.run_consistency._quality", lambda *arguments: pytest.fail("measured"))
    config = low_rank(stopped)
    changes = {
        "loss.ar_weight=1.0 instead of 10.0": {"loss": dataclasses.replace(config.loss, ar_weight=1.0)},
        "batch_size=3 instead of 2": {"batch_size": 3},
        "states.random_source='repeat' instead of 'prompt'": {"states": StateChoice("initial", random_source="repeat")},
        "lora.rank=3 instead of 2": {"lora": LoRA(3, kernels=("qkv", "down"))},
        "lora.rank=None instead of 2": {"lora": None},
        "dtype='bfloat16' instead of 'float32'": {"dtype": "bfloat16"},
        "training.seed=5 instead of 0": {"training": dataclasses.replace(config.training, seed=5)},
    }
    for message, change in changes.items():
        with pytest.raises(ValueError, match=message):
            run_consistency(dataclasses.replace(config, **change), resume=True)
    save_base(tmp_path / "base", seed=1)
    with pytest.raises(ValueError, match="had other settings .base='"):
        run_consistency(dataclasses.replace(config, base=str(tmp_path / "base")), resume=True)
    with pytest.raises(FileExistsError, match="holds a training run already"):
        run_consistency(config)


def test_a_run_starts_from_a_checkpoint_of_another(stopped, tmp_path, unmeasured, monkeypatch) -> None:
    model = jaxspec.load(stopped.parent / "base").config
    other = init_params(model, jax.random.key(9))
    state = TrainState(
        other, build_optimizer(OptimizerSettings(), 1).init(other), jnp.int32(2), jnp.zeros(2, jnp.uint32)
    )
    earlier = save_checkpoint(tmp_path / "checkpoints", 2, tuple(state), keep=1)
    begun = []

    def recorded(params, *arguments, **settings) -> TrainResult:
        begun.append(params)
        return TrainResult(params, 4, None)

    monkeypatch.setattr("jaxspec.train.run_consistency.train", recorded)
    config = dataclasses.replace(low_rank(tmp_path / "c"), base=str(stopped.parent / "base"), lora=None)
    assert run_consistency(dataclasses.replace(config, weights=str(earlier))).folder is not None
    assert jax.tree.all(jax.tree.map(np.array_equal, begun[0], other))


def test_weights_of_another_kind_are_refused(stopped, tmp_path, unmeasured) -> None:
    config = low_rank(tmp_path / "c")
    config = dataclasses.replace(config, base=str(stopped.parent / "base"))
    adapters = stopped / "round-0" / "run" / "checkpoints" / "step_00000002"
    for weights, error, message in (
        (str(adapters), ValueError, "start from a checkpoint of the same model, of all its weights"),
        (str(tmp_path / "none"), FileNotFoundError, "there is no checkpoint at"),
        (str(stopped.parent / "base"), ValueError, "holds no checkpoint of a run"),
    ):
        with pytest.raises(error, match=message):
            run_consistency(dataclasses.replace(config, weights=weights))
    assert not (tmp_path / "c").exists()


def test_data_that_fail_claim_no_folder(stopped, tmp_path, unmeasured) -> None:
    config = dataclasses.replace(low_rank(tmp_path / "c"), base=str(stopped.parent / "base"))
    with pytest.raises(ValueError, match="tokens=20"):
        run_consistency(dataclasses.replace(config, tokens=20))
    assert run_consistency(config).folder is not None


def test_what_cannot_be_collected_or_trained_is_refused_first() -> None:
    with pytest.raises(ValueError, match="repeats=1 is below 2"):
        RoundSettings(repeats=1)
    with pytest.raises(ValueError, match="longest_phrase=0 is below 1"):
        RoundSettings(longest_phrase=0)
    with pytest.raises(ValueError, match="states.random_share=0.5 needs loss.teacher='global'"):
        ConsistencyConfig(
            "text_to_sql",
            "b",
            "f",
            TrainSettings(1),
            states=StateChoice(random_share=0.5),
            loss=ConsistencySettings(teacher="local"),
        )
    with pytest.raises(ValueError, match="probed=-1 is negative"):
        ConsistencyConfig("text_to_sql", "b", "f", TrainSettings(1), probed=-1)


def test_a_speed_that_changed_the_text_is_void() -> None:
    rows = _rows("trained", [JacobiQuality("block", 4, 3.5, 1.0, False), JacobiQuality("rolling", 4, 3.5, 1.0, True)])
    assert str(rows["trained, block, n = 4: tokens a forward"]).startswith("void")
    assert rows["trained, rolling, n = 4: tokens a forward"] == 3.5


def test_adapters_can_be_asked_for_in_a_file(tmp_path) -> None:
    paths = {"base": "b", "folder": "f"}
    config, _ = read_train_config(Path(write(tmp_path / "x.yaml", CONSISTENCY | paths | {"lora": {"rank": 4}})))
    assert config.lora == LoRA(rank=4)
    assert read_train_config(Path(write(tmp_path / "x.yaml", CONSISTENCY | paths | {"lora": None})))[0].lora is None
    with pytest.raises(ValueError, match="lora: unknown settings size; known: rank, alpha, kernels"):
        read_train_config(Path(write(tmp_path / "x.yaml", CONSISTENCY | paths | {"lora": {"size": 4}})))


def test_a_file_of_questions_from_the_command_line(tmp_path) -> None:
    path = Path(write(tmp_path / "x.yaml", CONSISTENCY | {"base": "b", "folder": "f"}))
    assert read_train_config(path, data=tmp_path / "q.jsonl")[0].task == str(tmp_path / "q.jsonl")
    with pytest.raises(ValueError, match="is not the path of JSON lines"):
        read_train_config(path, data=tmp_path / "q.txt")
    base = Path(write(tmp_path / "base.yaml", BASE | {"folder": "f"}))
    with pytest.raises(ValueError, match="is for kind=consistency, and .* is of kind=language_model"):
        read_train_config(base, data=tmp_path / "q.jsonl")
