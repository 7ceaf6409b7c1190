"""Several drafters in one budget of nodes, shared out by what each has been right about.

Every source's whole proposal is a candidate, selected or not. Once the target has spoken, each candidate whose
prefix came true is a trial, and each that came true itself a success: the success rate of a class of candidates,
(source, how many other drafters agree, evidence, depth), estimates the probability of an edge, its product up the
tree that of a path, and the most probable paths fill the block. A candidate that was not selected is tried like one
that was, if the target's text is known up to it.

B lanes, C candidates, N draft nodes, D depth, Z sources, A degrees of agreement, E classes of evidence, L sets of
rates.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.binding import Binding, bind
from jaxspec.decode.lanes import choose
from jaxspec.decode.rewind import rewind
from jaxspec.decode.types import Context, Draft, Drafter, Verdict
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.merge import best_nodes, join, representatives
from jaxspec.drafters.paths import path_hash, prefix_hash, up_the_tree
from jaxspec.drafters.rates import Rates, learned, prior_rates

CLASSES = 16  # E; higher classes of evidence share the last
AGREEMENTS = 3  # A: candidates of no other drafter, of one, of more
MEMORY = 0.998  # share of old trials that still counts a block later
MEASURED_TRIALS = 32.0  # what a measured rate is worth before any trial of a job

Prior = tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]  # rates by source, agreement, evidence and depth


class MixState(NamedTuple):
    """Attributes:
    parts: state of each drafter.
    rates: (L, Z, A, E, D) of candidates by class; L is B, or 1 where all lanes share them.
    candidates: (B, C) the last proposal.
    agreement: (B, C) int32 how many other drafters proposed each candidate too, A - 1 at most.
    """

    parts: tuple[Any, ...]
    rates: Rates
    candidates: Draft
    agreement: jax.Array


@dataclasses.dataclass(frozen=True)
class Mix:
    """The best `budget` nodes of all `drafters`' proposals; the loop may verify fewer, see `widths`.

    Attributes:
      drafters: the sources.
      widths: see `mix`.
      prior: see `mix`.
      shared: whether all lanes and requests learn the rates together; otherwise every request starts anew.
      memory: share of old trials that still counts a block later.
    """

    drafters: tuple[Drafter, ...]
    widths: tuple[int, ...]
    prior: Prior | None = None
    shared: bool = True
    memory: float = MEMORY
    is_chain = False

    def bind(self, binding: Binding) -> "Mix":
        parts = tuple(bind(part, dataclasses.replace(binding, alone=False)) for part in self.drafters)
        if not binding.by_request:
            return dataclasses.replace(self, drafters=parts)
        return dataclasses.replace(self, drafters=parts, widths=self.widths[-1:], shared=False)

    @property
    def nodes(self) -> int:
        return self.widths[-1]

    @property
    def depth(self) -> int:
        return max(drafter.depth for drafter in self.drafters)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(name for drafter in self.drafters for name in drafter.sources)

    @property
    def top(self) -> int:
        return max(drafter.top for drafter in self.drafters)

    def prepare(self, language_model: Any) -> tuple[Any, ...]:
        return tuple(drafter.prepare(language_model) for drafter in self.drafters)

    def init(self, params: tuple[Any, ...], context: Context) -> MixState:
        lanes = context.length.shape[0]
        count = sum(drafter.nodes for drafter in self.drafters)
        zeros = jnp.zeros((lanes, count), jnp.int32)
        return MixState(
            parts=tuple(d.init(p, context) for d, p in zip(self.drafters, params, strict=True)),
            rates=self.init_rates(lanes),
            candidates=Draft(zeros, zeros, zeros + 1, zeros, zeros.astype(bool), zeros),
            agreement=zeros,
        )

    def admit(self, params: tuple[Any, ...], state: MixState, context: Context, fresh: jax.Array) -> MixState:
        parts = tuple(
            drafter.admit(p, part, context, fresh)
            for drafter, p, part in zip(self.drafters, params, state.parts, strict=True)
        )
        if self.shared:
            return state._replace(parts=parts)
        return state._replace(parts=parts, rates=choose(fresh, self.init_rates(fresh.shape[0]), state.rates))

    def rewind(self, state: MixState, length: jax.Array, which: jax.Array) -> MixState:
        parts = tuple(rewind(part, held, length, which) for part, held in zip(self.drafters, state.parts, strict=True))
        return state._replace(parts=parts)

    def propose(self, params: tuple[Any, ...], state: MixState, context: Context) -> tuple[Draft, MixState]:
        drafts, parts = [], []
        for drafter, part_params, part in zip(self.drafters, params, state.parts, strict=True):
            draft, part = drafter.propose(part_params, part, context)
            drafts.append(draft)
            parts.append(part)
        candidates = join(drafts, self._first_sources())
        first, same = representatives(path_hash(candidates, self.depth), candidates.valid)
        agreement = self._agreement(same)
        edge = state.rates.mean[self._class_of(candidates, agreement)]
        path = jnp.exp(up_the_tree(candidates.parent, jnp.log(edge), self.depth))
        likely = jnp.max(jnp.where(same, path[:, None, :], 0.0), axis=2)  # of a shared path, the best opinion
        draft = best_nodes(candidates, first, likely, self.nodes)
        return draft, state._replace(parts=tuple(parts), candidates=candidates, agreement=agreement)

    def observe(
        self, params: tuple[Any, ...], state: MixState, context: Context, draft: Draft, verdict: Verdict
    ) -> MixState:
        parts = tuple(
            drafter.observe(p, part, context, draft, verdict)
            for drafter, p, part in zip(self.drafters, params, state.parts, strict=True)
        )
        trial, success = came_true(state.candidates, verdict, context.live, self.depth)
        prior = self.init_rates(trial.shape[0])
        kind = self._class_of(state.candidates, state.agreement)
        rates = learned(state.rates, prior, kind, trial, success, self.memory)
        return state._replace(parts=parts, rates=rates)

    def init_rates(self, lanes: int) -> Rates:
        """(L, Z, A, E, D) before any trial. A guess takes deeper edges for likelier: their prefix has come true."""
        shape = (1 if self.shared else lanes, len(self.sources), AGREEMENTS, CLASSES, self.depth)
        if self.prior is None:
            return prior_rates(jnp.broadcast_to(jnp.where(jnp.arange(self.depth) == 0, 0.2, 0.5), shape))
        rate = [
            [[_stretched(row, self.depth) for row in _stretched(table, CLASSES)] for table in _stretched(s, AGREEMENTS)]
            for s in self.prior
        ]
        return prior_rates(jnp.broadcast_to(jnp.asarray(rate, jnp.float32), shape), MEASURED_TRIALS)

    def _class_of(self, candidates: Draft, agreement: jax.Array) -> tuple[jax.Array, ...]:
        """Where each candidate (B, C) stands in the rates."""
        lane = jnp.arange(1 if self.shared else candidates.ids.shape[0])[:, None]
        evidence = jnp.minimum(candidates.evidence, CLASSES - 1)
        return lane, candidates.source, agreement, evidence, candidates.depth - 1

    def _agreement(self, same: jax.Array) -> jax.Array:
        """(B, C) int32 how many other drafters propose each path, from `same` (B, C, C); A - 1 at most."""
        ends = list(itertools.accumulate(drafter.nodes for drafter in self.drafters))
        among = [jnp.any(same[:, :, begin:end], axis=2) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        drafters = jnp.sum(jnp.stack(among), axis=0, dtype=jnp.int32)
        return jnp.clip(drafters - 1, 0, AGREEMENTS - 1)

    def _first_sources(self) -> list[int]:
        first, count = [], 0
        for drafter in self.drafters:
            first.append(count)
            count += len(drafter.sources)
        return first


def came_true(candidates: Draft, verdict: Verdict, live: jax.Array, depth: int) -> tuple[jax.Array, jax.Array]:
    """(B, C) bool whether each candidate's prefix came true, and whether the candidate itself did.

    Known are the accepted tokens and the target's own next one: `accepted + 1` in all.
    """
    truth = prefix_hash(verdict.ids)  # (B, D + 2)
    hashes = path_hash(candidates, depth)
    known = candidates.valid & live[:, None] & (candidates.depth <= verdict.accepted[:, None] + 1)
    before = jnp.take_along_axis(truth, candidates.depth - 1, axis=1)
    after = jnp.take_along_axis(truth, candidates.depth, axis=1)
    return known & (_hash_above(hashes, candidates) == before), known & (hashes == after)


def _hash_above(hashes: jax.Array, candidates: Draft) -> jax.Array:
    """Hash of the path without its last node."""
    above = jnp.take_along_axis(jnp.pad(hashes, ((0, 0), (1, 0))), candidates.parent, axis=1)
    return jnp.where(candidates.parent == 0, jnp.uint32(0), above)


def _has_depths(nested: Any, levels: int) -> bool:
    """Whether this is sequences in sequences, so many levels of them, none of them empty."""
    if levels == 0:
        return not isinstance(nested, Sequence)
    return isinstance(nested, Sequence) and bool(nested) and all(_has_depths(part, levels - 1) for part in nested)


def _frozen(nested: Any) -> Any:
    """Tuples for sequences and floats for numbers, at any depth: a drafter is hashed with all it holds."""
    return tuple(map(_frozen, nested)) if isinstance(nested, Sequence) else float(nested)


def _stretched(values: Sequence[Any], length: int) -> list[Any]:
    """The first `length` values; where there are fewer, the last again and again."""
    return [*values, *[values[-1]] * (length - len(values))][:length]


def mix(
    *drafters: Drafter, budget: int = 16, widths: Sequence[int] | None = None, prior: Sequence[Any] | None = None
) -> Mix:
    """Combines drafters in one token tree.

    Args:
      *drafters: any that propose trees or chains.
      budget: draft nodes a block, at most.
      widths: block sizes the loop may choose among step by step, by expected tokens a second, ascending and at
        most `budget`; None always takes the budget. 0 stands for plain decoding.
      prior: how often candidates are right, as measured before: rates in sequences by source, agreement, evidence and
        depth. What is beyond a table counts as its last entry. None for a guess.

    Raises:
      ValueError: no drafter, a budget below 1 or above what the drafters propose together, widths that do not ascend
        from 0 or more to the budget, sizes that are no integers, or a prior that lacks a source or is not of rates
        between 0 and 1.
    """
    if not drafters:
        raise ValueError("mix needs at least one drafter")
    budget = integer("budget", budget)
    offered = sum(drafter.nodes for drafter in drafters)
    if not 1 <= budget <= offered:
        raise ValueError(f"budget={budget} is not between 1 and {offered}, all nodes the drafters propose")
    widths = (budget,) if widths is None else tuple(integer("an entry of widths", width) for width in widths)
    if list(widths) != sorted(set(widths)) or not widths or widths[0] < 0 or widths[-1] != budget:
        raise ValueError(f"widths={widths} must ascend from 0 or more to the budget of {budget}")
    made = Mix(drafters, widths)
    return made if prior is None else dataclasses.replace(made, prior=_checked(prior, made.sources))


def _checked(prior: Sequence[Any], sources: Sequence[str]) -> Prior:
    """A prior for `sources`, in sequences of any kind, as tuples.

    Raises:
      ValueError: it lacks one, or is not of rates between 0 and 1.
    """
    if len(prior) != len(sources) or not all(_has_depths(tables, 3) for tables in prior):
        raise ValueError(
            f"prior has {len(prior)} entries; give one for each of {sources}: rates by agreement, evidence and depth, "
            "of which none is empty"
        )
    wrong = [rate for tables in prior for table in tables for row in table for rate in row if not 0 < rate < 1]
    if wrong:
        raise ValueError(f"prior rate {wrong[0]} is not between 0 and 1")
    return _frozen(prior)
