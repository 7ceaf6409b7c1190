"""Ancestors and accepted paths against plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.decode.tree import ancestors_of, longest_accepted, tree_of
from jaxspec.decode.types import Draft


def random_draft(seed: int, lanes: int, nodes: int, vocabulary: int = 3) -> Draft:
    rng = np.random.default_rng(seed)
    parent = np.stack([[rng.integers(0, j + 1) for j in range(nodes)] for _ in range(lanes)]).reshape(lanes, nodes)
    depth = np.zeros((lanes, nodes), int)
    for lane in range(lanes):
        for j in range(nodes):
            above = parent[lane, j]
            depth[lane, j] = 1 if above == 0 else depth[lane, above - 1] + 1
    return Draft(
        ids=jnp.asarray(rng.integers(0, vocabulary, (lanes, nodes)), jnp.int32),
        parent=jnp.asarray(parent, jnp.int32),
        depth=jnp.asarray(depth, jnp.int32),
        source=jnp.zeros((lanes, nodes), jnp.int32),
        valid=jnp.asarray(rng.random((lanes, nodes)) < 0.9),
        evidence=jnp.zeros((lanes, nodes), jnp.int32),
    )


def path_to(parent: list[int], node: int) -> list[int]:
    path = [node]
    while path[-1] != 0:
        path.append(parent[path[-1]])
    return path[::-1]


@functools.partial(jax.jit, static_argnames="nodes")
def judge(root, draft, chosen, nodes):
    tree = tree_of(root, draft, nodes)
    return tree, *longest_accepted(tree, chosen, nodes)


@given(st.integers(0, 10_000), st.sampled_from([0, 1, 5, 12]))
def test_ancestors_and_acceptance_equal_walks_up_the_tree(seed: int, nodes: int) -> None:
    lanes = 3
    draft = random_draft(seed, lanes, nodes)
    chosen = jnp.asarray(np.random.default_rng(seed + 1).integers(0, 3, (lanes, nodes + 1)), jnp.int32)
    tree, accepted, path = judge(jnp.asarray([1, 2, 0], jnp.int32), draft, chosen, nodes)
    for lane in range(lanes):
        parent = np.asarray(tree.parent[lane]).tolist()
        ids, valid = np.asarray(tree.ids[lane]), np.asarray(tree.valid[lane])
        best: list[int] = [0]
        for node in range(nodes + 1):
            walk = path_to(parent, node)
            expected = np.zeros(nodes + 1, bool)
            expected[walk] = True
            np.testing.assert_array_equal(np.asarray(tree.ancestors[lane, node]), expected)
            follows = all(
                valid[child] and ids[child] == int(chosen[lane, above])
                for above, child in zip(walk, walk[1:], strict=False)
            )
            if follows and len(walk) > len(best):
                best = walk
        assert int(accepted[lane]) == len(best) - 1
        got = np.asarray(path[lane])
        assert [int(ids[j]) for j in got[: len(best)]] == [int(ids[j]) for j in best]
        assert not got[len(best) :].any()


def test_ancestors_of_a_long_chain() -> None:
    nodes = 33
    parent = jnp.maximum(jnp.arange(nodes, dtype=jnp.int32) - 1, 0)[None]
    np.testing.assert_array_equal(ancestors_of(parent, nodes - 1)[0], np.tril(np.ones((nodes, nodes), bool)))
