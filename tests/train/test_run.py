"""From a config to a checkpoint that decodes: a model much too small, for a few steps."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec
from jaxspec.evaluate.config import read_config
from jaxspec.tasks.text_to_sql import example
from jaxspec.train.answers import encode_answers
from jaxspec.train.forward import forward
from jaxspec.train.metrics_log import read_metrics
from jaxspec.train.optimizer import OptimizerSettings
from jaxspec.train.run import LanguageModelConfig, ModelShape, run
from jaxspec.train.trainer import TrainSettings

CONFIGS = Path(__file__).parents[2] / "configs"


def tiny(folder: Path) -> LanguageModelConfig:
    return LanguageModelConfig(
        task="text_to_sql",
        folder=str(folder),
        model=ModelShape(width=16, mlp_width=16, layers=1, heads=2, context=256),
        training=TrainSettings(
            6, OptimizerSettings(learning_rate=0.01, warmup=1), checkpoint_every=4, probe_every=3, progress_every=0
        ),
        rows=4,
        held_out=70,  # more than are measured at once
    )


def test_a_run_ends_in_a_checkpoint_with_a_card(tmp_path) -> None:
    config = tiny(tmp_path)
    report = run(config, command="jaxspec train --config tiny.yaml")
    assert report.steps == 6 and report.stopped is None and report.folder == tmp_path / "model"
    lm = jaxspec.load(report.folder)
    assert report.parameters == sum(leaf.size for leaf in jax.tree.leaves(lm.params))
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"] and "exact_match" in lines[2] and "exact_match" not in lines[3]
    batch = encode_answers([example(0, index, "held_out") for index in range(70)], lm.tokenizer, config.tokens)
    log_p = jax.nn.log_softmax(forward(lm.params, lm.config, jnp.asarray(batch.ids))[:, :-1])
    chosen = np.take_along_axis(np.asarray(log_p), batch.ids[:, 1:, None], axis=-1)[..., 0]
    assert report.quality["nats"] == pytest.approx(-chosen[batch.counted[:, 1:]].mean(), rel=1e-4)
    assert report.quality["exact_match"] == 0.0
    card = (report.folder / "README.md").read_text()
    for said in ("jaxspec train --config tiny.yaml", "learning_rate: 0.01", "from seed 0: 24 examples", "exact match"):
        assert said in card
    with pytest.raises(FileExistsError, match="exists already"):
        run(config, resume=True)


def test_a_monitor_leaves_no_checkpoint(tmp_path) -> None:
    report = run(tiny(tmp_path), monitors=[lambda step, metrics: "enough" if step == 2 else None])
    assert (report.folder, report.stopped, report.steps) == (None, "enough", 2)
    assert not (tmp_path / "model").exists()
    changes = {"label_smoothing": 0.1, "rows": 5, "tokens": 161, "dtype": "bfloat16", "checkpoint_layers": True}
    for name, value in changes.items():
        with pytest.raises(ValueError, match=f"{name}={value!r} instead of"):
            run(dataclasses.replace(tiny(tmp_path), **{name: value}), resume=True)
    wider = dataclasses.replace(tiny(tmp_path).model, mlp_width=32)
    with pytest.raises(ValueError, match="model.mlp_width=32 instead of 16"):
        run(dataclasses.replace(tiny(tmp_path), model=wider), resume=True)


def test_bad_settings_are_refused(tmp_path) -> None:
    config = tiny(tmp_path)
    with pytest.raises(ValueError, match="task='sums' is not known"):
        run(dataclasses.replace(config, task="sums"))
    with pytest.raises(ValueError, match="heads=3 does not divide width=16"):
        run(dataclasses.replace(config, model=dataclasses.replace(config.model, heads=3)))
    with pytest.raises(ValueError, match="more than tokens=20; raise it"):
        run(dataclasses.replace(config, tokens=20))
    with pytest.raises(ValueError, match="dtype='float16'"):
        dataclasses.replace(config, dtype="float16")
    with pytest.raises(ValueError, match="rows=0"):
        dataclasses.replace(config, rows=0)
    assert not (tmp_path / "run").exists()


def test_the_config_in_the_repository_is_read() -> None:
    config = read_config(CONFIGS / "text_to_sql.yaml", LanguageModelConfig)
    assert config.task == "text_to_sql" and config.training.optimizer.learning_rate > 0
    model = config.model.config(256)
    assert model.query_heads * model.head_width == model.width
