"""Nodes of a tree known by the tokens on their path from the root.

A path's hash is a sum over its nodes, so that walks up the tree are pointer jumps. Two paths with one hash would be
taken for one, which costs an acceptance and never a wrong token: the target verifies ids, and what stood below the one
is left out where it would stand at another depth below the other; see `merge.best_nodes`.

B lanes, C nodes, T tokens.
"""

import jax
import jax.numpy as jnp

from jaxspec.decode.hashing import ODD, scrambled
from jaxspec.decode.types import Draft, Verdict


def up_the_tree(parent: jax.Array, values: jax.Array, depth: int) -> jax.Array:
    """(B, C) sum of `values` (B, C) over each node and its ancestors, the root counting nothing.

    `parent` (B, C) is by block node, as in `Draft`.
    """
    jump = jnp.pad(parent, ((0, 0), (1, 0)))
    total = jnp.pad(values, ((0, 0), (1, 0)))
    reach = 1
    while reach < depth:
        total += jnp.where(jump > 0, jnp.take_along_axis(total, jump, axis=1), jnp.zeros((), total.dtype))
        jump = jnp.take_along_axis(jump, jump, axis=1)
        reach *= 2
    return total[:, 1:]


def path_hash(draft: Draft, depth: int) -> jax.Array:
    """(B, C) uint32, equal for equal paths from the root."""
    return up_the_tree(draft.parent, _term(draft.ids, draft.depth), depth)


def prefix_hash(ids: jax.Array) -> jax.Array:
    """(B, T + 1) uint32: `path_hash` of the first t of `ids` (B, T), for every t from 0 on."""
    depth = jnp.arange(1, ids.shape[1] + 1, dtype=jnp.int32)
    terms = _term(ids, jnp.broadcast_to(depth, ids.shape))
    return jnp.pad(jnp.cumsum(terms, axis=1, dtype=jnp.uint32), ((0, 0), (1, 0)))


def said_after(paths: jax.Array, draft: Draft, verdict: Verdict) -> tuple[jax.Array, jax.Array]:
    """What the target says after nodes that are found by their path.

    A drafter's own nodes may stand anywhere in the block or be left out, because others share it.

    Args:
      paths: (B, C) uint32 `path_hash` of the nodes.
      draft: the block.
      verdict: of it.

    Returns:
      (B, C) int32, and (B, C) bool whether the block held the node.
    """
    nodes = draft.ids.shape[1]
    chosen = verdict.chosen[:, : nodes + 1]
    held = draft.valid & (chosen[:, 1:] >= 0)
    same = (paths[:, :, None] == path_hash(draft, nodes)[:, None, :]) & held[:, None, :]
    return jnp.take_along_axis(chosen, jnp.argmax(same, axis=2) + 1, axis=1), jnp.any(same, axis=2)


def _term(ids: jax.Array, depth: jax.Array) -> jax.Array:
    """What a token at a depth adds to the hash of its path, (...) uint32 of (...) each."""
    return scrambled((ids.astype(jnp.uint32) + 1) * jnp.uint32(ODD) + depth.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B))
