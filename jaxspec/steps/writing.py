"""One token round of one model, over the lanes whose step it is writing: draft, verify, accept, cut, commit, observe.

The round of the token loop, with two differences: a step's end cuts the tokens too, and a pass takes only as many
lanes as the model has places, gathered by index.

B lanes, b rows of the pass, N draft nodes, D depth.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.commit import Finish, resolve
from jaxspec.decode.lanes import choose
from jaxspec.decode.rewind import rewind
from jaxspec.decode.stop import advance
from jaxspec.decode.types import Context, Verdict
from jaxspec.decode.verify import Verifier, verify
from jaxspec.models import cache as kv_cache
from jaxspec.steps.draws import turn_draw
from jaxspec.steps.program import Model, ModelInputs, StepInputs, StepProgram
from jaxspec.steps.segmentation import StepEnd, StepState, cut_step
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


def with_noise_of_step(context: Context, stream: int, turn: jax.Array) -> Context:
    """The context with seeds that are a function of each problem's own, the `stream` and the `turn` (B,).

    Noise of plain decoding belongs to a position. Where a step is taken back its positions are written again, and
    noise that has had a say in taking it back must have none in what follows.
    """
    assert context.sampling is not None
    no_mark = jnp.zeros_like(context.seed)
    seed = turn_draw(context.seed, stream, turn, no_mark, lambda key: jax.random.bits(key, (), jnp.uint32))
    return context._replace(seed=seed, sampling=context.sampling._replace(seed=seed))


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a pass: all lanes in order, or as many of those that want it as the model has places.

    Attributes:
      index: (b,) int32 lane of every row.
      chosen: (b,) bool rows the pass works for.
      lanes: B.
    """

    index: jax.Array
    chosen: jax.Array
    lanes: int

    @property
    def everyone(self) -> bool:
        """Whether every lane has its row, so that nothing needs to be gathered."""
        return self.index.shape[0] == self.lanes

    @property
    def took_part(self) -> jax.Array:
        """(B,) bool lanes the pass works for."""
        return self.spread(self.chosen)

    def take(self, values: Any) -> Any:
        """Leaf by leaf, the rows of `values` (B, ...)."""
        return values if self.everyone else jax.tree.map(lambda leaf: leaf[self.index], values)

    def spread(self, values: Any) -> Any:
        """Leaf by leaf, `values` (b, ...) as (B, ...); lanes without a row show zeros."""

        def one(leaf: jax.Array) -> jax.Array:
            return jnp.zeros((self.lanes, *leaf.shape[1:]), leaf.dtype).at[self.index].set(leaf)

        return values if self.everyone else jax.tree.map(one, values)

    def put(self, values: Any, before: Any) -> Any:
        """Leaf by leaf, `before` (B, ...) with the `values` (b, ...) of the rows the pass worked for."""
        return choose(self.took_part, self.spread(values), before)


def rows_of_pass(wanting: jax.Array, places: int) -> Rows:
    """The rows for the first lanes of `wanting` (B,) bool, as many as `places`."""
    lanes = wanting.shape[0]
    index = jnp.arange(lanes, dtype=jnp.int32)
    if places < lanes:
        index = jnp.argsort(~wanting, stable=True)[:places].astype(jnp.int32)
    return Rows(index, wanting[index], lanes)


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
    rows = rows_of_pass(wanting, model.lanes)
    context = context_of(state, rows.took_part, inputs, model_inputs)
    if model.stream is not None:
        context = with_noise_of_step(context, model.stream, state.lanes.turn)
    draft, drafter_state = model.drafter.propose(model_inputs.drafter_params, writer.drafter, context)
    of_rows = rows.take(context._replace(banned=None, step_seconds=None))
    of_rows = of_rows._replace(banned=context.banned, step_seconds=context.step_seconds)
    verifier = Verifier(model.model_fn, model.drafter, program.acceptance, program.flags)
    lane = jnp.int32(0) if rows.everyone else rows.index
    verified = verify(verifier, model_inputs.params, writer.cache, lane, of_rows, rows.take(draft))
    kept = _cut(inputs, model_inputs, state, rows, of_rows.length, verified.verdict)
    cache = kv_cache.append(
        writer.cache, verified.keys, verified.values, kept.count, None if rows.everyone else rows.index
    )
    drafter_state = model.drafter.observe(
        model_inputs.drafter_params,
        drafter_state,
        context,
        draft.within(verified.width),
        rows.spread(verified.verdict),
    )
    state = _commit(state, rows, of_rows.length, verified.verdict, kept)
    # The drafter saw the whole verdict, and a step may have ended within it.
    drafter_state = rewind(model.drafter, drafter_state, state.lanes.written, rows.took_part)
    return Written(
        state=state,
        writer=Writer(cache, drafter_state),
        ended=rows.spread(kept.ended),
        count=rows.spread(kept.count),
        took_part=rows.took_part,
    )


class _Cut(NamedTuple):
    """What of a pass is kept, and where its rows stand behind it; every leaf (b,)."""

    count: jax.Array
    finish: jax.Array
    stop_state: jax.Array
    segment: StepState
    ended: jax.Array


def _cut(
    inputs: StepInputs,
    model_inputs: ModelInputs,
    state: StepLoopState,
    rows: Rows,
    length: jax.Array,
    verdict: Verdict,
) -> _Cut:
    """Ends the accepted tokens where the text ends, or the step."""
    stop_state = rows.take(state.lanes.stop_state)
    limit = state.problems.limit[rows.take(row_of(state))]
    rules = model_inputs.text_rules
    decision = resolve(verdict, length, limit, inputs.capacity, stop_state, rules, inputs.banned.shape[0])
    said = jnp.where(rows.chosen, decision.count, 0)
    cut = cut_step(model_inputs.step_rules, rows.take(state.lanes.segment), verdict.ids, said)
    count = jnp.where(rows.chosen, cut.count, 0)
    finish = jnp.where(count == decision.count, decision.finish, jnp.int32(Finish.RUNNING))
    if rules.table is not None:
        behind = advance(rules.table, stop_state, verdict.ids)
        last = jnp.take_along_axis(behind, jnp.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
        stop_state = jnp.where(count > 0, last, stop_state)
    ended = rows.chosen & ((cut.end != StepEnd.NONE) | (finish != Finish.RUNNING))
    return _Cut(count, finish, stop_state, cut.state, ended)


def _commit(state: StepLoopState, rows: Rows, length: jax.Array, verdict: Verdict, kept: _Cut) -> StepLoopState:
    """Writes the kept tokens behind each lane's text, and where the lane stands now."""
    lanes, problems = state.lanes, state.problems
    row = rows.take(row_of(state))
    step = jnp.arange(verdict.ids.shape[1], dtype=jnp.int32)
    slot = jnp.where(step < kept.count[:, None], length[:, None] + step, problems.tokens.shape[1])
    tokens = problems.tokens.at[row[:, None], slot].set(verdict.ids, mode="drop")
    return state._replace(
        problems=problems._replace(tokens=tokens),
        lanes=lanes._replace(
            written=lanes.written.at[rows.index].add(kept.count),
            segment=rows.put(kept.segment, lanes.segment),
            stop_state=rows.put(kept.stop_state, lanes.stop_state),
            finish=rows.put(kept.finish, lanes.finish),
        ),
    )
