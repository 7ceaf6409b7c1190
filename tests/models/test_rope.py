"""Rotations, and what their angles cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.models import rope
from jaxspec.models.cache import init_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import chain_block
from jaxspec.models.transformer import transformer_fn
from jaxspec.train.forward import init_params

CONFIG = ModelConfig(
    family="llama", vocabulary=11, width=16, mlp_width=24, layers=3, query_heads=4, key_heads=2, head_width=4
)


def test_angles_are_cosine_and_sine_to_the_last_bit() -> None:
    frequency = rope.frequencies(CONFIG, sliding=False)
    positions = jnp.asarray([[0, 1, 2, 4095], [7, 8, 100_003, 2]], jnp.int32)
    cosine, sine = jax.jit(lambda positions: rope.angles(positions, frequency))(positions)
    angle = positions[:, None, :, None].astype(jnp.float32) * frequency
    np.testing.assert_array_equal(cosine, jax.jit(jnp.cos)(angle))
    np.testing.assert_array_equal(sine, jax.jit(jnp.sin)(angle))


def test_a_rotation_keeps_lengths_and_turns_by_position() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 2, 5, 4))
    angles = rope.angles(jnp.arange(5, dtype=jnp.int32)[None], rope.frequencies(CONFIG, sliding=False))
    rotated = rope.rotate(x, *angles)
    np.testing.assert_array_equal(rotated[:, :, 0], x[:, :, 0])  # position 0
    np.testing.assert_allclose(jnp.linalg.norm(rotated, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    before, after = (np.asarray(y)[0, 0, 3] for y in (x, rotated))
    turned = (before[0] + 1j * before[2]) * np.exp(3j)
    np.testing.assert_allclose(after[0] + 1j * after[2], turned, rtol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere a cosine is cheap to compute again")
def test_a_pass_computes_its_angles_once() -> None:
    model = transformer_fn(CONFIG)
    params, cache = init_params(CONFIG, jax.random.key(0)), init_cache(CONFIG, 1, 128, jnp.float32)
    program = jax.jit(model).lower(params, chain_block(jnp.zeros((1, 6), jnp.int32)), cache).compile().as_text()
    assert program.count(" cosine(") == program.count(" sine(") == 1
