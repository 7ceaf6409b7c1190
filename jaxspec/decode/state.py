"""What the token loop carries: requests in a device-side queue, the lanes that work on them, the cache.

A request keeps its own row of tokens from submission to collection; a lane only points at a row, so taking up or
finishing a request moves no text.

B lanes, R request rows, L tokens a row, S cache slots.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode import statistics
from jaxspec.decode.sampling import Leaf, Sampling, plain_sampling
from jaxspec.decode.statistics import Statistics
from jaxspec.decode.types import Context
from jaxspec.models.cache import KVCache

FROM_PROMPT = -1  # in `Requests.source`: a prompt token
NO_LIMIT = 2**30  # in `Requests.max_draft`
FROM_TARGET = 0  # the target's own token; draft source z is z + 1


class Status(enum.IntEnum):
    """Of a request row."""

    EMPTY = 0
    WAITING = 1
    RUNNING = 2
    DONE = 3


class Requests(NamedTuple):
    """The queue, one row a request.

    Attributes:
      tokens: (R, L) int32 prompt and output; undefined at and beyond `length`.
      source: (R, L) int8 who said each token: `FROM_PROMPT`, `FROM_TARGET`, or 1 + the draft source.
      logprob: (R, L) float32 of each token of the output, by the target's own logits; (R, 0) if not kept.
      prompt_length: (R,) int32.
      length: (R,) int32 committed tokens.
      limit: (R,) int32 length at which the request ends.
      max_draft: (R,) int32 depth at which its drafts end.
      ticket: (R,) int32 order of service.
      status: (R,) int32 a `Status`.
      finish: (R,) int32 a `Finish`.
      stop_state: (R,) int32 state of the stop automaton.
      sampling: per-request settings, every leaf (R,).
      statistics: per-request counters.
    """

    tokens: Leaf
    source: Leaf
    logprob: Leaf
    prompt_length: Leaf
    length: Leaf
    limit: Leaf
    max_draft: Leaf
    ticket: Leaf
    status: Leaf
    finish: Leaf
    stop_state: Leaf
    sampling: Sampling
    statistics: Statistics


class LoopState(NamedTuple):
    """Everything a slice of the loop takes and returns; donated.

    Attributes:
      requests: the queue.
      row: (B,) int32 request row of every lane, R when idle.
      cache: of the target; `cache.length` is 0 in idle lanes.
      drafter: the drafter's own state.
      ticks: () int32 passes of the target in this slice, prefill included.
      decode_ticks: () int32 passes over drafts since the start, for all lanes together.
    """

    requests: Requests
    row: jax.Array
    cache: KVCache
    drafter: Any
    ticks: jax.Array
    decode_ticks: jax.Array


def empty_requests(rows: int, tokens: int, sources: int, depth: int, *, logprobs: bool = False) -> Requests:
    """A queue of `rows` empty rows of `tokens` tokens, with or without room for their log-probabilities."""

    def full(value: int) -> jax.Array:
        return jnp.full((rows,), value, jnp.int32)

    return Requests(
        tokens=jnp.zeros((rows, tokens), jnp.int32),
        source=jnp.full((rows, tokens), FROM_PROMPT, jnp.int8),
        logprob=jnp.zeros((rows, tokens if logprobs else 0), jnp.float32),
        prompt_length=full(0),
        length=full(0),
        limit=full(0),
        max_draft=full(NO_LIMIT),
        ticket=full(0),
        status=full(Status.EMPTY),
        finish=full(0),
        stop_state=full(0),
        sampling=plain_sampling(rows),
        statistics=statistics.empty(rows, sources, depth),
    )


def context_of(state: LoopState) -> Context:
    """Every lane's request as drafters see it. Idle lanes show a clipped row and are not `live`."""
    requests = state.requests
    rows = requests.tokens.shape[0]
    row = jnp.minimum(state.row, rows - 1)
    return Context(
        tokens=requests.tokens[row],
        length=requests.length[row],
        prompt_length=requests.prompt_length[row],
        seed=requests.sampling.seed[row],
        live=state.row < rows,
        sampling=sampling_of(state),
        max_draft=requests.max_draft[row],
    )


def sampling_of(state: LoopState) -> Sampling:
    """Every lane's sampling settings."""
    row = jnp.minimum(state.row, state.requests.tokens.shape[0] - 1)
    return jax.tree.map(lambda leaf: leaf[row], state.requests.sampling)
