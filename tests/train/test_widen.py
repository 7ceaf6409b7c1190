"""A wider net: the same function before training, and all of it in use after."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec
from jaxspec.evaluate.train_command import read_train_config
from jaxspec.models.transformer import transformer_fn
from jaxspec.tasks.task import find_task
from jaxspec.train.consistency import ConsistencySettings
from jaxspec.train.forward import init_params
from jaxspec.train.on_policy import RoundSettings
from jaxspec.train.optimizer import OptimizerSettings
from jaxspec.train.run import ModelShape
from jaxspec.train.run_consistency import ConsistencyConfig, run_consistency
from jaxspec.train.trainer import TrainSettings
from jaxspec.train.trajectory_batches import StateChoice
from jaxspec.train.widen import WiderShape, widened
from jaxspec.weights.save import save_model

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPE = WiderShape(width=40, mlp_width=56, heads=3)


def small_model() -> jaxspec.LanguageModel:
    """Two layers of random weights, whose embeddings and norms are no special case."""
    tokenizer = find_task("text_to_sql").tokenizer()
    config = ModelShape(16, 24, 2, 2).config(tokenizer.vocabulary_size)
    params = jax.tree.map(lambda leaf: leaf * 1.5, init_params(config, jax.random.key(1)))
    return jaxspec.LanguageModel(config, transformer_fn(config), params, tokenizer, jnp.float32, jnp.float32)


def test_a_wider_net_is_the_same_function() -> None:
    lm = small_model()
    wide = widened(lm, SHAPE)
    prompts = [[5, 9, 200, 31], [7]]
    mine, theirs = (jaxspec.generate(each, prompts, max_new_tokens=12, logprobs=True) for each in (lm, wide))
    assert theirs.ids == mine.ids
    for one, other in zip(mine.logprobs, theirs.logprobs, strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5)
    kernels = jax.tree.leaves(wide.params)
    assert sum(leaf.size for leaf in kernels) > 3 * sum(leaf.size for leaf in jax.tree.leaves(lm.params))


def test_the_new_weights_are_drawn_from_the_seed() -> None:
    lm = small_model()
    one, again, other = (widened(lm, SHAPE, seed=seed).params for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, again))
    assert not jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_a_narrower_net_or_another_kind_is_refused(tiny_model_folder) -> None:
    with pytest.raises(ValueError, match=r"WiderShape\(width=8, mlp_width=56, heads=3\) is smaller than"):
        widened(small_model(), WiderShape(8, 56, 3))
    grouped = jaxspec.load(tiny_model_folder)
    with pytest.raises(ValueError, match="is not made of equal heads"):
        widened(grouped, WiderShape(512, 512, 16))


def wide_run(folder: Path, **changes) -> ConsistencyConfig:
    """A few steps of a wider net."""
    config = ConsistencyConfig(
        "text_to_sql",
        str(folder / "base"),
        str(folder / "wide"),
        TrainSettings(3, OptimizerSettings(0.01, warmup=0, weight_decay=0.0), progress_every=0),
        answers="given",
        collection=RoundSettings(block=4, blocks=2),
        batch_size=2,
        states=StateChoice("initial"),
        loss=ConsistencySettings(refinements=1),
        widen=SHAPE,
        probed=0,
    )
    return dataclasses.replace(config, **changes)


def test_training_brings_the_new_weights_into_use(tmp_path, unmeasured) -> None:
    lm = small_model()
    save_model(tmp_path / "base", lm.config, lm.params, lm.tokenizer)
    report = run_consistency(wide_run(tmp_path))
    assert report.folder is not None
    trained, begun = jaxspec.load(report.folder), widened(lm, SHAPE)
    assert (trained.config.width, trained.config.mlp_width, trained.config.query_heads) == (40, 56, 3)
    assert "set into a net of" in (report.folder / "README.md").read_text()
    for layer in ("layer_0", "layer_1"):
        for part, kernel in (("mlp", "gate_up"), ("mlp", "down"), ("attention", "qkv"), ("attention", "output")):
            before, after = (params[layer][part][kernel]["kernel"] for params in (begun.params, trained.params))
            assert np.mean(before != after) > 0.99, f"{layer} {part} {kernel}"


def test_a_widened_run_starts_from_a_checkpoint_of_another(tmp_path, unmeasured) -> None:
    lm = small_model()
    save_model(tmp_path / "base", lm.config, lm.params, lm.tokenizer)
    first = run_consistency(wide_run(tmp_path))
    (checkpoint,) = (tmp_path / "wide" / "round-0" / "run" / "checkpoints").iterdir()
    config = wide_run(tmp_path, weights=str(checkpoint))
    second = run_consistency(dataclasses.replace(config, folder=str(tmp_path / "on")))
    assert first.folder is not None and second.folder is not None
    before, after = (jaxspec.load(folder).params for folder in (first.folder, second.folder))
    assert not jax.tree.all(jax.tree.map(np.array_equal, before, after))


def test_a_shape_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, unmeasured) -> None:
    lm = small_model()
    save_model(tmp_path / "base", lm.config, lm.params, lm.tokenizer)
    with pytest.raises(ValueError, match="is smaller than"):
        run_consistency(wide_run(tmp_path, widen=WiderShape(8, 56, 3)))
    assert not (tmp_path / "wide").exists()


def test_the_kept_config_widens_the_kept_model() -> None:
    config, _ = read_train_config(CONFIGS / "text_to_sql_widened.yaml")
    assert isinstance(config, ConsistencyConfig) and config.widen is not None
    lm = jaxspec.load(Path(__file__).parents[2] / config.base)
    assert config.widen.width > lm.config.width
