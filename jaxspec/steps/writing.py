"""One token round of one model, over the lanes whose step it is writing: draft, verify, accept, cut, commit, observe.

The round of the token loop, with two differences: a step's end cuts the tokens too, and a pass takes only as many
lanes as the model has places, gathered by index.

B lanes, b rows of the pass, N draft nodes, D depth.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.commit import Finish, resolve
from jaxspec.decode.lanes import choose
from jaxspec.decode.stop import advance
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.decode.verify import Verifier, verify
from jaxspec.models import cache as kv_cache
from jaxspec.steps.program import Model, ModelInputs, StepInputs, StepProgram
from jaxspec.steps.segmentation import StepEnd, cut_step
from jaxspec.steps.state import StepLoopState, Writer, row_of


class Written(NamedTuple):
    """Attributes:
    state: after the round, but for the writer and the phases.
    writer: the model's.
    ended: (B,) bool lanes whose step is complete.
    count: (B,) int32 tokens written.
    took_part: (B,) bool lanes the pass worked for.
    """

    state: StepLoopState
    writer: Writer
    ended: jax.Array
    count: jax.Array
    took_part: jax.Array


def context_of(state: StepLoopState, live: jax.Array, inputs: StepInputs, model: ModelInputs) -> Context:
    """Every lane's text, the step in progress included, as token drafters see it."""
    problems, row = state.problems, row_of(state)
    sampling = jax.tree.map(lambda leaf: leaf[row], problems.sampling)
    return Context(
        tokens=problems.tokens[row],
        length=state.lanes.written,
        prompt_length=problems.prompt_length[row],
        seed=sampling.seed,
        live=live,
        sampling=sampling,
        banned=inputs.banned,
        step_seconds=model.step_seconds,
    )


def write(
    program: StepProgram,
    inputs: StepInputs,
    model: Model,
    model_inputs: ModelInputs,
    writer: Writer,
    state: StepLoopState,
    wanting: jax.Array,
) -> Written:
    """One pass of `model` for the first lanes of `wanting` (B,), as many as it has places."""
    lanes, problems = state.lanes, state.problems
    count_of_lanes = wanting.shape[0]
    everyone = model.lanes >= count_of_lanes
    index = jnp.arange(count_of_lanes, dtype=jnp.int32)
    if not everyone:
        index = jnp.argsort(~wanting, stable=True)[: model.lanes].astype(jnp.int32)
    chosen = wanting[index]  # (b,)
    took_part = jnp.zeros_like(wanting).at[index].set(chosen)
    context = context_of(state, took_part, inputs, model_inputs)
    draft, drafter_state = model.drafter.propose(model_inputs.drafter_params, writer.drafter, context)

    def rows(values: Any) -> Any:
        return values if everyone else jax.tree.map(lambda leaf: leaf[index], values)

    lane_fields = context._replace(banned=None, step_seconds=None)
    rows_context = rows(lane_fields)._replace(banned=inputs.banned, step_seconds=model_inputs.step_seconds)
    verifier = Verifier(model.model_fn, model.drafter, program.acceptance, program.flags)
    lane = jnp.int32(0) if everyone else index
    verified = verify(verifier, model_inputs.params, writer.cache, lane, rows_context, rows(draft))
    verdict, draft = verified.verdict, draft.within(verified.width)

    row = row_of(state)[index]
    stop_state = lanes.stop_state[index]
    decision = resolve(
        verdict, rows_context.length, problems.limit[row], inputs.capacity, stop_state, inputs.rules,
        inputs.banned.shape[0],
    )  # fmt: skip
    cut = cut_step(
        model_inputs.step_rules,
        jax.tree.map(lambda leaf: leaf[index], lanes.segment),
        verdict.ids,
        jnp.where(chosen, decision.count, 0),
    )
    count = jnp.where(chosen, cut.count, 0)
    finish = jnp.where(count == decision.count, decision.finish, jnp.int32(Finish.RUNNING))
    if inputs.rules.table is not None:
        behind = advance(inputs.rules.table, stop_state, verdict.ids)
        last = jnp.take_along_axis(behind, jnp.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
        stop_state = jnp.where(count > 0, last, stop_state)
    ended = chosen & ((cut.end != StepEnd.NONE) | (finish != Finish.RUNNING))

    step = jnp.arange(verdict.ids.shape[1], dtype=jnp.int32)
    slot = jnp.where(step < count[:, None], rows_context.length[:, None] + step, problems.tokens.shape[1])
    problems = problems._replace(tokens=problems.tokens.at[row[:, None], slot].set(verdict.ids, mode="drop"))

    def back(values: jax.Array, before: jax.Array) -> jax.Array:
        return before.at[index].set(choose(chosen, values, before[index]))

    segment = jax.tree.map(back, cut.state, lanes.segment)
    lanes = lanes._replace(
        written=lanes.written.at[index].add(count),
        segment=segment,
        stop_state=back(stop_state, lanes.stop_state),
        finish=back(finish, lanes.finish),
    )
    cache = kv_cache.append(writer.cache, verified.keys, verified.values, count, None if everyone else index)
    whole = _to_lanes(verdict, index, draft, count_of_lanes) if not everyone else verdict
    drafter_state = model.drafter.observe(model_inputs.drafter_params, drafter_state, context, draft, whole)
    nothing = jnp.zeros((count_of_lanes,), jnp.int32)
    return Written(
        state=state._replace(problems=problems, lanes=lanes),
        writer=Writer(cache, drafter_state),
        ended=jnp.zeros_like(wanting).at[index].set(ended),
        count=nothing.at[index].set(count),
        took_part=took_part,
    )


def _to_lanes(verdict: Verdict, index: jax.Array, draft: Draft, lanes: int) -> Verdict:
    """The verdict of the pass's rows as one of all lanes; others show zeros and are not live."""

    def spread(values: jax.Array) -> jax.Array:
        return jnp.zeros((lanes, *values.shape[1:]), values.dtype).at[index].set(values)

    return jax.tree.map(spread, verdict)
