"""The step loop: draft a step, score it, decide, escalate or keep it; around it lanes that take problems from a queue.

Every lane is in a phase of its own and none waits for another: a tick runs each model once, for the lanes that want
it, and skips those nobody wants. One slice of ticks is one XLA program without host synchronisation.

B lanes, R rows.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.commit import Finish
from jaxspec.decode.lanes import choose
from jaxspec.decode.state import Status
from jaxspec.steps.decision import decide, to_be_decided
from jaxspec.steps.program import StepInputs, StepProgram
from jaxspec.steps.reading import read
from jaxspec.steps.rejected_step import RejectedStep
from jaxspec.steps.segmentation import start_steps
from jaxspec.steps.settle import compare, keep_step, set_aside
from jaxspec.steps.state import Author, Phase, StepLoopState, Writer, row_of, start_of
from jaxspec.steps.types import ReadingScorer, StepContext, TextScorer
from jaxspec.steps.waiting import any_behind_barrier, is_ripe, with_target_behind_barrier
from jaxspec.steps.writing import context_of, write

DRAFT, TARGET, SCORER = range(3)  # places in `Usage.reads`
Round = Callable[[StepProgram, StepInputs, StepLoopState], StepLoopState]


@functools.partial(jax.jit, static_argnames=("program",), donate_argnames=("state",))
def run_slice(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """Runs ticks until all work is done, `max_ticks` are spent, or the queue has run dry while the host has more."""

    state = state._replace(slice_ticks=jnp.zeros_like(state.slice_ticks))
    return jax.lax.while_loop(
        lambda state: (state.slice_ticks < inputs.max_ticks) & has_work(state, inputs.more),
        functools.partial(tick, program, inputs),
        state,
    )


def has_work(state: StepLoopState, more: jax.Array) -> jax.Array:
    """() whether anything is left to do, and no lane idle while the host holds `more` () problems for it."""
    waiting = jnp.any(state.problems.status == Status.WAITING)
    idle = state.lanes.phase == Phase.IDLE
    starved = more & jnp.any(idle) & ~waiting
    return waiting | (jnp.any(~idle) & ~starved)


def tick(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """One round of every phase."""
    everyone = jnp.ones(state.lanes.phase.shape, bool)
    return run_rounds(rounds_of(program), program, inputs, admit(program, inputs, state), everyone)


def rounds_of(program: StepProgram) -> list[Round]:
    """What a tick does, in order."""
    policy = program.policy
    rounds: list[Round] = []
    if policy.first == "draft":
        rounds.append(draft_writes)
        if policy.scorer is not None:
            rounds.append(score)
        rounds.append(settle_decisions)
    if policy.first == "target" or policy.escalates:
        rounds += [grant, target_writes]
    if policy.on_escalation == "compare":
        rounds += [score, settle_comparisons]
    return rounds


def run_rounds(
    rounds: Sequence[Round], program: StepProgram, inputs: StepInputs, state: StepLoopState, mine: jax.Array
) -> StepLoopState:
    """Runs `rounds` and accounts for what lanes `mine` (B,) bool did meanwhile.

    A lane that had a place with the target spent the tick there, even if its step is complete by the end of it; any
    other is counted in the phase the tick leaves it in.
    """
    held = jnp.sum(mine & (state.lanes.phase != Phase.IDLE), dtype=jnp.int32)
    done_before = _work_done(state)
    with_target = jnp.zeros_like(mine)
    for one in rounds:
        state = one(program, inputs, state)
        with_target |= state.lanes.phase == Phase.TARGET
    usage = state.usage
    busy = jnp.sum(_work_done(state) > done_before, dtype=jnp.int32)
    phase = jnp.where(with_target, int(Phase.TARGET), state.lanes.phase)
    in_phase = (phase[:, None] == jnp.arange(len(Phase))) & mine[:, None]
    phases = jnp.sum(in_phase, axis=0, dtype=jnp.int32)
    usage = usage._replace(
        ticks=usage.ticks + 1,
        phases=usage.phases + phases,
        most_with_target=jnp.maximum(usage.most_with_target, phases[Phase.TARGET]),
        held=usage.held + held,
        busy=usage.busy + busy,
    )
    return state._replace(usage=usage, slice_ticks=state.slice_ticks + 1)


def _work_done(state: StepLoopState) -> jax.Array:
    """(R,) int32 that grows in every tick in which a model works for the problem."""
    work = state.problems.work
    calls = jnp.asarray(work.draft_calls) + work.target_calls
    return calls + work.draft_reads + work.target_reads + work.scorer_reads


def when(wanted: jax.Array, do: Callable[[Any], Any], state: Any) -> Any:
    """`do(state)` if `wanted` (), else `state`: a loop of at most one round, in which buffers stay where they are.

    `lax.cond` would do, but for the copies XLA makes of a cache that only one branch writes.
    """
    return jax.lax.while_loop(lambda both: both[0], lambda both: (jnp.bool_(False), do(both[1])), (wanted, state))[1]


def admit(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """Gives idle lanes the waiting problems with the lowest tickets.

    Problems that must start together take lanes side by side, once all of these are idle.
    """
    problems, lanes = state.problems, state.lanes
    rows = problems.status.shape[0]
    waiting = problems.status == Status.WAITING
    idle = lanes.phase == Phase.IDLE
    if program.cohort > 1:
        idle = ~any_behind_barrier(program, ~idle)
    most = jnp.minimum(jnp.sum(idle, dtype=jnp.int32), jnp.sum(waiting, dtype=jnp.int32))
    admitted = most // program.cohort * program.cohort

    def take(state: StepLoopState) -> StepLoopState:
        order = jnp.argsort(jnp.where(waiting, problems.ticket, jnp.iinfo(jnp.int32).max))
        rank = jnp.cumsum(idle, dtype=jnp.int32) - 1
        fresh = idle & (rank < admitted)
        row = jnp.where(fresh, order[jnp.clip(rank, 0, rows - 1)].astype(jnp.int32), lanes.row)
        status = problems.status.at[jnp.where(fresh, row, rows)].set(Status.RUNNING, mode="drop")
        length = problems.length[jnp.minimum(row, rows - 1)]
        new = lanes._replace(
            row=row,
            written=length,
            begun=start_steps(fresh.shape[0]),
            segment=start_steps(fresh.shape[0]),
            stop_state=jnp.zeros_like(length),
            finish=jnp.zeros_like(length),
            turn=jnp.zeros_like(length),
        )
        moved = state._replace(problems=problems._replace(status=status), lanes=choose(fresh, new, lanes))
        moved = _begin(program, moved, fresh)

        def restart(writer: Writer, model: Any, model_inputs: Any) -> Writer:
            context = context_of(moved, fresh, inputs, model_inputs)
            drafter = model.drafter.admit(model_inputs.drafter_params, writer.drafter, context, fresh)
            return Writer(_shorten(writer.cache, fresh, 0), drafter)

        scorer = moved.scorer
        if program.scorer_fn is not None:
            scorer = _shorten(scorer, fresh, 0)
        return moved._replace(
            draft=restart(moved.draft, program.draft, inputs.draft),
            target=restart(moved.target, program.target, inputs.target),
            scorer=scorer,
        )

    return when(admitted > 0, take, state)


def draft_writes(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """The draft reads what the target wrote since, and writes on in the lanes where it is up to date."""
    drafting = state.lanes.phase == Phase.DRAFT
    if program.lockstep:
        drafting &= ~with_target_behind_barrier(program, state)
    behind = drafting & (state.draft.cache.length < state.lanes.written - 1)

    def catch_up(state: StepLoopState) -> StepLoopState:
        goal = jnp.where(behind, state.lanes.written - 1, 0)
        done = read(program, program.draft.model_fn, inputs.draft.params, state.draft.cache, state, goal)
        state = state._replace(draft=state.draft._replace(cache=done.cache))
        return _count(state, reads=DRAFT, draft_reads=done.count)

    state = when(jnp.any(behind), catch_up, state)
    ready = drafting & (state.draft.cache.length >= state.lanes.written - 1)

    def go(state: StepLoopState) -> StepLoopState:
        done = write(program, inputs, program.draft, inputs.draft, state.draft, state, ready)
        lanes = done.state.lanes
        unscored = ~to_be_decided(program, lanes) if program.policy.scorer is not None else jnp.bool_(True)
        after = jnp.where(unscored, int(Phase.DECIDE), int(Phase.SCORE))
        lanes = lanes._replace(
            phase=jnp.where(done.ended, after, lanes.phase),
            partial=jnp.where(done.ended, 0.0, lanes.partial),
            score=jnp.where(done.ended, jnp.nan, lanes.score),
            since=jnp.where(done.ended, state.usage.ticks, lanes.since),
        )
        usage = done.state.usage
        usage = usage._replace(
            draft_passes=usage.draft_passes + 1,
            draft_rows=usage.draft_rows + jnp.sum(done.took_part, dtype=jnp.int32),
        )
        state = done.state._replace(draft=done.writer, lanes=lanes, usage=usage)
        return _count(state, draft_calls=done.took_part, draft_tokens=done.count)

    return when(jnp.any(ready), go, state)


def score(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """Scores finished steps: in one go from the text, or pass by pass while a model reads them."""
    scorer = program.policy.scorer
    assert scorer is not None
    phase = state.lanes.phase
    scoring = phase == Phase.SCORE
    if program.lockstep:
        last = jnp.where(with_target_behind_barrier(program, state), phase >= Phase.WAIT, phase == Phase.DRAFT)
        scoring &= ~any_behind_barrier(program, last)
    if isinstance(scorer, ReadingScorer):
        return _score_by_reading(program, inputs, scorer, state, scoring)

    def go(state: StepLoopState) -> StepLoopState:
        assert isinstance(scorer, TextScorer)
        context = StepContext(
            tokens=state.problems.tokens[row_of(state)],
            prompt_length=state.problems.prompt_length[row_of(state)],
            start=start_of(state),
            end=state.lanes.written,
            seed=state.problems.sampling.seed[row_of(state)],
            turn=state.lanes.turn,
            live=scoring,
        )
        return _scored(state, scoring, scorer.score(inputs.scorer_params, context))

    return when(jnp.any(scoring), go, state)


def _score_by_reading(
    program: StepProgram, inputs: StepInputs, scorer: ReadingScorer, state: StepLoopState, scoring: jax.Array
) -> StepLoopState:
    by_target = scorer.reads == "target"
    model_fn, params, annotation = program.target.model_fn, inputs.target.params, 0
    if not by_target:
        assert program.scorer_fn is not None
        model_fn, params, annotation = program.scorer_fn, inputs.scorer_params, program.annotation
    place = TARGET if by_target else SCORER

    def cache_of(state: StepLoopState) -> Any:
        return state.target.cache if by_target else state.scorer

    def with_cache(state: StepLoopState, cache: Any) -> StepLoopState:
        return state._replace(target=state.target._replace(cache=cache)) if by_target else state._replace(scorer=cache)

    def counted(state: StepLoopState, count: jax.Array) -> StepLoopState:
        return _count(state, reads=place, **{"target_reads" if by_target else "scorer_reads": count})

    first = jnp.where(scoring, scorer.first(start_of(state)), 0)
    last = jnp.where(scoring, scorer.last(state.lanes.written), 0)

    def catch_up(state: StepLoopState) -> StepLoopState:
        done = read(program, model_fn, params, cache_of(state), state, first, annotation=annotation)
        return counted(with_cache(state, done.cache), done.count)

    state = when(jnp.any(cache_of(state).length < first), catch_up, state)
    goal = jnp.where(cache_of(state).length >= first, last, 0)

    def listen(state: StepLoopState) -> StepLoopState:
        done = read(program, model_fn, params, cache_of(state), state, goal, scorer, annotation)
        lanes = state.lanes._replace(partial=state.lanes.partial + done.contribution)
        return counted(with_cache(state, done.cache)._replace(lanes=lanes), done.count)

    state = when(jnp.any(cache_of(state).length < goal), listen, state)
    heard = scoring & (cache_of(state).length >= last)
    return _scored(state, heard, scorer.finish(state.lanes.partial, start_of(state), state.lanes.written))


def _scored(state: StepLoopState, which: jax.Array, score: jax.Array) -> StepLoopState:
    """With the score of lanes `which` (B,): none where the text broke off with logits that were no numbers."""
    lanes = state.lanes
    score = jnp.where(lanes.finish == Finish.NUMERICAL, jnp.nan, score)
    return state._replace(
        lanes=lanes._replace(
            score=jnp.where(which, score, lanes.score),
            phase=jnp.where(which, int(Phase.DECIDE), lanes.phase),
        )
    )


def settle_decisions(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """Draft steps with a score are kept, or handed to the target."""
    deciding = (state.lanes.phase == Phase.DECIDE) & (state.lanes.author == Author.DRAFT)
    if program.lockstep:
        phase = state.lanes.phase
        deciding &= ~any_behind_barrier(program, (phase == Phase.DRAFT) | (phase == Phase.SCORE))
        deciding &= ~with_target_behind_barrier(program, state)

    def go(state: StepLoopState) -> StepLoopState:
        state, escalate = decide(program, state, deciding)
        if program.policy.on_escalation == "continue":
            state = keep_step(program, state, deciding, escalate, continued=escalate)
            since = jnp.where(escalate, state.usage.ticks, state.lanes.since)
            return state._replace(lanes=state.lanes._replace(since=since))
        state = set_aside(program, state, escalate)
        if isinstance(program.target.drafter, RejectedStep):
            target = state.target
            memory = program.target.drafter.remember(target.drafter, state.lanes.kept, start_of(state), escalate)
            state = state._replace(target=target._replace(drafter=memory))
        kept = deciding & ~escalate
        return _begin(program, keep_step(program, state, kept, jnp.zeros_like(kept)), kept)

    return when(jnp.any(deciding), go, state)


def grant(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """Lanes that wait take free places with the target, those first that have waited longest."""
    lanes = state.lanes
    waiting, writing = lanes.phase == Phase.WAIT, lanes.phase == Phase.TARGET
    free = program.target.lanes - jnp.sum(writing, dtype=jnp.int32)
    since = jnp.where(waiting, lanes.since, jnp.iinfo(jnp.int32).max)
    order = jnp.argsort(since, stable=True)
    rank = jnp.zeros_like(since).at[order].set(jnp.arange(since.shape[0], dtype=jnp.int32))
    granted = waiting & (rank < free)
    return state._replace(lanes=lanes._replace(phase=jnp.where(granted, int(Phase.TARGET), lanes.phase)))


def target_writes(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """The target reads what it has not seen, and writes on in the lanes where it is up to date."""
    writing = state.lanes.phase == Phase.TARGET
    go_now = jnp.bool_(True) if program.lockstep else is_ripe(program, state)
    behind = writing & (state.target.cache.length < state.lanes.written - 1)

    def catch_up(state: StepLoopState) -> StepLoopState:
        goal = jnp.where(behind, state.lanes.written - 1, 0)
        done = read(program, program.target.model_fn, inputs.target.params, state.target.cache, state, goal)
        state = state._replace(target=state.target._replace(cache=done.cache))
        return _count(state, reads=TARGET, target_reads=done.count)

    state = when(jnp.any(behind) & go_now, catch_up, state)
    ready = writing & (state.target.cache.length >= state.lanes.written - 1)

    def go(state: StepLoopState) -> StepLoopState:
        done = write(program, inputs, program.target, inputs.target, state.target, state, ready)
        usage = done.state.usage
        usage = usage._replace(
            target_passes=usage.target_passes + 1,
            target_rows=usage.target_rows + jnp.sum(done.took_part, dtype=jnp.int32),
        )
        state = done.state._replace(target=done.writer, usage=usage)
        state = _count(state, target_calls=done.took_part, target_tokens=done.count)
        lanes = state.lanes
        lanes = lanes._replace(author=jnp.where(done.ended, int(Author.TARGET), lanes.author))
        state = state._replace(lanes=lanes)
        if program.policy.on_escalation == "compare":
            lanes = lanes._replace(
                phase=jnp.where(done.ended, int(Phase.SCORE), lanes.phase),
                partial=jnp.where(done.ended, 0.0, lanes.partial),
                since=jnp.where(done.ended, state.usage.ticks, lanes.since),
            )
            return state._replace(lanes=lanes)
        escalated = jnp.ones_like(done.ended)
        return _begin(program, keep_step(program, state, done.ended, escalated), done.ended)

    return when(jnp.any(ready) & go_now, go, state)


def settle_comparisons(program: StepProgram, inputs: StepInputs, state: StepLoopState) -> StepLoopState:
    """Where both steps have a score, the better one stays."""
    comparing = (state.lanes.phase == Phase.DECIDE) & (state.lanes.author == Author.TARGET)

    def go(state: StepLoopState) -> StepLoopState:
        state, escalated = compare(program, state, comparing)
        return _begin(program, keep_step(program, state, comparing, escalated), comparing)

    return when(jnp.any(comparing), go, state)


def _begin(program: StepProgram, state: StepLoopState, which: jax.Array) -> StepLoopState:
    """Lanes `which` start a step, unless their problem has just ended."""
    lanes = state.lanes
    which = which & (lanes.row < state.problems.status.shape[0])
    draft_first = program.policy.first == "draft"
    return state._replace(
        lanes=lanes._replace(
            phase=jnp.where(which, int(Phase.DRAFT if draft_first else Phase.WAIT), lanes.phase),
            author=jnp.where(which, int(Author.DRAFT if draft_first else Author.TARGET), lanes.author),
            since=jnp.where(which, state.usage.ticks, lanes.since),
            score=jnp.where(which, jnp.nan, lanes.score),
        )
    )


def _shorten(cache: Any, which: jax.Array, length: jax.Array | int) -> Any:
    """The cache with at most `length` tokens in lanes `which`."""
    return cache._replace(length=jnp.where(which, jnp.minimum(cache.length, length), cache.length))


def _count(state: StepLoopState, reads: int | None = None, **new: jax.Array) -> StepLoopState:
    """Adds (B,) numbers to the counters of the lanes' problems, and a reading pass to the usage."""
    rows = state.problems.status.shape[0]
    row = jnp.where(state.lanes.row < rows, state.lanes.row, rows)
    work = state.problems.work
    for name, value in new.items():
        added = getattr(work, name).at[row].add(value.astype(jnp.int32), mode="drop")
        work = work._replace(**{name: added})
    usage = state.usage
    if reads is not None:
        usage = usage._replace(reads=usage.reads.at[reads].add(1))
    return state._replace(problems=state.problems._replace(work=work), usage=usage)
