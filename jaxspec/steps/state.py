"""What the step loop carries: problems in a device-side queue, lanes with a phase, two or three models' caches.

A problem keeps its own row of tokens and its own trace of steps; a lane only points at a row. Tokens of a row beyond
`length` belong to the step in progress, as far as the lane's `written`; what lies beyond is undefined. Caches are kept
lazily: a model reads what others wrote when it is next needed, and rolling back is a change of lengths.

R rows, L tokens a row, S steps a row, B lanes, T tokens a step.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.sampling import Leaf, Sampling, plain_sampling
from jaxspec.decode.state import Status
from jaxspec.models.cache import KVCache
from jaxspec.steps.segmentation import StepState, start_steps


class Phase(enum.IntEnum):
    """Of a lane."""

    IDLE = 0
    DRAFT = 1  # the draft writes a step
    SCORE = 2  # the step waits for its score
    DECIDE = 3  # the score is known
    WAIT = 4  # the step waits for a place with the target
    TARGET = 5  # the target writes


class Author(enum.IntEnum):
    """Who wrote a step."""

    DRAFT = 0
    TARGET = 1


class Trace(NamedTuple):
    """What happened, step by step; entries at or beyond `count` are undefined.

    Attributes:
      count: (R,) int32 steps committed.
      end: (R, S) int32 length of the text behind the step.
      author: (R, S) int8 an `Author`.
      escalated: (R, S) bool whether the step was handed over: the target wrote it instead, won the comparison, or wrote
      on behind it. A comparison that the draft won is none, though the target wrote for it too.
      score: (R, S) float32 of the draft's step; NaN where none was scored.
      target_score: (R, S) float32 of the target's step, where both were.
      turn: (R, S) int32 draft steps before this one.
      drafted: (R, S) int16 tokens the draft wrote for this step, kept or not.
    """

    count: Leaf
    end: Leaf
    author: Leaf
    escalated: Leaf
    score: Leaf
    target_score: Leaf
    turn: Leaf
    drafted: Leaf


class Work(NamedTuple):
    """Counters of every problem.

    Attributes:
      draft_calls, target_calls: (R,) int32 passes that wrote for it.
      draft_reads, target_reads, scorer_reads: (R,) int32 tokens read that another had written, the prompt included.
      draft_tokens, target_tokens: (R,) int32 tokens written, kept or not.
    """

    draft_calls: Leaf
    target_calls: Leaf
    draft_reads: Leaf
    target_reads: Leaf
    scorer_reads: Leaf
    draft_tokens: Leaf
    target_tokens: Leaf


class Problems(NamedTuple):
    """The queue, one row a problem.

    Attributes:
      tokens: (R, L) int32 prompt and output.
      prompt_length, length, limit: (R,) int32 tokens: of the prompt, committed, and allowed.
      ticket: (R,) int32 order of service.
      question: (R,) int32 samples of one question share it.
      status: (R,) int32 a `Status`.
      finish: (R,) int32 a `Finish`.
      stop_state: (R,) int32 of the stop automaton, behind the committed text.
      sampling: every leaf (R,).
      trace, work: see there.
    """

    tokens: Leaf
    prompt_length: Leaf
    length: Leaf
    limit: Leaf
    ticket: Leaf
    question: Leaf
    status: Leaf
    finish: Leaf
    stop_state: Leaf
    sampling: Sampling
    trace: Trace
    work: Work


class Kept(NamedTuple):
    """A draft's step set aside, to compare with the target's, or for the target to draft from.

    Attributes:
      tokens: (B, T) int32.
      length: (B,) int32; 0 for none.
      score: (B,) float32.
      segment: automata behind it.
      stop_state: (B,) int32.
      finish: (B,) int32.
    """

    tokens: jax.Array
    length: jax.Array
    score: jax.Array
    segment: StepState
    stop_state: jax.Array
    finish: jax.Array


class Lanes(NamedTuple):
    """Attributes:
    row: (B,) int32 problem of every lane, R when idle.
    phase: (B,) int32 a `Phase`.
    author: (B,) int32 who writes, or wrote, the step in progress.
    written: (B,) int32 length of the text with the step in progress.
    begun: automata behind the committed text.
    segment: automata behind `written`.
    stop_state: (B,) int32 of the stop automaton behind `written`.
    finish: (B,) int32 what ends the problem if the step in progress is kept.
    score: (B,) float32 of the step in progress.
    partial: (B,) float32 the score as far as it was read.
    turn: (B,) int32 draft steps so far.
    since: (B,) int32 tick at which the lane began to draft, to wait for its score, or to wait for the target.
    kept: see there.
    """

    row: jax.Array
    phase: jax.Array
    author: jax.Array
    written: jax.Array
    begun: StepState
    segment: StepState
    stop_state: jax.Array
    finish: jax.Array
    score: jax.Array
    partial: jax.Array
    turn: jax.Array
    since: jax.Array
    kept: Kept


class Writer(NamedTuple):
    """A model that writes, with its cache and its token drafter's state."""

    cache: KVCache
    drafter: Any


