"""Merged rows are the same tree as the rows, and the model says the same of both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_transformer import small_transformer

from jaxspec.decode.tree import tree_of
from jaxspec.decode.types import Draft
from jaxspec.drafters.rows import draft_rows
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import Block, chain_block

B, K, W = 2, 4, 3


@functools.partial(jax.jit, static_argnames=("merge",))
def drafted(ids, length, merge: bool) -> Draft:
    rank = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32), length.shape)
    return draft_rows(ids, length, rank % 2, rank, merge)


def random_rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (B, K, W)).astype(np.int32), rng.integers(0, W + 1, (B, K)).astype(np.int32)


def paths(draft: Draft, lane: int) -> list[tuple[int, ...]]:
    """Token path of every draft node, () for one that is invalid or below an invalid one."""
    found: list[tuple[int, ...]] = []
    for node in range(draft.ids.shape[1]):
        above = int(draft.parent[lane, node])
        assert above <= node
        alive = bool(draft.valid[lane, node]) and (above == 0 or found[above - 1])
        prefix = found[above - 1] if above else ()
        found.append((*prefix, int(draft.ids[lane, node])) if alive else ())
        assert not alive or len(found[-1]) == draft.depth[lane, node]
    return found


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_merged_rows_hold_every_path_once_at_its_first_row(seed: int) -> None:
    ids, length = random_rows(seed)
    rows, tree = drafted(ids, length, merge=False), drafted(ids, length, merge=True)
    for lane in range(B):
        wanted = [
            tuple(ids[lane, row, : step + 1]) if step < length[lane, row] else ()
            for row in range(K)
            for step in range(W)
        ]
        assert paths(rows, lane) == wanted
        seen: set[tuple[int, ...]] = set()
        for node, path in enumerate(paths(tree, lane)):
            assert path == (wanted[node] if wanted[node] not in seen else ())
            assert bool(tree.valid[lane, node]) == bool(path)
            seen.add(wanted[node])
    for field in ("ids", "depth", "source", "evidence"):
        np.testing.assert_array_equal(getattr(rows, field), getattr(tree, field))


@pytest.mark.slow
def test_logits_of_the_tree_are_those_of_each_row_alone() -> None:
    lm = small_transformer()
    prompt = jnp.asarray([[1, 5, 2, 9, 9, 3]], jnp.int32)
    cache = kv_cache.init_cache(lm.config, 1, 64, jnp.float32)
    read = lm.model(lm.params, chain_block(prompt), cache)
    cache = kv_cache.append(cache, read.keys, read.values, jnp.asarray([prompt.shape[1]], jnp.int32))
    ids, _ = random_rows(4)
    root = jnp.asarray([7], jnp.int32)
    draft = drafted(ids, np.full((B, K), W, np.int32), merge=True)
    draft = jax.tree.map(lambda field: field[:1], draft)
    assert 0 < int(jnp.sum(draft.valid)) < K * W
    tree = tree_of(root, draft, W)
    logits = lm.model(lm.params, Block(tree.ids, tree.depth, tree.ancestors, jnp.int32(0)), cache).logits[0]
    for row in range(K):
        block = jnp.concatenate([root[:, None], ids[:1, row]], axis=1)
        alone = lm.model(lm.params, chain_block(block), cache).logits[0]
        np.testing.assert_allclose(logits[0], alone[0], atol=1e-4)
        for step in range(W):
            twin = next(node for node, path in enumerate(paths(draft, 0)) if path == tuple(ids[0, row, : step + 1]))
            np.testing.assert_allclose(logits[1 + twin], alone[1 + step], atol=1e-4)
