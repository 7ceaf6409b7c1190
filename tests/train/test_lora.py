"""Adapters: nothing at first, a change of rank r later, and the only thing that is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.models.config import ModelConfig
from jaxspec.train.forward import forward, init_params
from jaxspec.train.language_model_loss import LanguageModelObjective, TextBatch
from jaxspec.train.lora import LoRA
from jaxspec.train.optimizer import OptimizerSettings
from jaxspec.train.trainer import TrainSettings, train

CONFIG = ModelConfig("llama", 11, 8, 12, 2, 2, 1, 4, context=32)
PARAMS = init_params(CONFIG, jax.random.key(0))
IDS = np.arange(10, dtype=np.int32)[None] % 11


class OneText:
    def batch(self, step: int) -> TextBatch:
        return TextBatch(IDS, np.ones(IDS.shape, bool))


def test_fresh_adapters_change_nothing() -> None:
    lora = LoRA(rank=2)
    combined = lora.combine(lora.init(PARAMS, jax.random.key(1)), PARAMS)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), combined, PARAMS))


def test_combined_kernels_are_the_formula() -> None:
    lora = LoRA(rank=2, alpha=3.0, kernels=("qkv", "down"))
    adapters = lora.init(PARAMS, jax.random.key(1))
    assert sorted(adapters) == sorted(
        f"layer_{layer}/{name}/kernel" for layer in (0, 1) for name in ("attention/qkv", "mlp/down")
    )
    adapters = jax.tree.map(
        lambda leaf: leaf + jnp.sin(jnp.arange(leaf.size, dtype=jnp.float32) ** 1.5).reshape(leaf.shape), adapters
    )
    combined = lora.combine(adapters, PARAMS)
    pair = adapters["layer_1/mlp/down/kernel"]
    kernel = np.asarray(PARAMS["layer_1"]["mlp"]["down"]["kernel"])
    expected = kernel + 1.5 * np.asarray(pair["a"]) @ np.asarray(pair["b"])
    np.testing.assert_allclose(combined["layer_1"]["mlp"]["down"]["kernel"], expected, atol=1e-6)
    change = np.asarray(combined["layer_0"]["attention"]["qkv"]["kernel"]) - np.asarray(
        PARAMS["layer_0"]["attention"]["qkv"]["kernel"]
    )
    assert np.linalg.matrix_rank(change, tol=1e-4) == 2
    assert combined["layer_0"]["mlp"]["gate_up"]["kernel"] is PARAMS["layer_0"]["mlp"]["gate_up"]["kernel"]


def test_kernels_keep_their_type() -> None:
    lora = LoRA(rank=2)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    combined = lora.combine(lora.init(narrow, jax.random.key(1)), narrow)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(combined))


def test_only_adapters_are_trained(tmp_path) -> None:
    lora = LoRA(rank=8)
    adapters = lora.init(PARAMS, jax.random.key(1))
    objective = LanguageModelObjective(CONFIG)
    settings = TrainSettings(30, OptimizerSettings(learning_rate=0.02, warmup=2), progress_every=0)
    result = train(adapters, objective, OneText(), settings, tmp_path, frozen=PARAMS, combine=lora.combine)
    assert jax.tree.structure(result.params) == jax.tree.structure(adapters)

    def loss(params) -> float:
        return float(objective(params, OneText().batch(0), jax.random.key(0))[0])

    merged = lora.combine(result.params, PARAMS)
    assert loss(merged) < loss(PARAMS) - 0.1
    assert jax.tree.map(np.shape, merged) == jax.tree.map(np.shape, PARAMS)
    assert forward(merged, CONFIG, jnp.asarray(IDS)).shape == (1, 10, 11)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="rank=0 is below 1"):
        LoRA(rank=0)
    with pytest.raises(ValueError, match=r"alpha=0\.0 must be above 0"):
        LoRA(alpha=0.0)
    with pytest.raises(ValueError, match="choose one or several of qkv"):
        LoRA(kernels=("query",))
    with pytest.raises(ValueError, match="choose one or several"):
        LoRA(kernels=())
