"""Runs a job slice by slice: the host fills the queue and collects finished rows, the device does the rest.

B lanes, R request rows, L tokens a row.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode import state as loop_state
from jaxspec.decode.commit import Finish
from jaxspec.decode.lanes import choose
from jaxspec.decode.loop import Inputs, Program, run_slice
from jaxspec.decode.state import FROM_PROMPT, LoopState, Requests, Status, context_of
from jaxspec.decode.statistics import Statistics
from jaxspec.decode.types import Drafter
from jaxspec.engine.fresh_rows import fresh_rows
from jaxspec.engine.request import Request
from jaxspec.models.cache import init_cache
from jaxspec.models.config import ModelConfig

UNLIMITED = np.int32(2**30)  # ticks


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static sizes of a job.

    Attributes:
      lanes: B, requests worked on at once.
      slots: S, cache slots a lane.
      rows: R, requests the device holds at once.
      prefill_width: prompt tokens a pass.
      logprobs: whether log-probabilities are kept.
    """

    lanes: int
    slots: int
    rows: int
    prefill_width: int
    logprobs: bool = False


class Progress(NamedTuple):
    """One request after a slice.

    Attributes:
      index: of the request in the job.
      ids: new token ids so far.
      sources: who said each, see `state.Requests.source`.
      logprobs: of each, or none at all.
      finish: `Finish.RUNNING` while it goes on.
      statistics: counters, every leaf without the request axis.
    """

    index: int
    ids: np.ndarray
    sources: np.ndarray
    logprobs: np.ndarray
    finish: Finish
    statistics: Statistics

    @staticmethod
    def nothing(drafter: Drafter) -> "Progress":
        """Of a request that asked for no tokens."""
        sources = len(drafter.sources)
        counters = Statistics(
            np.int32(0),
            np.int32(0),
            np.zeros((sources,), int),
            np.zeros((sources,), int),
            np.zeros((1,), int),
        )
        return Progress(0, np.zeros((0,), np.int32), np.zeros((0,), np.int8), np.zeros((0,)), Finish.LENGTH, counters)


@functools.partial(jax.jit, static_argnames=("config", "dtype", "drafter", "shape"))
def init_state(config: ModelConfig, dtype: Any, drafter: Drafter, shape: Shape, drafter_params: Any) -> LoopState:
    """An empty queue, idle lanes and an empty cache."""
    tokens = shape.slots + shape.prefill_width  # a prefill pass reads whole blocks, also past a prompt's end
    requests = loop_state.empty_requests(
        shape.rows, tokens, len(drafter.sources), drafter.depth, logprobs=shape.logprobs
    )
    state = LoopState(
        requests=requests,
        row=jnp.full((shape.lanes,), shape.rows, jnp.int32),
        cache=init_cache(config, shape.lanes, shape.slots, dtype),
        drafter=(),
        ticks=jnp.zeros((), jnp.int32),
        decode_ticks=jnp.zeros((), jnp.int32),
    )
    return state._replace(drafter=drafter.init(drafter_params, context_of(state)))


@functools.partial(jax.jit, donate_argnames=("state",))
def submit(state: LoopState, new: Requests, replace: jax.Array) -> LoopState:
    """Puts the rows `replace` (R,) bool of `new` into the queue."""
    return state._replace(requests=choose(replace, new, state.requests))


def serve(
    program: Program,
    inputs: Inputs,
    state: LoopState,
    requests: Sequence[Request],
    *,
    first_ticks: int | None = None,
    slice_ticks: int | None = None,
    partial: bool = False,
) -> Iterator[list[Progress]]:
    """Works through `requests` in order of position and yields, after every slice, what finished in it.

    Args:
      program: static part.
      inputs: data; `max_ticks` and `more` are set here.
      state: from `init_state`; consumed.
      requests: any number, more than rows too.
      first_ticks: target passes of the first slice, when it is to end sooner than the others.
      slice_ticks: target passes between looks at the device; None for as many as the work takes.
      partial: yield running requests as well, with what they have so far.
    """
    rows = state.requests.status.shape[0]
    owner = np.full((rows,), -1)  # request index of every row
    submitted = finished = 0
    while finished < len(requests):
        free = np.flatnonzero(owner < 0)[: len(requests) - submitted]
        if len(free):
            owner[free] = np.arange(submitted, submitted + len(free))
            submitted += len(free)
            new, replace = _rows_of(state, requests, owner, free)
            state = submit(state, *jax.device_put((new, replace)))
        limit = slice_ticks if first_ticks is None else first_ticks
        first_ticks = None
        ticks = UNLIMITED if limit is None else np.int32(limit)
        more, ticks = jax.device_put((np.bool_(submitted < len(requests)), ticks))
        state = run_slice(program, inputs._replace(max_ticks=ticks, more=more), state)
        progress = _collect(state.requests, owner, partial=partial)
        for item in progress:
            if item.finish != Finish.RUNNING:
                owner[owner == item.index] = -1
                finished += 1
        yield progress


def queue_up(state: LoopState, requests: Sequence[Request]) -> LoopState:
    """Puts `requests`, at most as many as rows, into an empty queue; `state` is consumed."""
    rows = np.arange(len(requests))
    owner = np.full((state.requests.status.shape[0],), -1)
    owner[rows] = rows
    return submit(state, *jax.device_put(_rows_of(state, requests, owner, rows)))


def _rows_of(
    state: LoopState, requests: Sequence[Request], owner: np.ndarray, free: np.ndarray
) -> tuple[Requests, np.ndarray]:
    rows, length = state.requests.tokens.shape
    fresh = fresh_rows(length, requests, owner, free)
    new = Requests(
        tokens=fresh.tokens,
        source=np.full((rows, length), FROM_PROMPT, np.int8),
        logprob=np.zeros(state.requests.logprob.shape, np.float32),
        prompt_length=fresh.prompt_length,
        length=fresh.prompt_length,
        limit=fresh.limit,
        max_draft=fresh.max_draft,
        ticket=fresh.ticket,
        status=fresh.status,
        finish=np.zeros((rows,), np.int32),
        stop_state=np.zeros((rows,), np.int32),
        sampling=fresh.sampling,
        statistics=Statistics(*(np.zeros(leaf.shape, leaf.dtype) for leaf in state.requests.statistics)),
    )
    return new, fresh.replace


def _collect(requests: Requests, owner: np.ndarray, *, partial: bool) -> list[Progress]:
    status = jax.device_get(requests.status)
    wanted = status == Status.DONE
    if partial:
        wanted |= status == Status.RUNNING
    rows = np.flatnonzero(wanted & (owner >= 0))
    if not len(rows):
        return []
    # Only what is read: every array fetched takes its microseconds, which a small model's answer feels.
    tokens, source, logprob, begin, end, finish, counters = jax.device_get(
        (
            requests.tokens,
            requests.source,
            requests.logprob,
            requests.prompt_length,
            requests.length,
            requests.finish,
            requests.statistics,
        )
    )
    progress = []
    for row in rows:
        span = slice(begin[row], end[row])
        progress.append(
            Progress(
                int(owner[row]),
                tokens[row, span].copy(),
                source[row, span].copy(),
                logprob[row, span].copy(),
                Finish(int(finish[row])),
                Statistics(*(leaf[row] for leaf in counters)),
            )
        )
    return sorted(progress, key=lambda item: item.index)
