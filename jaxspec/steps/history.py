"""Who wrote which token: the history that an annotated scoring model reads (ARBITRAGE, arXiv 2512.05033, section 4.2).

The released router puts a name before every step. Here a scoring model of twice the vocabulary reads a token of a
step that the target wrote as its id plus V, so that texts keep their tokens and places.

B lanes, b rows of a pass, W tokens a row, S steps a problem, V vocabulary.
"""

import jax
import jax.numpy as jnp

from jaxspec.steps.state import Author, StepLoopState, row_of, start_of


def written_by_target(state: StepLoopState, lane: jax.Array, position: jax.Array) -> jax.Array:
    """(b, W) bool whether the target wrote the token at `position` (b, W) of each `lane` (b,); not so in prompts."""
    row = row_of(state)[lane]
    trace = state.problems.trace
    steps = trace.end.shape[1]
    committed = jnp.arange(steps, dtype=jnp.int32) < trace.count[row][:, None]
    before = committed[:, None, :] & (trace.end[row][:, None, :] <= position[:, :, None])
    step = jnp.sum(before, axis=2, dtype=jnp.int32)
    author = jnp.take_along_axis(trace.author[row], jnp.minimum(step, steps - 1), axis=1).astype(jnp.int32)
    in_progress = position >= start_of(state)[lane][:, None]
    author = jnp.where(in_progress, state.lanes.author[lane][:, None], author)
    return (author == Author.TARGET) & (position >= state.problems.prompt_length[row][:, None])