class Usage(NamedTuple):
    """Exact accounting of lanes, whatever the clock says.

    Attributes:
      ticks: () int32.
      phases: (6,) int32 lane-ticks spent in every `Phase`.
      draft_passes, target_passes: () int32 passes that wrote.
      draft_rows, target_rows: () int32 lanes those passes worked for, of those they had room for.
      reads: (3,) int32 reading passes of draft, target and scorer.
      most_with_target: () int32 lanes with the target at once.
      held, busy: () int32 lane-ticks with a problem, and those in which a model read or wrote for it; the rest of
        the former were spent waiting.
      decisions: () int32 draft steps that were put to the decision.
      overruled: () int32 escalations undone because all places with the target were taken.
    """

    ticks: jax.Array
    phases: jax.Array
    draft_passes: jax.Array
    target_passes: jax.Array
    draft_rows: jax.Array
    target_rows: jax.Array
    reads: jax.Array
    most_with_target: jax.Array
    held: jax.Array
    busy: jax.Array
    decisions: jax.Array
    overruled: jax.Array


class StepLoopState(NamedTuple):
    """Everything a slice takes and returns; donated.

    Attributes:
      problems, lanes, usage: see there.
      draft, target: the models that write.
      scorer: cache of a scoring model, or () without one.
      calibrator: what the calibrator has learned; shared by all lanes.
      slice_ticks: () int32 ticks of this slice.
    """

    problems: Problems
    lanes: Lanes
    draft: Writer
    target: Writer
    scorer: Any
    calibrator: Any
    usage: Usage
    slice_ticks: jax.Array


def empty_problems(rows: int, tokens: int, steps: int) -> Problems:
    """A queue of `rows` empty rows."""

    def full(value: int) -> jax.Array:
        return jnp.full((rows,), value, jnp.int32)

    def table(dtype: Any) -> jax.Array:
        return jnp.zeros((rows, steps), dtype)

    return Problems(
        tokens=jnp.zeros((rows, tokens), jnp.int32),
        prompt_length=full(0),
        length=full(0),
        limit=full(0),
        ticket=full(0),
        question=full(0),
        status=full(Status.EMPTY),
        finish=full(0),
        stop_state=full(0),
        sampling=plain_sampling(rows),
        trace=Trace(
            count=full(0),
            end=table(jnp.int32),
            author=table(jnp.int8),
            escalated=table(jnp.bool_),
            score=table(jnp.float32),
            target_score=table(jnp.float32),
            turn=table(jnp.int32),
            drafted=table(jnp.int16),
        ),
        work=Work(*(full(0) for _ in Work._fields)),
    )


def idle_lanes(lanes: int, rows: int, step_tokens: int) -> Lanes:
    """Lanes without problems."""
    zeros = jnp.zeros((lanes,), jnp.int32)
    nothing = jnp.full((lanes,), jnp.nan, jnp.float32)
    steps = start_steps(lanes)
    return Lanes(
        row=zeros + rows,
        phase=zeros + int(Phase.IDLE),
        author=zeros,
        written=zeros,
        begun=steps,
        segment=steps,
        stop_state=zeros,
        finish=zeros,
        score=nothing,
        partial=jnp.zeros((lanes,), jnp.float32),
        turn=zeros,
        since=zeros,
        kept=Kept(jnp.zeros((lanes, step_tokens), jnp.int32), zeros, nothing, steps, zeros, zeros),
    )


def no_usage() -> Usage:
    """Before the first tick."""
    zero = jnp.zeros((), jnp.int32)
    count = dict.fromkeys(Usage._fields, zero)
    return Usage(**(count | {"phases": jnp.zeros((len(Phase),), jnp.int32), "reads": jnp.zeros((3,), jnp.int32)}))


def row_of(state: StepLoopState) -> jax.Array:
    """(B,) int32 rows to read from; idle lanes show the last."""
    return jnp.minimum(state.lanes.row, state.problems.length.shape[0] - 1)


def start_of(state: StepLoopState) -> jax.Array:
    """(B,) int32 length of the committed text, where the step in progress starts."""
    return state.problems.length[row_of(state)]
