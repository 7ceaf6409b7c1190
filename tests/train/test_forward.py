"""The training pass against the decoding model, for every family's arithmetic."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.models.cache import init_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Block, chain_block
from jaxspec.models.transformer import transformer_fn
from jaxspec.train import forward as training
from jaxspec.train.forward import forward, init_params

LLAMA = ModelConfig("llama", 23, 16, 24, 2, 4, 2, 4, context=64)
CONFIGS = {
    "llama": LLAMA,
    "qwen2": dataclasses.replace(LLAMA, family="qwen2", qkv_bias=True, tied=True),
    "biases": dataclasses.replace(LLAMA, qkv_bias=True, output_bias=True, mlp_bias=True),
    "qwen3": dataclasses.replace(LLAMA, family="qwen3", query_key_norm=True),
    "gemma3": ModelConfig(
        "gemma3", 23, 16, 24, 2, 4, 1, 8, context=64, norm_offset=True, query_scale=0.3, local_rope_theta=500.0,
        window=5, sliding=(True, False), query_key_norm=True, sandwich_norm=True, embedding_scale=4.0,
        activation="gelu_tanh", tied=True, final_softcap=5.0,
    ),
}  # fmt: skip


def noisy_params(config: ModelConfig) -> dict:
    """Parameters whose norms and biases are not at their neutral values."""
    params = init_params(config, jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), params)


def decoded(config: ModelConfig, params: dict, block: Block) -> np.ndarray:
    cache = init_cache(config, block.ids.shape[0], 8, jnp.float32)
    return np.asarray(transformer_fn(config)(params, block, cache).logits)


@pytest.mark.parametrize("name", CONFIGS)
def test_causal_logits_are_those_of_decoding(name: str) -> None:
    config = CONFIGS[name]
    params = noisy_params(config)
    ids = jax.random.randint(jax.random.key(2), (2, 11), 0, config.vocabulary)
    ours = forward(params, config, ids)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, decoded(config, params, chain_block(ids)), atol=2e-5)


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_positions_and_visibility_are_those_of_a_block(name: str) -> None:
    config = CONFIGS[name]
    params = noisy_params(config)
    random = np.random.default_rng(0)
    ids = jnp.asarray(random.integers(0, config.vocabulary, (2, 9)), jnp.int32)
    positions = jnp.asarray(random.integers(0, 12, (2, 9)), jnp.int32)
    visible = jnp.asarray(random.random((2, 9, 9)) < 0.4) | jnp.eye(9, dtype=bool)
    ours = forward(params, config, ids, positions=positions, visible=visible)
    theirs = decoded(config, params, Block(ids, positions, visible, jnp.int32(0)))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_large_vocabulary_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    params = noisy_params(LLAMA)
    ids = jnp.asarray([[1, 5, 22]], jnp.int32)
    by_product = forward(params, LLAMA, ids)
    monkeypatch.setattr(training, "ONE_HOT", 0)
    np.testing.assert_allclose(forward(params, LLAMA, ids), by_product, atol=1e-6)


@pytest.mark.slow
def test_gradients_are_the_same_with_checkpoints() -> None:
    params = noisy_params(LLAMA)
    ids = jax.random.randint(jax.random.key(2), (2, 7), 0, LLAMA.vocabulary)

    def total(params: dict, checkpoint: bool) -> jax.Array:
        return jnp.sum(jnp.sin(forward(params, LLAMA, ids, checkpoint=checkpoint)))

    plain, again = (jax.grad(total)(params, checkpoint) for checkpoint in (False, True))
    text = str(jax.make_jaxpr(jax.grad(total), static_argnums=1)(params, True))
    assert "checkpoint" in text or "remat" in text
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.any(np.asarray(one) != 0)


def test_bfloat16_computes_narrow_and_answers_wide() -> None:
    params = noisy_params(LLAMA)
    ids = jax.random.randint(jax.random.key(2), (1, 7), 0, LLAMA.vocabulary)
    narrow = forward(params, LLAMA, ids, dtype=jnp.bfloat16)
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, forward(params, LLAMA, ids), atol=0.1)
    assert np.any(np.asarray(narrow) != np.asarray(forward(params, LLAMA, ids)))


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_fresh_parameters_have_the_models_tree_and_even_logits(name: str) -> None:
    config = CONFIGS[name]
    params = init_params(config, jax.random.key(3))
    shapes = jax.eval_shape(
        lambda: transformer_fn(config).module.init(
            jax.random.key(0), chain_block(jnp.zeros((1, 1), jnp.int32)), init_cache(config, 1, 8, jnp.float32)
        )["params"]
    )
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    logits = forward(params, config, jnp.arange(10, dtype=jnp.int32)[None])
    assert np.std(np.asarray(logits)) < (1.5 if config.tied else 0.5)  # a tied head is as large as embeddings are
    other = init_params(config, jax.random.key(4))
    assert np.any(np.asarray(params["embedding"]["kernel"]) != np.asarray(other["embedding"]["kernel"]))
