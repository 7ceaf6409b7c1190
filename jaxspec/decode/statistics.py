"""Counters kept inside the loop and read once at the end.

B lanes, R requests, N draft nodes, D depth, Z sources.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.sampling import Leaf
from jaxspec.decode.types import Draft, Verdict


class Statistics(NamedTuple):
    """What decoding a request cost and gained.

    Attributes:
      target_calls: (R,) int32 passes of the target over a block of the request.
      prefill_calls: (R,) int32 passes over its prompt.
      drafted: (R, Z) int32 valid draft nodes, by source.
      accepted: (R, Z) int32 draft nodes committed, by source.
      histogram: (R, D + 1) int32 target calls that committed exactly j draft nodes.
    """

    target_calls: Leaf
    prefill_calls: Leaf
    drafted: Leaf
    accepted: Leaf
    histogram: Leaf


def empty(requests: int, sources: int, depth: int) -> Statistics:
    """Zero counters for `requests` requests."""

    def zeros(*shape: int) -> jax.Array:
        return jnp.zeros(shape, jnp.int32)

    return Statistics(
        zeros(requests),
        zeros(requests),
        zeros(requests, sources),
        zeros(requests, sources),
        zeros(requests, depth + 1),
    )


def count_block(
    statistics: Statistics, row: jax.Array, draft: Draft, verdict: Verdict, committed: jax.Array
) -> Statistics:
    """Adds one verified block.

    Args:
      statistics: of R requests.
      row: (B,) int32 request of every lane; lanes with a row of R or more are not counted.
      draft, verdict: of the block.
      committed: (B,) int32 draft nodes that stayed after trimming.
    """
    sources = statistics.drafted.shape[1]
    kinds = jnp.arange(sources, dtype=jnp.int32)
    is_source = draft.source[:, :, None] == kinds  # (B, N, Z)
    drafted = jnp.sum(is_source & draft.valid[:, :, None], axis=1, dtype=jnp.int32)
    accepted = jnp.sum(
        (path_sources(draft, verdict)[:, :, None] == kinds) & _first(committed, verdict)[:, :, None],
        axis=1,
        dtype=jnp.int32,
    )
    return Statistics(
        statistics.target_calls.at[row].add(1, mode="drop"),
        statistics.prefill_calls,
        statistics.drafted.at[row].add(drafted, mode="drop"),
        statistics.accepted.at[row].add(accepted, mode="drop"),
        statistics.histogram.at[row, committed].add(1, mode="drop"),
    )


def path_sources(draft: Draft, verdict: Verdict) -> jax.Array:
    """(B, D) int32 source of the draft node at every depth of the accepted path; undefined beyond it."""
    if draft.ids.shape[1] == 0:
        return jnp.zeros((draft.ids.shape[0], 0), jnp.int32)
    return jnp.take_along_axis(draft.source, jnp.maximum(verdict.path[:, 1:] - 1, 0), axis=1)


def _first(count: jax.Array, verdict: Verdict) -> jax.Array:
    return jnp.arange(verdict.path.shape[1] - 1, dtype=jnp.int32) < count[:, None]
