"""Writes behind the committed prefix, and nothing else."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig

CONFIG = ModelConfig("llama", 11, 8, 8, 2, 4, 2, 4)
LANES, SLOTS, NODES, DEPTH = 3, 10, 6, 4


@given(st.integers(0, 10_000))
def test_commit_writes_the_path_and_drops_what_does_not_fit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cache = kv_cache.init_cache(CONFIG, LANES, SLOTS, jnp.float32)
    before = rng.normal(size=cache.keys[0].shape).astype(np.float32)
    length = rng.integers(0, SLOTS + 1, LANES)
    cache = cache._replace(
        keys=tuple(jnp.asarray(before) for _ in range(2)),
        values=tuple(jnp.asarray(-before) for _ in range(2)),
        length=jnp.asarray(length, jnp.int32),
    )
    new = rng.normal(size=(LANES, CONFIG.key_heads, NODES, CONFIG.head_width)).astype(np.float32)
    path = rng.integers(0, NODES, (LANES, DEPTH))
    count = rng.integers(0, DEPTH + 1, LANES)
    entries = (jnp.asarray(new),) * 2
    got = kv_cache.commit(
        cache, entries, tuple(-e for e in entries), jnp.asarray(path, jnp.int32), jnp.asarray(count, jnp.int32)
    )
    expected = before.copy()
    for lane in range(LANES):
        for step in range(count[lane]):
            if length[lane] + step < SLOTS:
                expected[lane, :, length[lane] + step] = new[lane, :, path[lane, step]]
    for layer in range(2):
        np.testing.assert_array_equal(got.keys[layer], expected)
        np.testing.assert_array_equal(got.values[layer], -expected)
    np.testing.assert_array_equal(got.length, length + count)


def test_write_reaches_only_its_lane() -> None:
    buffer = jnp.zeros((4, 1, 8, 1))
    lane, start, count = (jnp.asarray([v], jnp.int32) for v in (2, 3, 2))
    got = kv_cache.write(buffer, jnp.ones((1, 1, 5, 1)), lane, start, count)
    assert np.argwhere(np.asarray(got)).tolist() == [[2, 0, 3, 0], [2, 0, 4, 0]]


def test_a_cache_has_the_size_its_config_says() -> None:
    wide = dataclasses.replace(CONFIG, head_width=6)
    cache = kv_cache.init_cache(wide, 2, 5, jnp.bfloat16)
    assert cache.slots == 5 and cache.keys[1].shape == (2, 2, 5, 6) and cache.keys[0].dtype == jnp.bfloat16
