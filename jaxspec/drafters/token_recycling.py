"""Drafts from the target's own past opinions: of every token, what it last thought would follow.

Token Recycling (Luo et al., arXiv 2408.08696): an adjacency table of likely successors, read along a fixed tree of
ranks and rewritten from every verified node, rejected ones too. Here the table can start from the model's bigram
instead of empty, several nodes with one token are told apart by rule, lanes share what they learn, and a second table
may tell what follows a token by the one before it.

B lanes, N draft nodes, M = N + 1 block nodes, V vocabulary, R successors a token, P buckets.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.binding import Binding
from jaxspec.decode.lanes import choose
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.model_tables import model_bigram, prefix_ids
from jaxspec.drafters.rank_template import Template, checked_template, likeliest_template
from jaxspec.drafters.ranked_tree import RankedTree, before_root, ranked_tree
from jaxspec.drafters.sizes import sizes
from jaxspec.drafters.successors import Successors, find, initial, learned

STARTS = {"bigram": "auto", "newline": "newline", "empty": None}  # and the prefix of the table they read
UPDATES = ("all", "path")
CLASSES = 8  # of evidence for a token's own successors, by rank, and as many for a pair's; higher ranks share the last


@dataclasses.dataclass(frozen=True)
class TokenRecycling(RankedTree):
    """A static tree filled from the table.

    Attributes:
      branches: R.
      template: paths of ranks from the root, one a node, by depth.
      start: what the table of single tokens holds at first, see `STARTS`; that of pairs is empty.
      shared: one table for all lanes and requests; otherwise one a lane, renewed with every request.
      updates: which verified nodes rewrite it: all, or those on the accepted path.
      pairs: P, buckets for successors of pairs of tokens; 0 for none.
    """

    branches: int
    template: Template
    start: str
    shared: bool
    updates: str
    pairs: int = 0

    sources = ("token_recycling",)

    @property
    def top(self) -> int:
        return self.branches

    def bind(self, binding: Binding) -> "TokenRecycling":
        return dataclasses.replace(self, shared=self.shared and not binding.by_request)

    def prepare(self, language_model: Any) -> jax.Array:
        """(V, R) int32 the table at the start, -1 where nothing is known."""
        vocabulary = language_model.config.vocabulary
        if self.branches > vocabulary:
            raise ValueError(f"branches={self.branches} is above the model's vocabulary of {vocabulary} ids; lower it")
        prefix = STARTS[self.start]
        if prefix is None:
            return jnp.full((vocabulary, self.branches), -1, jnp.int32)
        return model_bigram(language_model, self.branches, prefix_ids(language_model, prefix))

    def init(self, params: jax.Array, context: Context) -> Successors:
        table = initial(params, self.pairs)
        if self.shared:
            return table
        return jax.tree.map(lambda x: jnp.tile(x[None], (context.length.shape[0], *[1] * x.ndim)), table)

    def admit(self, params: jax.Array, state: Successors, context: Context, fresh: jax.Array) -> Successors:
        return state if self.shared else choose(fresh, self.init(params, context), state)

    def propose(self, params: jax.Array, state: Successors, context: Context) -> tuple[Draft, Successors]:
        def successor(before: jax.Array, token: jax.Array, rank: jax.Array) -> tuple[jax.Array, jax.Array]:
            ids, of_pair = jax.vmap(find, in_axes=(self._axis, 0, 0, None))(state, before, token, rank)
            return ids, jnp.minimum(rank, CLASSES - 1) + jnp.where(of_pair, CLASSES, 0)

        return ranked_tree(self.template, context, successor), state

    def observe(
        self, params: jax.Array, state: Successors, context: Context, draft: Draft, verdict: Verdict
    ) -> Successors:
        ids = jnp.concatenate([context.root[:, None], draft.ids], axis=1)  # (B, M)
        above = jnp.take_along_axis(ids, draft.parent, axis=1)
        before = jnp.concatenate([before_root(context)[:, None], above], axis=1)
        depth = jnp.pad(draft.depth, ((0, 0), (1, 0)))
        usable = jnp.pad(draft.valid, ((0, 0), (1, 0)), constant_values=True) & context.live[:, None]
        successors = verdict.top[..., : self.branches]  # (B, M, R)
        usable &= jnp.all(successors >= 0, axis=-1)
        accepted = _on_path(verdict, ids.shape[1])
        if self.updates == "path":
            usable &= accepted
        order = _precedence(accepted, depth)
        if not self.shared:
            return jax.vmap(learned)(state, before, ids, successors, order, usable)
        order += jnp.arange(ids.shape[0], dtype=jnp.int32)[:, None] * (2 * ids.shape[1] ** 2 + 1)
        return learned(state, *(x.reshape(-1, *x.shape[2:]) for x in (before, ids, successors, order, usable)))

    @property
    def _axis(self) -> int | None:
        """Of lanes, in the state."""
        return None if self.shared else 0


def _on_path(verdict: Verdict, nodes: int) -> jax.Array:
    """(B, M) bool the root and the accepted nodes."""
    step = jnp.arange(verdict.path.shape[1], dtype=jnp.int32)
    path = jnp.where(step <= verdict.accepted[:, None], verdict.path, 0)
    return jnp.any(path[:, :, None] == jnp.arange(nodes, dtype=jnp.int32), axis=1)


def _precedence(accepted: jax.Array, depth: jax.Array) -> jax.Array:
    """(B, M) int32, different for all nodes of a lane: lower for accepted, then for shallower, then earlier ones."""
    nodes = depth.shape[1]
    index = jnp.arange(nodes, dtype=jnp.int32)
    return jnp.where(accepted, 0, nodes * nodes) + jnp.minimum(depth, nodes - 1) * nodes + index


def token_recycling(
    branches: int = 8,
    nodes: int = 64,
    template: Template | None = None,
    start: str = "bigram",
    shared: bool = True,
    updates: str = "all",
    pairs: int = 0,
) -> TokenRecycling:
    """Drafts a tree of what the target last thought would follow each token.

    Args:
      branches: successors kept for every token.
      nodes: size of the tree, the likeliest paths by `likeliest_template`.
      template: another tree: paths of ranks from the root, in any order, each with the path above it.
      start: `bigram` begins with the model's own successors of every token, which takes one pass over the
        vocabulary the first time; `newline` with those behind a line break, see `model_bigram`; `empty` with nothing.
      shared: all lanes and requests learn in one table, so that drafts, though never texts, depend on what else is
        decoded; otherwise, and under rules whose texts depend on drafts, every request starts anew.
      updates: `all` verified nodes teach, or only those of the accepted `path`.
      pairs: buckets, a power of two, of a second table: what follows a token after the one before it. A pair's
        successors stand for the token's own wherever the table has them. 0 for the published method.

    Raises:
      ValueError: a size that is no integer or below 1, `pairs` that is neither 0 nor a power of two, a template that
        is empty, repeats a path, lacks a parent or has ranks outside 0 to `branches` - 1, or an unknown `start` or
        `updates`.
    """
    (branches,) = sizes("token_recycling", branches=branches)
    if start not in STARTS:
        raise ValueError(f"start={start!r} is not one of {', '.join(STARTS)}")
    if updates not in UPDATES:
        raise ValueError(f"updates={updates!r} is not one of {', '.join(UPDATES)}")
    pairs = integer("pairs", pairs)
    if pairs < 0 or pairs & (pairs - 1):
        raise ValueError(f"pairs={pairs} is neither 0 nor a power of two; take {1 << max(pairs, 1).bit_length()} or 0")
    if template is None:
        (nodes,) = sizes("token_recycling", nodes=nodes)
        paths = likeliest_template(nodes, branches)
    else:
        paths = checked_template(template, branches)
    return TokenRecycling(branches, paths, start, shared, updates, pairs)
