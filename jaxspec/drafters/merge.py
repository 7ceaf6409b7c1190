"""Several drafts as one tree: equal paths become one node.

B lanes, C candidate nodes.
"""

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Draft


def join(drafts: list[Draft], first_source: list[int]) -> Draft:
    """One draft holding all nodes of `drafts`, sources counted from `first_source` on."""
    offset, parents = 0, []
    for draft in drafts:
        parents.append(jnp.where(draft.parent == 0, 0, draft.parent + offset))
        offset += draft.ids.shape[1]

    def side_by_side(fields: list[jax.Array]) -> jax.Array:
        return jnp.concatenate(fields, axis=1)

    return Draft(
        ids=side_by_side([draft.ids for draft in drafts]),
        parent=side_by_side(parents),
        depth=side_by_side([draft.depth for draft in drafts]),
        source=side_by_side([draft.source + first for draft, first in zip(drafts, first_source, strict=True)]),
        valid=side_by_side([draft.valid for draft in drafts]),
        evidence=side_by_side([draft.evidence for draft in drafts]),
    )


def representatives(hashes: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first valid node of every path.

    Args:
      hashes: (B, C) of paths, see `paths.path_hash`.
      valid: (B, C) bool.

    Returns:
      (B, C) int32 index of the first valid candidate with the same path (itself if there is none), and (B, C, C)
      bool whether candidate j stands for the path of candidate i.
    """
    same = (hashes[:, :, None] == hashes[:, None, :]) & valid[:, None, :]
    count = hashes.shape[1]
    index = jnp.arange(count, dtype=jnp.int32)
    first = jnp.min(jnp.where(same, index, count), axis=2)
    return jnp.where(first < count, first, index), same


def best_nodes(draft: Draft, first: jax.Array, probability: jax.Array, nodes: int) -> Draft:
    """The `nodes` most probable nodes of a merged draft, most probable first.

    Args:
      draft: joined candidates.
      first: (B, C) representatives.
      probability: (B, C) of each path, never larger than its parent's.
      nodes: N.

    Returns:
      A draft with `gain`; parents precede their children because of equal probabilities the earlier node comes
      first, and a parent is earlier. Nodes without a parent among them are not valid, nor are those that would stand
      before theirs or not right below it, where representatives mix up paths because their hashes collide.
    """
    count = draft.ids.shape[1]
    is_first = (first == jnp.arange(count)) & draft.valid
    gain, chosen = jax.lax.top_k(jnp.where(is_first, probability, -1.0), nodes)
    lane = jnp.arange(chosen.shape[0])[:, None]
    # Where a candidate went: block nodes from 1 on; 0, the root, for what was not chosen.
    place = jnp.zeros((chosen.shape[0], count), jnp.int32).at[lane, chosen].set(jnp.arange(1, nodes + 1))

    def pick(field: jax.Array) -> jax.Array:
        return jnp.take_along_axis(field, chosen, axis=1)

    above, depth = pick(draft.parent), pick(draft.depth)
    kept = jnp.take_along_axis(first, jnp.maximum(above - 1, 0), axis=1)
    parent = jnp.where(above == 0, 0, jnp.take_along_axis(place, kept, axis=1))
    behind = parent <= jnp.arange(nodes, dtype=jnp.int32)
    right_below = depth == jnp.take_along_axis(jnp.pad(depth, ((0, 0), (1, 0))), parent, axis=1) + 1
    valid = (gain > 0) & behind & right_below
    return Draft(
        ids=pick(draft.ids),
        parent=parent,
        depth=jnp.where(valid, depth, 1),
        source=pick(draft.source),
        valid=valid,
        evidence=pick(draft.evidence),
        gain=jnp.where(valid, gain, 0.0),
    )
