"""What becomes of a finished step: kept, set aside for the target, or compared with the target's.

B lanes, S steps a problem, T tokens a step.
"""

import jax
import jax.numpy as jnp

from jaxspec.decode.commit import Finish
from jaxspec.decode.lanes import choose
from jaxspec.decode.rewind import rewind
from jaxspec.decode.state import Status
from jaxspec.models.cache import KVCache
from jaxspec.steps.program import Model, StepProgram
from jaxspec.steps.state import Author, Kept, Phase, StepLoopState, Writer, row_of, start_of


def keep_step(
    program: StepProgram,
    state: StepLoopState,
    which: jax.Array,
    escalated: jax.Array,
    continued: jax.Array | None = None,
) -> StepLoopState:
    """Commits the step in progress of lanes `which` (B,), traces it, and ends the problems it ends.

    Args:
      program: static sizes.
      state: the loop's.
      which: (B,) bool.
      escalated: (B,) bool whether the target wrote for this step, or, with `continued`, is about to.
      continued: (B,) bool lanes where the target now writes on; None for none.
    """
    lanes, problems, trace = state.lanes, state.problems, state.problems.trace
    rows, steps = trace.end.shape
    row = jnp.where(which, lanes.row, rows)
    place = trace.count[row_of(state)]
    by_target = lanes.author == Author.TARGET
    drafted = jnp.where(by_target, lanes.kept.length, lanes.written - start_of(state))

    draft_score, target_score = lanes.score, jnp.full_like(lanes.score, jnp.nan)
    if program.policy.on_escalation == "compare":
        draft_score, target_score = lanes.kept.score, lanes.score
    else:
        # A step written anew shows the score of the draft it stands for; one written on, none.
        before = lanes.kept.score if program.policy.on_escalation == "replace" else target_score
        draft_score = jnp.where(by_target, before, draft_score)

    def note(table: jax.Array, value: jax.Array) -> jax.Array:
        return table.at[row, place].set(value.astype(table.dtype), mode="drop")

    turn = lanes.turn + jnp.where(by_target & (program.policy.on_escalation == "continue"), 0, 1)
    continued = jnp.zeros_like(which) if continued is None else continued
    full = (place + 1 >= steps) | ((turn >= program.max_turns) & ~continued)
    finish = jnp.where((lanes.finish == Finish.RUNNING) & full, jnp.int32(Finish.STEPS), lanes.finish)
    ended = which & (finish != Finish.RUNNING)
    trace = trace._replace(
        count=trace.count.at[row].add(1, mode="drop"),
        end=note(trace.end, lanes.written),
        author=note(trace.author, lanes.author),
        escalated=note(trace.escalated, escalated),
        score=note(trace.score, draft_score),
        target_score=note(trace.target_score, target_score),
        turn=note(trace.turn, lanes.turn),
        drafted=note(trace.drafted, drafted),
    )
    problems = problems._replace(
        length=problems.length.at[row].set(lanes.written, mode="drop"),
        stop_state=problems.stop_state.at[row].set(lanes.stop_state, mode="drop"),
        finish=problems.finish.at[row].set(finish, mode="drop"),
        status=problems.status.at[jnp.where(ended, lanes.row, rows)].set(Status.DONE, mode="drop"),
        trace=trace,
    )
    phase = jnp.where(which, jnp.where(continued, int(Phase.WAIT), int(Phase.DRAFT)), lanes.phase)
    lanes = lanes._replace(
        phase=jnp.where(ended, int(Phase.IDLE), phase),
        row=jnp.where(ended, rows, lanes.row),
        begun=choose(which, lanes.segment, lanes.begun),
        turn=jnp.where(which, turn, lanes.turn),
        kept=lanes.kept._replace(length=jnp.where(which, 0, lanes.kept.length)),
    )
    return state._replace(problems=problems, lanes=lanes)


