"""Models catch up with what others wrote, in wide blocks, and scores are read off on the way.

B lanes, b rows of a pass, W tokens a row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.prefill import read_blocks
from jaxspec.models.cache import KVCache
from jaxspec.models.model_fn import ModelFn, Params
from jaxspec.steps.history import written_by_target
from jaxspec.steps.program import StepProgram
from jaxspec.steps.state import StepLoopState, row_of, start_of
from jaxspec.steps.types import ReadingScorer


class Read(NamedTuple):
    """Attributes:
    cache: of the model that read.
    contribution: (B,) float32 to add to every lane's score; 0 without a scorer.
    count: (B,) int32 tokens read.
    """

    cache: KVCache
    contribution: jax.Array
    count: jax.Array


def read(
    program: StepProgram,
    model_fn: ModelFn,
    params: Params,
    cache: KVCache,
    state: StepLoopState,
    goal: jax.Array,
    scorer: ReadingScorer | None = None,
    annotation: int = 0,
) -> Read:
    """One pass for lanes whose cache ends before `goal` (B,) int32, as many as a pass takes, the longest waiting first.

    Args:
      program: static sizes.
      model_fn, params, cache: the model that reads.
      goal: (B,) int32 tokens the cache is to hold; lanes at or beyond it are left alone.
      scorer: reads the model's outputs, if they are wanted.
      annotation: added to the ids of what the target wrote; see `history`.
    """
    lanes = goal.shape[0]
    unread = jnp.maximum(goal - cache.length, 0)
    index = first_in_line(unread > 0, state.lanes.since, program.read_lanes)
    begin = cache.length[index]
    row = row_of(state)[index]
    offset = jnp.arange(program.read_width, dtype=jnp.int32)
    position = begin[:, None] + offset
    tokens = state.problems.tokens[row]
    last = tokens.shape[1] - 1
    ids = jnp.take_along_axis(tokens, jnp.minimum(position, last), axis=1)
    if annotation:
        ids = jnp.where(written_by_target(state, index, position), ids + annotation, ids)
    ids = jnp.where(position < goal[index][:, None], ids, 0)
    reading = read_blocks(model_fn, params, ids, index, unread[index], cache, with_logits=scorer is not None)
    contribution = jnp.zeros((lanes,), jnp.float32)
    if scorer is not None:
        assert reading.logits is not None
        following = jnp.take_along_axis(tokens, jnp.minimum(position + 1, last), axis=1)
        start, end = start_of(state)[index], state.lanes.written[index]
        # Positions beyond what this pass was to read must add nothing, though their outputs exist.
        inside = jnp.where(offset < reading.count[:, None], position, jnp.iinfo(jnp.int32).max)
        added = scorer.contribution(reading.logits, following, inside, start, end)
        contribution = contribution.at[index].set(jnp.where(reading.broken, jnp.nan, added))
    return Read(
        cache=reading.cache,
        contribution=contribution,
        count=jnp.zeros((lanes,), jnp.int32).at[index].set(reading.count),
    )


def first_in_line(wanting: jax.Array, since: jax.Array, places: int) -> jax.Array:
    """Lanes (b,) int32 for as many `places`, or all lanes in order if there are places for all.

    Those `wanting` (B,) bool come first, of them those waiting `since` (B,) int32 the earliest tick, then by number.
    """
    lanes = wanting.shape[0]
    if places >= lanes:
        return jnp.arange(lanes, dtype=jnp.int32)
    order = jnp.where(wanting, since, jnp.iinfo(jnp.int32).max)
    return jnp.argsort(order, stable=True)[:places].astype(jnp.int32)
