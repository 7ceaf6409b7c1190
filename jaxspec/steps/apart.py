"""The step loop with draft and target on devices of their own: two programs that run at the same time.

Every lane belongs to one side. Each side runs a few ticks on its own lanes from the same common state, the problems
and where every lane stands, and does not touch those of the other; then the common state is put together, lane by
lane and row by row, and sent to the target's devices again. Caches and weights never move. What travels is text and
lengths. Nothing but the moment of a decision differs from one device, so only what a calibrator has learned by then
can make a text differ.

The draft's side admits problems, drafts, and decides, unless the target's own reading is the score: then the target's
side does. A scoring model lives with the draft.

B lanes, R rows.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.lanes import choose
from jaxspec.decode.rewind import rewind
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.models.cache import KVCache
from jaxspec.steps.loop import (
    Round,
    admit,
    draft_writes,
    grant,
    has_work,
    rounds_of,
    run_rounds,
    score,
    settle_comparisons,
    settle_decisions,
    target_writes,
)  # fmt: skip
from jaxspec.steps.program import Model, ModelInputs, StepInputs, StepProgram
from jaxspec.steps.rejected_step import RejectedStep
from jaxspec.steps.state import Author, Lanes, Phase, Problems, StepLoopState, Usage, Writer, row_of, start_of
from jaxspec.steps.types import ReadingScorer
from jaxspec.steps.writing import context_of


class Common(NamedTuple):
    """What both sides know; a view of the draft side's state.

    Attributes:
      problems, lanes, calibrator, usage: see `StepLoopState`.
      draft_length, target_length: (B,) int32 tokens in every lane's caches.
    """

    problems: Problems
    lanes: Lanes
    calibrator: Any
    usage: Usage
    draft_length: jax.Array
    target_length: jax.Array


class TargetSide(NamedTuple):
    """What stays with the target.

    Attributes:
      writer: its cache and token drafter.
      ticket: (B,) int32 ticket of the problem it last worked for in every lane, -1 for none.
      held: (B,) bool lanes that were its own when its last ticks ended.
    """

    writer: Writer
    ticket: jax.Array
    held: jax.Array


class Away(NamedTuple):
    """What is with the target: (B,) bool `lanes` and (R,) bool `rows`."""

    lanes: jax.Array
    rows: jax.Array


def target_decides(program: StepProgram) -> bool:
    """Whether scores are what the target says, so that decisions are made where it lives."""
    scorer = program.policy.scorer
    return isinstance(scorer, ReadingScorer) and scorer.reads == "target"


def draft_side(program: StepProgram, inputs: StepInputs) -> tuple[StepProgram, StepInputs]:
    """The program and data of the draft's devices: no weights of the target among them."""
    unused = Model(program.target.model_fn, autoregressive(), program.target.lanes)
    return dataclasses.replace(program, target=unused), inputs._replace(target=_without_weights(inputs.target))


def target_side(program: StepProgram, inputs: StepInputs) -> tuple[StepProgram, StepInputs]:
    """The program and data of the target's devices. Nobody else computes there, so it need not wait for a wave."""
    unused = Model(program.draft.model_fn, autoregressive(), program.draft.lanes)
    alone = dataclasses.replace(program, draft=unused, scorer_fn=None, wave=1)
    scorer_params = () if program.scorer_fn is not None else inputs.scorer_params
    return alone, inputs._replace(draft=_without_weights(inputs.draft), scorer_params=scorer_params)


def _without_weights(inputs: ModelInputs) -> ModelInputs:
    return inputs._replace(params=(), drafter_params=())


def split(state: StepLoopState) -> tuple[StepLoopState, TargetSide]:
    """A new state as the draft's side keeps it, and what goes to the target's."""
    lanes = state.lanes.phase.shape[0]
    stub = Writer(KVCache((), (), jnp.copy(state.target.cache.length)), ())
    nobody = TargetSide(state.target, jnp.full((lanes,), -1, jnp.int32), jnp.zeros((lanes,), bool))
    return state._replace(target=stub), nobody


def common_of(state: StepLoopState) -> Common:
    """What the target's side needs to know of the draft side's state."""
    return Common(
        state.problems,
        state.lanes,
        state.calibrator,
        state.usage,
        state.draft.cache.length,
        state.target.cache.length,
    )


@functools.partial(jax.jit, static_argnames=("program", "ticks"), donate_argnames=("state",))
def draft_slice(
    program: StepProgram, inputs: StepInputs, state: StepLoopState, *, ticks: int
) -> tuple[StepLoopState, Away]:
    """So many ticks of the draft's side; and what was with the target meanwhile.

    Args:
      program, inputs: from `draft_side`.
      state: with stubs for what the target keeps; donated.
      ticks: rounds.
    """
    away = with_target(program, state.lanes)
    rows = state.problems.status.shape[0]
    theirs = jnp.zeros((rows,), bool).at[jnp.where(away, state.lanes.row, rows)].set(True, mode="drop")
    rounds = _rounds(program, here="draft")

    def one(_: Any, state: StepLoopState) -> StepLoopState:
        return run_rounds(rounds, program, inputs, admit(program, inputs, state), ~away)

    return jax.lax.fori_loop(0, ticks, one, state), Away(away, theirs)


