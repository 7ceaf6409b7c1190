"""Blocks, trees and caches must not change what the model says; nor may what a cache holds beyond its prefix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Block, chain_block
from jaxspec.models.transformer import LinenModelFn, Transformer

PLAIN = ModelConfig("llama", 31, 16, 24, 2, 4, 2, 4, context=64)
GEMMA = dataclasses.replace(
    PLAIN, norm_offset=True, query_key_norm=True, sandwich_norm=True, embedding_scale=4.0, activation="gelu_tanh",
    window=5, sliding=(True, False), local_rope_theta=100.0, tied=True,
)  # fmt: skip
QWEN = dataclasses.replace(PLAIN, qkv_bias=True, key_heads=1)
CONFIGS = {"plain": PLAIN, "gemma": GEMMA, "qwen": QWEN}
SLOTS = 32
in_chunks_or_whole = pytest.mark.parametrize("chunk", [None, 8])  # as on accelerators, and as on CPU


def build(config: ModelConfig, chunk: int | None = 8, by_slot: bool = False):
    fn = LinenModelFn(Transformer(config, jnp.float32, chunk, by_slot))
    empty = kv_cache.init_cache(config, 1, SLOTS, jnp.float32)
    params = fn.module.init(jax.random.key(0), chain_block(jnp.zeros((1, 1), jnp.int32)), empty)["params"]
    noise = iter(jax.random.split(jax.random.key(1), 200))
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(next(noise), p.shape), params)
    return jax.jit(fn), params


def whole(config, fn, params, ids):
    """Logits of `ids` (B, T) in one block."""
    cache = kv_cache.init_cache(config, ids.shape[0], SLOTS, jnp.float32)
    return fn(params, chain_block(ids), cache).logits


@pytest.mark.parametrize("name", CONFIGS)
@in_chunks_or_whole
def test_blocks_through_the_cache_equal_one_block(name: str, chunk: int | None) -> None:
    fn, params = build(CONFIGS[name], chunk)
    lanes = 2
    ids = jax.random.randint(jax.random.key(2), (lanes, 20), 0, 31)
    expected = whole(CONFIGS[name], fn, params, ids)
    cache = kv_cache.init_cache(CONFIGS[name], lanes, SLOTS, jnp.float32)
    start, got = 0, []
    for width in (1, 6, 3, 1, 9):
        block = chain_block(ids[:, start : start + width])
        output = fn(params, block, cache)
        got.append(output.logits)
        count = jnp.full((lanes,), width, jnp.int32)
        cache = kv_cache.commit(cache, output.keys, output.values, block.depth, count)
        start += width
    np.testing.assert_allclose(jnp.concatenate(got, axis=1), expected, atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_node_of_a_tree_equals_its_own_path(name: str) -> None:
    fn, params = build(CONFIGS[name])
    prefix = jax.random.randint(jax.random.key(3), (1, 11), 0, 31)
    cache = kv_cache.init_cache(CONFIGS[name], 1, SLOTS, jnp.float32)
    chain = chain_block(prefix)
    output = fn(params, chain, cache)
    cache = kv_cache.commit(cache, output.keys, output.values, chain.depth, jnp.asarray([11], jnp.int32))
    paths = [[0], [0, 1], [0, 2], [0, 1, 3], [0, 2, 4], [0, 2, 4, 5], [0, 1, 3, 6]]
    nodes = jnp.asarray([[4, 7, 9, 1, 2, 8, 5]], jnp.int32)
    ancestors = np.zeros((1, 7, 7), bool)
    for node, path in enumerate(paths):
        ancestors[0, node, path] = True
    depth = jnp.asarray([[len(path) - 1 for path in paths]], jnp.int32)
    got = fn(params, Block(nodes, depth, jnp.asarray(ancestors), jnp.int32(0)), cache).logits
    for node, path in enumerate(paths):
        text = jnp.concatenate([prefix, nodes[:, np.array(path)]], axis=1)
        np.testing.assert_allclose(got[0, node], whole(CONFIGS[name], fn, params, text)[0, -1], atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("by_slot", [False, True])
@in_chunks_or_whole
def test_undefined_slots_change_nothing(name: str, by_slot: bool, chunk: int | None) -> None:
    fn, params = build(CONFIGS[name], chunk, by_slot)
    cache = kv_cache.init_cache(CONFIGS[name], 3, SLOTS, jnp.float32)
    ids = jax.random.randint(jax.random.key(4), (3, 9), 0, 31)
    chain = chain_block(ids)
    output = fn(params, chain, cache)
    count = jnp.asarray([9, 2, 5], jnp.int32)
    cache = kv_cache.commit(cache, output.keys, output.values, chain.depth, count)
    unused = jnp.arange(SLOTS) >= count[:, None]

    def poison(buffer: jax.Array) -> jax.Array:
        return jnp.where(unused[:, None, :, None], jnp.nan, buffer)

    poisoned = cache._replace(keys=tuple(map(poison, cache.keys)), values=tuple(map(poison, cache.values)))
    block = chain_block(ids[:, :4])
    clean, dirty = (fn(params, block, c) for c in (cache, poisoned))
    np.testing.assert_array_equal(clean.logits, dirty.logits)
    np.testing.assert_array_equal(clean.keys[1], dirty.keys[1])


@pytest.mark.parametrize("by_slot", [False, True])
@in_chunks_or_whole
def test_a_token_without_numbers_spoils_none_that_do_not_see_it(by_slot: bool, chunk: int | None) -> None:
    fn, params = build(PLAIN, chunk, by_slot)
    kernel = params["embedding"]["kernel"]
    spoiled = params | {"embedding": {"kernel": kernel.at[:, 9].set(jnp.nan)}}
    cache = kv_cache.init_cache(PLAIN, 1, SLOTS, jnp.float32)
    good, bad = (fn(p, chain_block(jnp.asarray([[4, 7, 9, 5]])), cache).logits[0] for p in (params, spoiled))
    np.testing.assert_allclose(bad[:2], good[:2], atol=2e-5)
    assert not jnp.isfinite(bad[2]).any()


@pytest.mark.parametrize("by_slot", [False, True])
@in_chunks_or_whole
def test_values_without_numbers_show_in_what_sees_them(by_slot: bool, chunk: int | None) -> None:
    """Though queries and keys be sound, and nothing else seen."""
    fn, params = build(PLAIN, chunk, by_slot)
    kernel = params["layer_0"]["attention"]["qkv"]["kernel"]
    broken = jax.tree.map(lambda leaf: leaf, params)
    broken["layer_0"]["attention"]["qkv"]["kernel"] = kernel.at[:, -1].set(jnp.nan)  # values come last
    cache = kv_cache.init_cache(PLAIN, 1, SLOTS, jnp.float32)
    logits = fn(broken, chain_block(jnp.asarray([[4, 7]])), cache).logits
    assert not jnp.isfinite(logits).any()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@in_chunks_or_whole
def test_by_slot_logits_are_bit_equal_for_any_split(name: str, dtype, chunk: int | None) -> None:
    config, width = CONFIGS[name], 4
    fn, params = build(config, chunk, by_slot=True)
    fn = LinenModelFn(Transformer(config, dtype, chunk, True))
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    step = jax.jit(lambda cache, ids: fn(params, chain_block(ids), cache))
    ids = jax.random.randint(jax.random.key(5), (2, 20), 0, 31)
    seen: dict[int, np.ndarray] = {}
    for take in (1, 3, 2, 4):  # tokens committed a block; blocks stay four wide
        cache = kv_cache.init_cache(config, 2, SLOTS, jnp.float32)
        for start in range(0, 16, take):
            block = ids[:, start : start + width]
            output = step(cache, block)
            for offset in range(take):
                row = np.asarray(output.logits[:, offset])
                np.testing.assert_array_equal(row, seen.setdefault(start + offset, row))
            count = jnp.full((2,), take, jnp.int32)
            path = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), (2, width))
            cache = kv_cache.commit(cache, output.keys, output.values, path, count)


def test_a_block_may_belong_to_one_lane_of_many() -> None:
    fn, params = build(PLAIN)
    cache = kv_cache.init_cache(PLAIN, 4, SLOTS, jnp.float32)
    ids = jax.random.randint(jax.random.key(6), (4, 7), 0, 31)
    chain = chain_block(ids)
    output = fn(params, chain, cache)
    cache = kv_cache.commit(cache, output.keys, output.values, chain.depth, jnp.asarray([7, 3, 5, 1], jnp.int32))
    block = ids[:, :3]
    together = fn(params, chain_block(block), cache).logits
    for lane in range(4):
        alone = fn(params, chain_block(block[lane : lane + 1], lane), cache).logits
        np.testing.assert_allclose(alone[0], together[lane], atol=2e-5)


def test_a_cache_that_is_no_multiple_of_the_chunk_is_refused() -> None:
    fn, params = build(PLAIN, chunk=8)
    cache = kv_cache.init_cache(PLAIN, 1, 12, jnp.float32)
    with pytest.raises(ValueError, match="12 slots.*chunks of 8"):
        fn(params, chain_block(jnp.zeros((1, 1), jnp.int32)), cache)
