"""Merged trees stay trees where hashes of paths collide."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.decode.types import Draft
from jaxspec.drafters.merge import best_nodes, representatives
from jaxspec.drafters.paths import path_hash, prefix_hash

IDS = 200_000


def draft_of(ids: list[int], parent: list[int], depth: list[int]) -> Draft:
    zeros = np.zeros(len(ids), np.int32)
    rows = (jnp.asarray(row, jnp.int32)[None] for row in (ids, parent, depth, zeros))
    return Draft(*rows, valid=jnp.ones((1, len(ids)), bool), evidence=jnp.asarray(zeros)[None])


@pytest.fixture(scope="module")
def collision() -> tuple[int, int]:
    """Tokens x and y whose paths x and 3, y have one hash."""
    every = jnp.arange(IDS, dtype=jnp.int32)
    one = np.asarray(prefix_hash(every[:, None])[:, 1])
    two = np.asarray(prefix_hash(jnp.stack([jnp.full_like(every, 3), every], axis=1))[:, 2])
    shared, x, y = np.intersect1d(one, two, return_indices=True)
    assert len(shared)
    return int(x[0]), int(y[0])


@pytest.mark.parametrize("probability", [(0.9, 0.8, 0.7, 0.6), (0.3, 0.9, 0.7, 0.6)])
def test_no_node_stands_below_one_of_another_depth(collision: tuple[int, int], probability) -> None:
    x, y = collision
    draft = draft_of([x, 3, y, 5], [0, 0, 2, 3], [1, 1, 2, 3])  # x; 3, y, 5
    hashes = path_hash(draft, 3)
    assert hashes[0, 0] == hashes[0, 2]
    first, _ = representatives(hashes, draft.valid)
    assert first[0].tolist() == [0, 1, 0, 3]
    merged = best_nodes(draft, first, jnp.asarray([probability]), 4)
    said = {int(token): bool(valid) for token, valid in zip(merged.ids[0], merged.valid[0], strict=True) if valid}
    assert said == {x: True, 3: True}  # 5 would be committed where y belongs
    assert not np.asarray(merged.gain)[~np.asarray(merged.valid)].any()


def test_no_node_stands_before_its_parent() -> None:
    draft = draft_of([1, 2, 3], [0, 1, 0], [1, 2, 1])
    merged = best_nodes(draft, jnp.asarray([[0, 1, 2]]), jnp.asarray([[0.2, 0.6, 0.4]]), 3)
    assert merged.ids[0].tolist() == [2, 3, 1] and merged.valid[0].tolist() == [False, True, True]
