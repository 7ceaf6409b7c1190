"""A fixed tree of ranks, filled level by level with likely successors.

B lanes, N draft nodes, n nodes of a level.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from jaxspec.decode.lanes import on_every_lane
from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.one_width import OneWidth
from jaxspec.drafters.rank_template import Template, template_arrays


class Successor(Protocol):
    """`(before, token, rank) -> (ids, evidence)`: what likely follows a token, of which the one before is known too.

    `before`, `token`, `ids` and `evidence` are (B, n) int32, `rank` is (n,) int32. `before` is -1 at a text's first
    token; `ids` is -1 where nothing is known.
    """

    def __call__(self, before: jax.Array, token: jax.Array, rank: jax.Array) -> tuple[jax.Array, jax.Array]: ...


class RankedTree(OneWidth):
    """Base of drafters of such a tree: as many nodes, and as deep, as their template."""

    template: Template

    @property
    def nodes(self) -> int:
        return len(self.template)

    @property
    def depth(self) -> int:
        return len(self.template[-1])


def before_root(context: Context) -> jax.Array:
    """(B,) int32 the token before the root, -1 where there is none."""
    index = jnp.maximum(context.length - 2, 0)[:, None]
    return jnp.where(context.length < 2, -1, jnp.take_along_axis(context.tokens, index, axis=1)[:, 0])


def ranked_tree(template: Template, context: Context, successor: Successor) -> Draft:
    """The nodes of `template` whose ancestors are all known, as a draft of one source."""
    parent, rank, depth = template_arrays(template)
    lanes = context.length.shape[0]
    tokens, known = [context.root[:, None]], [jnp.ones((lanes, 1), bool)]
    before, evidence = before_root(context)[:, None], []
    begin = 0  # block node where the level above starts
    for level in range(1, len(template[-1]) + 1):
        members = depth == level
        above = parent[members] - begin
        begin += tokens[-1].shape[1]
        token = tokens[-1][:, above]
        ids, kind = successor(before[:, above], token, jnp.asarray(rank[members]))
        there = (ids >= 0) & known[-1][:, above]
        tokens.append(jnp.where(there, ids, 0))
        known.append(there)
        evidence.append(kind)
        before = token
    return Draft(
        ids=jnp.concatenate(tokens[1:], axis=1),
        parent=on_every_lane(parent, lanes),
        depth=on_every_lane(depth, lanes),
        source=jnp.zeros((lanes, len(template)), jnp.int32),
        valid=jnp.concatenate(known[1:], axis=1),
        evidence=jnp.concatenate(evidence, axis=1),
    )
