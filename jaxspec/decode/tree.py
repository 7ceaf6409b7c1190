"""Token trees: from parents to ancestors, from the target's choices to the accepted path.

B lanes, N draft nodes, M = N + 1 block nodes, D depth.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Draft


class Tree(NamedTuple):
    """A draft with its root as one block.

    Attributes:
      ids: (B, M) int32, the root first.
      depth: (B, M) int32.
      ancestors: (B, M, M) bool, including each node itself.
      parent: (B, M) int32; the root is its own.
      valid: (B, M) bool, true at the root.
      log_q: (B, M - 1, V) float32 as in `Draft`, or None.
    """

    ids: jax.Array
    depth: jax.Array
    ancestors: jax.Array
    parent: jax.Array
    valid: jax.Array
    log_q: jax.Array | None = None


def tree_of(root: jax.Array, draft: Draft, depth: int) -> Tree:
    """The block tree of `draft` below `root` (B,); `depth` is the drafter's D."""

    def below(first: jax.Array, rest: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.full((rest.shape[0], 1), first, rest.dtype), rest], axis=1)

    parent = below(jnp.int32(0), draft.parent)
    return Tree(
        ids=jnp.concatenate([root[:, None], draft.ids], axis=1),
        depth=below(jnp.int32(0), draft.depth),
        ancestors=ancestors_of(parent, depth),
        parent=parent,
        valid=below(jnp.bool_(True), draft.valid),
        log_q=draft.log_q,
    )


def ancestors_of(parent: jax.Array, depth: int) -> jax.Array:
    """(B, M, M) bool from `parent` (B, M): whether j is i or above it. The root, node 0, is its own parent."""
    nodes = parent.shape[1]
    ancestors = jnp.broadcast_to(jnp.eye(nodes, dtype=bool), (*parent.shape, nodes))
    jump = parent
    reach = 1  # `ancestors` knows paths of fewer than `reach` steps, and `jump` leads `reach` steps up
    while reach <= depth:
        ancestors |= jnp.take_along_axis(ancestors, jump[:, :, None], axis=1)
        jump = jnp.take_along_axis(jump, jump, axis=1)
        reach *= 2
    return ancestors


def longest_accepted(tree: Tree, chosen: jax.Array, depth: int) -> tuple[jax.Array, jax.Array]:
    """The deepest node whose whole path repeats the target's own choices.

    Args:
      tree: B lanes, M nodes.
      chosen: (B, M) int32 the target's token after every node.
      depth: D.

    Returns:
      accepted (B,) int32, and path (B, D + 1) int32 of block nodes, the root first, 0 beyond `accepted`.
    """
    wanted = jnp.take_along_axis(chosen, tree.parent, axis=1)
    return deepest_path(tree, tree.ids == wanted, depth)


def deepest_path(tree: Tree, fits: jax.Array, depth: int) -> tuple[jax.Array, jax.Array]:
    """The deepest valid node that fits (B, M) with its whole path below the root; as `longest_accepted`."""
    matches = (tree.valid & fits).at[:, 0].set(True)
    on_path = jnp.all(matches[:, None, :] | ~tree.ancestors, axis=2)
    best = jnp.argmax(jnp.where(on_path, tree.depth, -1), axis=1)
    accepted = jnp.take_along_axis(tree.depth, best[:, None], axis=1)[:, 0]
    above = jnp.take_along_axis(tree.ancestors, best[:, None, None], axis=1)[:, 0]  # (B, M)
    at_depth = above[:, None, :] & (tree.depth[:, None, :] == jnp.arange(depth + 1)[:, None])  # (B, D + 1, M)
    path = jnp.sum(jnp.where(at_depth, jnp.arange(tree.ids.shape[1], dtype=jnp.int32), 0), axis=2)
    return accepted, path
