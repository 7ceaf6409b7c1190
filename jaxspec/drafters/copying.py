"""Copying from a text: its latest places of something, and what stands behind them.

L tokens, W width.
"""

import jax
import jax.numpy as jnp


def latest_places(hit: jax.Array, rank: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Positions of a text where `hit` (L,) bool, by `rank` from the latest back.

    Returns:
      int32 of the shape of `rank`, L where there is no hit at all and the first hit where `rank` is beyond the last;
      and () int32 how many hits there are.
    """
    # A sorted search for the last few hits, because `top_k` and `nonzero` over a long text are slow on CPU.
    hits = jnp.cumsum(hit, dtype=jnp.int32)
    return jnp.searchsorted(hits, jnp.maximum(hits[-1] - rank, 1)).astype(jnp.int32), hits[-1]


def continuation(tokens: jax.Array, length: jax.Array, start: jax.Array, width: int) -> jax.Array:
    """(..., W) tokens of `tokens` (L,) from `start` (...) on; past the end of the text the copied stretch repeats.

    Of the text, `length` () tokens are known.
    """
    period = jnp.maximum(length - start, 1)[..., None]
    return tokens[start[..., None] + jnp.arange(width, dtype=jnp.int32) % period]