def set_aside(program: StepProgram, state: StepLoopState, which: jax.Array) -> StepLoopState:
    """Takes the draft's step out of the text of lanes `which` (B,), which then wait for the target."""
    lanes = state.lanes
    start = start_of(state)
    size = lanes.kept.tokens.shape[1]
    slot = start[:, None] + jnp.arange(size, dtype=jnp.int32)
    text = state.problems.tokens[row_of(state)]
    tokens = jnp.take_along_axis(text, jnp.minimum(slot, text.shape[1] - 1), axis=1)
    kept = Kept(tokens, lanes.written - start, lanes.score, lanes.segment, lanes.stop_state, lanes.finish)
    back_to_start = lanes._replace(
        phase=jnp.full_like(lanes.phase, int(Phase.WAIT)),
        written=start,
        segment=lanes.begun,
        stop_state=state.problems.stop_state[row_of(state)],
        finish=jnp.zeros_like(lanes.finish),
        since=jnp.full_like(lanes.since, 0) + state.usage.ticks,
        kept=kept,
    )
    state = state._replace(lanes=choose(which, back_to_start, lanes))
    may_stay = program.policy.on_escalation == "compare"
    nobody = jnp.zeros_like(which)
    return roll_back(program, state, draft=nobody if may_stay else which, target=which, scorer=which)


def compare(program: StepProgram, state: StepLoopState, which: jax.Array) -> tuple[StepLoopState, jax.Array]:
    """Lanes `which` (B,) keep the target's step iff it scores more than the margin above the draft's.

    A score that is no number is the worst: it never wins, and two of them leave the draft's step. But whatever the
    scores, a step whose text broke off with logits that were no numbers gives way to one that did not.

    Returns:
      The state, with the text of the step that stays, and (B,) bool where that is the target's.
    """
    lanes = state.lanes
    ours, theirs = (jnp.where(jnp.isfinite(s), s, -jnp.inf) for s in (lanes.kept.score, lanes.score))
    gain = jnp.where(jnp.isinf(ours) & jnp.isinf(theirs), 0.0, theirs - ours)
    ours_broken, theirs_broken = (f == Finish.NUMERICAL for f in (lanes.kept.finish, lanes.finish))
    target_wins = which & jnp.where(ours_broken == theirs_broken, gain > program.policy.margin, ours_broken)
    draft_wins = which & ~target_wins
    start, kept = start_of(state), lanes.kept
    step = jnp.arange(kept.tokens.shape[1], dtype=jnp.int32)
    inside = draft_wins[:, None] & (step < kept.length[:, None])
    slot = jnp.where(inside, start[:, None] + step, state.problems.tokens.shape[1])
    tokens = state.problems.tokens.at[row_of(state)[:, None], slot].set(kept.tokens, mode="drop")
    restored = lanes._replace(
        written=start + kept.length,
        segment=kept.segment,
        stop_state=kept.stop_state,
        finish=kept.finish,
        author=jnp.full_like(lanes.author, int(Author.DRAFT)),
    )
    state = state._replace(problems=state.problems._replace(tokens=tokens))
    state = roll_back(program, state, draft=target_wins, target=draft_wins, scorer=draft_wins)
    return state._replace(lanes=choose(draft_wins, restored, lanes)), target_wins


def roll_back(
    program: StepProgram, state: StepLoopState, *, draft: jax.Array, target: jax.Array, scorer: jax.Array
) -> StepLoopState:
    """Takes back what each model has read beyond the committed text, in the lanes (B,) bool given for it.

    The last token is pending for the models that write, and read by the one that scores.
    """
    start = start_of(state)

    def shorten(cache: KVCache, which: jax.Array, length: jax.Array) -> KVCache:
        return cache._replace(length=jnp.where(which, jnp.minimum(cache.length, length), cache.length))

    def back(writer: Writer, model: Model, which: jax.Array) -> Writer:
        return Writer(shorten(writer.cache, which, start - 1), rewind(model.drafter, writer.drafter, start, which))

    state = state._replace(
        draft=back(state.draft, program.draft, draft), target=back(state.target, program.target, target)
    )
    if isinstance(state.scorer, KVCache):
        state = state._replace(scorer=shorten(state.scorer, scorer, start))
    return state
