"""The one place where generated tokens are cut: EOS, stop ids, stop strings, length, cache, numerical failure.

Ids, cache, sources and counters are all trimmed by the count this returns, and nobody else trims.

B lanes, D depth, E stop ids.
"""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.stop import StopTable, advance
from jaxspec.decode.types import Verdict


class Finish(enum.IntEnum):
    """Why a request ended."""

    RUNNING = 0
    EOS = 1
    STOP = 2
    LENGTH = 3
    CACHE = 4
    NUMERICAL = 5
    STEPS = 6  # of the step loop alone: as many steps or turns as were allowed


class StopRules(NamedTuple):
    """What ends a request, the same for all requests of a job.

    Attributes:
      ids: (E,) int32 end-of-sequence and stop ids; -1 matches nothing.
      table: automaton of the stop strings, or None when there are none.
    """

    ids: jax.Array
    table: StopTable | None


class Commit(NamedTuple):
    """Attributes:
    count: (B,) int32 tokens to commit, the first ones of `Verdict.ids`.
    finish: (B,) int32 a `Finish`.
    stop_state: (B,) int32 state of the stop automaton behind them.
    """

    count: jax.Array
    finish: jax.Array
    stop_state: jax.Array


def resolve(
    verdict: Verdict,
    length: jax.Array,
    limit: jax.Array,
    capacity: jax.Array,
    stop_state: jax.Array,
    rules: StopRules,
    vocabulary: int,
) -> Commit:
    """How many of a verdict's tokens stay, and whether the request ends there.

    The earliest end wins; at one position EOS comes before a stop string, which comes before a limit. A token that
    ends a request is itself committed.

    Args:
      verdict: `ids` (B, D + 1), of which `accepted + 1` are offered.
      length: (B,) committed tokens before.
      limit: (B,) total length allowed by the request.
      capacity: () total length allowed by the buffers and the model.
      stop_state: (B,) int32.
      rules: see there.
      vocabulary: V, the id that stands for logits that were not finite.
    """
    ids, width = verdict.ids, verdict.ids.shape[1]
    step = jnp.arange(width, dtype=jnp.int32)
    offered = step <= verdict.accepted[:, None]
    total = length[:, None] + step + 1
    reason = jnp.where(total >= capacity, jnp.int32(Finish.CACHE), jnp.int32(Finish.RUNNING))
    reason = jnp.where(total >= limit[:, None], jnp.int32(Finish.LENGTH), reason)
    states = jnp.zeros_like(ids)
    if rules.table is not None:
        states = advance(rules.table, stop_state, ids)
        reason = jnp.where(states == rules.table.matched, jnp.int32(Finish.STOP), reason)
    is_end = jnp.any(ids[:, :, None] == rules.ids, axis=2)
    reason = jnp.where(is_end, jnp.int32(Finish.EOS), reason)
    broken = ids >= vocabulary
    reason = jnp.where(broken, jnp.int32(Finish.NUMERICAL), reason)

    ends = offered & (reason != Finish.RUNNING)
    ended = jnp.any(ends, axis=1)
    at = jnp.where(ended, jnp.argmax(ends, axis=1), verdict.accepted)  # last token that stays
    pick = at[:, None]
    finish = jnp.where(ended, jnp.take_along_axis(reason, pick, axis=1)[:, 0], jnp.int32(Finish.RUNNING))
    count = jnp.where(finish == Finish.NUMERICAL, at, at + 1)
    return Commit(count, finish, jnp.take_along_axis(states, pick, axis=1)[:, 0])