@functools.partial(jax.jit, static_argnames=("program", "ticks"), donate_argnames=("side", "common"))
def target_slice(
    program: StepProgram, inputs: StepInputs, side: TargetSide, common: Common, *, ticks: int
) -> tuple[TargetSide, Common]:
    """So many ticks of the target's side; of the common state returned, the usage is what these ticks add.

    Args:
      program, inputs: from `target_side`.
      side, common: donated.
      ticks: rounds.
    """
    mine = with_target(program, common.lanes)
    state = StepLoopState(
        problems=common.problems,
        lanes=common.lanes,
        draft=Writer(KVCache((), (), common.draft_length), ()),
        target=side.writer._replace(cache=side.writer.cache._replace(length=common.target_length)),
        scorer=(),
        calibrator=common.calibrator,
        usage=common.usage,
        slice_ticks=jnp.int32(0),
    )
    state, ticket = _meet(program, inputs, state, side, mine)
    rounds = _rounds(program, here="target")
    state = jax.lax.fori_loop(0, ticks, lambda _, state: run_rounds(rounds, program, inputs, state, mine), state)
    held = mine & with_target(program, state.lanes)
    added = jax.tree.map(jnp.subtract, state.usage, common.usage)
    added = added._replace(most_with_target=state.usage.most_with_target)
    return TargetSide(state.target, ticket, held), common_of(state)._replace(usage=added)


@functools.partial(jax.jit, static_argnames=("program",), donate_argnames=("state",))
def merge(
    program: StepProgram, state: StepLoopState, away: Away, theirs: Common, more: jax.Array
) -> tuple[StepLoopState, jax.Array]:
    """The draft side's state with what the target's side did, and () bool whether anything is left to do.

    Args:
      program: from `draft_side`.
      state, away: from `draft_slice`; the state is donated.
      theirs: from `target_slice`, brought to the draft's devices.
      more: () bool whether the host holds further problems.
    """
    ours = state.usage
    usage = jax.tree.map(jnp.add, ours, theirs.usage)._replace(
        ticks=ours.ticks, most_with_target=jnp.maximum(ours.most_with_target, theirs.usage.most_with_target)
    )

    def length(theirs: jax.Array, cache: KVCache) -> KVCache:
        return cache._replace(length=jnp.where(away.lanes, theirs, cache.length))

    state = state._replace(
        problems=choose(away.rows, theirs.problems, state.problems),
        lanes=choose(away.lanes, theirs.lanes, state.lanes),
        draft=Writer(
            length(theirs.draft_length, state.draft.cache),
            rewind(program.draft.drafter, state.draft.drafter, theirs.draft_length + 1, away.lanes),
        ),
        target=state.target._replace(cache=length(theirs.target_length, state.target.cache)),
        calibrator=theirs.calibrator if target_decides(program) else state.calibrator,
        usage=usage,
    )
    return state, has_work(state, more)


def with_target(program: StepProgram, lanes: Lanes) -> jax.Array:
    """(B,) bool lanes whose next move is the target side's."""
    waiting = lanes.phase >= Phase.WAIT
    if not target_decides(program):
        return waiting
    return waiting | (lanes.phase == Phase.SCORE) | (lanes.phase == Phase.DECIDE)


def _rounds(program: StepProgram, here: str) -> list[Round]:
    """Those rounds of a tick that run on the side `draft` or `target`."""
    of_target = [grant, target_writes]
    deciding = [score, settle_decisions, settle_comparisons]
    of_side = {"draft": [draft_writes], "target": of_target}
    of_side["target" if target_decides(program) else "draft"] += deciding
    return [one for one in rounds_of(program) if one in of_side[here]]


def _meet(
    program: StepProgram, inputs: StepInputs, state: StepLoopState, side: TargetSide, mine: jax.Array
) -> tuple[StepLoopState, jax.Array]:
    """Tells the target's token drafter of new problems and of steps that were discarded; and (B,) tickets seen."""
    row = row_of(state)
    ticket = jnp.where(mine, state.problems.ticket[row], side.ticket)
    fresh = mine & (ticket != side.ticket)
    context = context_of(state, fresh, inputs, inputs.target)
    # What was discarded while a lane was on the draft's side shows in the length of the target's cache.
    returned = mine & ~side.held & ~fresh
    drafter = rewind(program.target.drafter, state.target.drafter, state.target.cache.length + 1, returned)
    drafter = program.target.drafter.admit(inputs.target.drafter_params, drafter, context, fresh)
    if isinstance(program.target.drafter, RejectedStep):
        replaced = mine & ~side.held & (state.lanes.author == Author.DRAFT) & (state.lanes.phase == Phase.WAIT)
        drafter = program.target.drafter.remember(drafter, state.lanes.kept, start_of(state), replaced)
    return state._replace(target=state.target._replace(drafter=drafter)), ticket
