"""Drafts from the target's own past opinions: of every token, what it last thought would follow.

Token Recycling (Luo et al., arXiv 2408.08696): an adjacency table of likely successors, read along a fixed tree of
ranks and rewritten from every verified node, rejected ones too. Here the table can start from the model's bigram
instead of empty, several nodes with one token are told apart by rule, and lanes share what they learn.

B lanes, N draft nodes, M = N + 1 block nodes, V vocabulary, R successors a token.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.binding import Binding
from jaxspec.decode.lanes import on_every_lane
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.model_tables import model_bigram, prefix_ids
from jaxspec.drafters.one_width import OneWidth
from jaxspec.drafters.rank_template import Template, checked_template, likeliest_template, template_arrays

STARTS = {"bigram": "auto", "newline": "newline", "empty": None}  # and the prefix of the table they read
UPDATES = ("all", "path")


@dataclasses.dataclass(frozen=True)
class TokenRecycling(OneWidth):
    """A static tree filled from the table.

    Attributes:
      branches: R.
      template: paths of ranks from the root, one a node, by depth.
      start: what the table holds at first, see `STARTS`.
      shared: one table for all lanes and requests; otherwise one a lane, renewed with every request.
      updates: which verified nodes rewrite it: all, or those on the accepted path.
    """

    branches: int
    template: Template
    start: str
    shared: bool
    updates: str

    sources = ("token_recycling",)

    @property
    def nodes(self) -> int:
        return len(self.template)

    @property
    def depth(self) -> int:
        return len(self.template[-1])

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

    def init(self, params: jax.Array, context: Context) -> jax.Array:
        if self.shared:
            return jnp.array(params, copy=True)  # the state is donated to the loop, the parameters are not
        return jnp.tile(params[None], (context.length.shape[0], 1, 1))

    def admit(self, params: jax.Array, state: jax.Array, context: Context, fresh: jax.Array) -> jax.Array:
        return state if self.shared else jnp.where(fresh[:, None, None], params, state)

    def propose(self, params: jax.Array, state: jax.Array, context: Context) -> tuple[Draft, jax.Array]:
        parent, rank, depth = template_arrays(self.template)
        lanes = context.length.shape[0]
        lane = jnp.arange(lanes)[:, None]
        levels, valids = [context.root[:, None]], [jnp.ones((lanes, 1), bool)]
        begin = 0  # block node where the level above starts
        for level in range(1, self.depth + 1):
            members = depth == level
            above = parent[members] - begin
            begin += levels[-1].shape[1]
            token = levels[-1][:, above]
            place = rank[members][None, :]
            found = state[token, place] if self.shared else state[lane, token, place]
            known = (found >= 0) & valids[-1][:, above]
            levels.append(jnp.where(known, found, 0))
            valids.append(known)

        draft = Draft(
            ids=jnp.concatenate(levels[1:], axis=1),
            parent=on_every_lane(parent, lanes),
            depth=on_every_lane(depth, lanes),
            source=jnp.zeros((lanes, self.nodes), jnp.int32),
            valid=jnp.concatenate(valids[1:], axis=1),
            evidence=on_every_lane(rank, lanes),
        )
        return draft, state

    def observe(
        self, params: jax.Array, state: jax.Array, context: Context, draft: Draft, verdict: Verdict
    ) -> jax.Array:
        ids = jnp.concatenate([context.root[:, None], draft.ids], axis=1)  # (B, M)
        depth = jnp.pad(draft.depth, ((0, 0), (1, 0)))
        usable = jnp.pad(draft.valid, ((0, 0), (1, 0)), constant_values=True) & context.live[:, None]
        successors = verdict.top[..., : self.branches]  # (B, M, R)
        usable &= jnp.all(successors >= 0, axis=-1)
        accepted = _on_path(verdict, ids.shape[1])
        if self.updates == "path":
            usable &= accepted
        order = _precedence(accepted, depth)
        if not self.shared:
            wins = usable & ~jax.vmap(_beaten)(ids, order, usable)
            lane = jnp.arange(ids.shape[0])[:, None]
            return state.at[lane, jnp.where(wins, ids, state.shape[1])].set(successors, mode="drop")
        order += jnp.arange(ids.shape[0], dtype=jnp.int32)[:, None] * (2 * ids.shape[1] ** 2 + 1)
        ids, order, usable = ids.reshape(-1), order.reshape(-1), usable.reshape(-1)
        wins = usable & ~_beaten(ids, order, usable)
        rows = successors.reshape(-1, self.branches)
        return state.at[jnp.where(wins, ids, state.shape[0])].set(rows, mode="drop")


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


def _beaten(ids: jax.Array, order: jax.Array, usable: jax.Array) -> jax.Array:
    """(X,) bool whether another usable node has the same id and a lower order."""
    rival = (ids[:, None] == ids[None, :]) & (order[None, :] < order[:, None]) & usable[None, :]
    return jnp.any(rival, axis=1)


def token_recycling(
    branches: int = 8,
    nodes: int = 64,
    template: Template | None = None,
    start: str = "bigram",
    shared: bool = True,
    updates: str = "all",
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

    Raises:
      ValueError: a size below 1, a template that is empty, repeats a path, lacks a parent or has ranks outside 0 to
        `branches` - 1, or an unknown `start` or `updates`.
    """
    if branches < 1:
        raise ValueError(f"branches={branches} is below 1; every token needs room for one successor")
    if start not in STARTS:
        raise ValueError(f"start={start!r} is not one of {', '.join(STARTS)}")
    if updates not in UPDATES:
        raise ValueError(f"updates={updates!r} is not one of {', '.join(UPDATES)}")
    if template is None:
        if nodes < 1:
            raise ValueError(f"nodes={nodes} is below 1; the tree needs at least one node")
        paths = likeliest_template(nodes, branches)
    else:
        paths = checked_template(template, branches)
    return TokenRecycling(branches, paths, start, shared, updates)
