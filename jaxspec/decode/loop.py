"""The token loop: draft, verify, accept, commit, observe; and around it lanes that take requests from a queue.

One slice of it is one XLA program without host synchronisation. A slice ends when all work is done, when its ticks
are spent, or, with more requests waiting on the host, when the queue has run dry.

B lanes, R request rows, N draft nodes, M = N + 1 block nodes, D depth, V vocabulary.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode import statistics
from jaxspec.decode.acceptance import Acceptance
from jaxspec.decode.commit import Commit, Finish, StopRules, resolve
from jaxspec.decode.prefill import read_blocks
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.state import FROM_TARGET, LoopState, Requests, Status, context_of
from jaxspec.decode.types import Context, Draft, Drafter
from jaxspec.decode.verify import Verified, Verifier, verify
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import ModelFn, Params


@dataclasses.dataclass(frozen=True)
class Program:
    """The static part of a loop: one program is compiled for each, and for each shape of the state.

    Attributes:
      model_fn: the target.
      drafter: proposes.
      acceptance: decides.
      flags: which sampling transforms are compiled in.
      prefill_width: prompt tokens a pass.
      logprobs: whether the log-probability of every committed token is kept.
    """

    model_fn: ModelFn
    drafter: Drafter
    acceptance: Acceptance
    flags: SamplingFlags
    prefill_width: int
    logprobs: bool = False


class Inputs(NamedTuple):
    """The data of a loop that no tick changes.

    Attributes:
      params: of the target.
      drafter_params: what `Drafter.prepare` built.
      rules: when requests end.
      banned: (V,) bool ids never said.
      capacity: () int32 total length the buffers and the model allow.
      step_seconds: (number of widths,) float32 what a block of each of the drafter's widths takes.
      max_ticks: () int32 length of the slice.
      more: () bool whether the host holds further requests.
    """

    params: Params
    drafter_params: Any
    rules: StopRules
    banned: jax.Array
    capacity: jax.Array
    step_seconds: jax.Array
    max_ticks: jax.Array
    more: jax.Array


@functools.partial(jax.jit, static_argnames=("program",), donate_argnames=("state",))
def run_slice(program: Program, inputs: Inputs, state: LoopState) -> LoopState:
    """Runs the loop for one slice; `state` is donated."""
    state = state._replace(ticks=jnp.zeros_like(state.ticks))

    def has_time(state: LoopState) -> jax.Array:
        return state.ticks < inputs.max_ticks

    def has_work(state: LoopState) -> jax.Array:
        waiting = jnp.any(state.requests.status == Status.WAITING)
        return has_time(state) & (waiting | (jnp.any(_busy(state)) & ~_starved(inputs, state)))

    def serve(state: LoopState) -> LoopState:
        state = admit(program, inputs, state)
        state = jax.lax.while_loop(
            lambda s: has_time(s) & jnp.any(_unread(s) > 0),
            functools.partial(prefill_tick, program, inputs),
            state,
        )
        return jax.lax.while_loop(
            lambda s: (
                has_time(s) & jnp.all(_unread(s) == 0) & jnp.any(_busy(s)) & ~_can_admit(s) & ~_starved(inputs, s)
            ),
            functools.partial(decode_tick, program, inputs),
            state,
        )

    return jax.lax.while_loop(has_work, serve, state)


def admit(program: Program, inputs: Inputs, state: LoopState) -> LoopState:
    """Gives idle lanes the waiting requests with the lowest tickets."""
    requests = state.requests
    rows = requests.status.shape[0]
    waiting = requests.status == Status.WAITING
    order = jnp.argsort(jnp.where(waiting, requests.ticket, jnp.iinfo(jnp.int32).max))
    idle = ~_busy(state)
    rank = jnp.cumsum(idle) - 1
    fresh = idle & (rank < jnp.sum(waiting))
    row = jnp.where(fresh, order[jnp.clip(rank, 0, rows - 1)], state.row).astype(jnp.int32)
    status = requests.status.at[jnp.where(fresh, row, rows)].set(Status.RUNNING, mode="drop")
    state = state._replace(requests=requests._replace(status=status), row=row)
    drafter = program.drafter.admit(inputs.drafter_params, state.drafter, context_of(state), fresh)
    return state._replace(drafter=drafter)


def prefill_tick(program: Program, inputs: Inputs, state: LoopState) -> LoopState:
    """Reads the next prompt tokens of one lane, in one wide block, into its cache.

    One lane at a time, because a wide block already fills the machine, and because a request's cache is then the
    same whatever the other lanes do.
    """
    unread = _unread(state)
    lane = jnp.argmax(unread > 0).astype(jnp.int32)
    row = state.row[lane]
    start = state.cache.length[lane]
    ids = jax.lax.dynamic_slice(state.requests.tokens, (row, start), (1, program.prefill_width))
    reading = read_blocks(program.model_fn, inputs.params, ids, lane, unread[lane][None], state.cache)
    counters = state.requests.statistics
    counters = counters._replace(prefill_calls=counters.prefill_calls.at[row].add(1, mode="drop"))
    requests = state.requests._replace(statistics=counters)
    return state._replace(requests=requests, cache=reading.cache, ticks=state.ticks + 1)


def decode_tick(program: Program, inputs: Inputs, state: LoopState) -> LoopState:
    """One round for every lane: draft, verify, accept, commit, observe."""
    drafter = program.drafter
    context = context_of(state)._replace(banned=inputs.banned, step_seconds=inputs.step_seconds)
    draft, drafter_state = drafter.propose(inputs.drafter_params, state.drafter, context)
    requests = state.requests
    row = jnp.minimum(state.row, requests.length.shape[0] - 1)
    draft = draft.no_deeper(requests.max_draft[row])
    verifier = Verifier(program.model_fn, drafter, program.acceptance, program.flags, program.logprobs)
    verified = verify(verifier, inputs.params, state.cache, jnp.int32(0), context, draft)
    draft = draft.within(verified.width)
    decision = resolve(
        verified.verdict,
        context.length,
        requests.limit[row],
        inputs.capacity,
        requests.stop_state[row],
        inputs.rules,
        inputs.banned.shape[0],
    )
    state = commit(state, context, draft, verified, decision)
    drafter_state = drafter.observe(inputs.drafter_params, drafter_state, context, draft, verified.verdict)
    return state._replace(drafter=drafter_state, ticks=state.ticks + 1, decode_ticks=state.decode_ticks + 1)


def commit(state: LoopState, context: Context, draft: Draft, verified: Verified, decision: Commit) -> LoopState:
    """Writes what `decision` keeps: tokens, sources, cache, counters; frees the lanes whose request ended."""
    verdict = verified.verdict
    requests = state.requests
    rows = requests.length.shape[0]
    row = jnp.where(context.live, state.row, rows)  # rows beyond the queue are dropped by every write
    count = jnp.where(context.live, decision.count, 0)
    step = jnp.arange(verdict.ids.shape[1], dtype=jnp.int32)
    slot = jnp.where(step < count[:, None], context.length[:, None] + step, requests.tokens.shape[1])
    drafted = jnp.minimum(count, verdict.accepted)
    said_by = jnp.pad(statistics.path_sources(draft, verdict) + 1, ((0, 0), (0, 1)))
    said_by = jnp.where(step < verdict.accepted[:, None], said_by, FROM_TARGET).astype(jnp.int8)
    logprob = requests.logprob
    if verified.logprobs is not None:
        logprob = logprob.at[row[:, None], slot].set(verified.logprobs, mode="drop")
    ended = context.live & (decision.finish != Finish.RUNNING)
    requests = Requests(
        tokens=requests.tokens.at[row[:, None], slot].set(verdict.ids, mode="drop"),
        source=requests.source.at[row[:, None], slot].set(said_by, mode="drop"),
        logprob=logprob,
        prompt_length=requests.prompt_length,
        length=requests.length.at[row].add(count, mode="drop"),
        limit=requests.limit,
        max_draft=requests.max_draft,
        ticket=requests.ticket,
        status=requests.status.at[jnp.where(ended, row, rows)].set(Status.DONE, mode="drop"),
        finish=requests.finish.at[row].set(decision.finish, mode="drop"),
        stop_state=requests.stop_state.at[row].set(decision.stop_state, mode="drop"),
        sampling=requests.sampling,
        statistics=statistics.count_block(requests.statistics, row, draft, verdict, drafted),
    )
    cache = kv_cache.append(state.cache, verified.keys, verified.values, count)
    return state._replace(
        requests=requests,
        row=jnp.where(ended, rows, state.row),
        cache=cache._replace(length=jnp.where(ended, 0, cache.length)),
    )


def _busy(state: LoopState) -> jax.Array:
    """(B,) lanes that hold a request."""
    return state.row < state.requests.status.shape[0]


def _unread(state: LoopState) -> jax.Array:
    """(B,) prompt tokens of a lane not yet in its cache; the last token is the next block's root."""
    row = jnp.minimum(state.row, state.requests.status.shape[0] - 1)
    return jnp.where(_busy(state), state.requests.length[row] - 1 - state.cache.length, 0)


def _can_admit(state: LoopState) -> jax.Array:
    return jnp.any(~_busy(state)) & jnp.any(state.requests.status == Status.WAITING)


def _starved(inputs: Inputs, state: LoopState) -> jax.Array:
    """Whether a lane idles while only the host has requests for it."""
    return inputs.more & jnp.any(~_busy(state)) & ~jnp.any(state.requests.status == Status.WAITING)
