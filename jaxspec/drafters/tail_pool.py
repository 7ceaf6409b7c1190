"""Discarded tails of Jacobi iterates, and what is drafted from them: rejection recycling.

Jacobi Forcing (arXiv 2512.14681, algorithm 1).

B lanes, W tokens a row, R recycled rows, P tails in the pool.
"""

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Verdict


def recycled(
    pool: jax.Array, count: jax.Array, root: jax.Array, own: jax.Array, reach: jax.Array, rows: int
) -> tuple[jax.Array, jax.Array]:
    """What followed `root` (B,) in discarded tails, the newest first, and `own` (B, W) behind a tail's end.

    Args:
      pool: (B, P, W + 1) int32, -1 behind a tail's end; a ring.
      count: (B,) int32 tails ever put into it.
      root: last committed token.
      own: guesses of the own row; rows equal to it, or to a newer one, where `reach` (B, W) are left out.
      reach: bool.
      rows: R.

    Returns:
      ids (B, R, W), and (B, R) bool which there are.
    """
    size, width = pool.shape[1], own.shape[1]
    age = jnp.arange(size, dtype=jnp.int32)
    newest = (count[:, None] - 1 - age) % size
    tails = jnp.take_along_axis(pool, newest[:, :, None], axis=1)
    starts = (tails[:, :, :-1] == root[:, None, None]) & (tails[:, :, 1:] >= 0)
    after = jnp.argmax(starts, axis=2)[:, :, None] + 1 + jnp.arange(width)
    rest = jnp.take_along_axis(tails, jnp.minimum(after, width), axis=2)
    found = jnp.where((after <= width) & (rest >= 0), rest, own[:, None])
    known = jnp.concatenate([own[:, None], found], axis=1)
    same = jnp.all((found[:, :, None] == known[:, None]) | ~reach[:, None, None], axis=3)  # (B, P, P + 1)
    match = jnp.any(starts, axis=2)
    earlier = jnp.pad(match, ((0, 0), (1, 0)), constant_values=True)[:, None] & (jnp.arange(size + 1) <= age[:, None])
    usable = match & ~jnp.any(same & earlier, axis=2)
    chosen = jnp.argsort(~usable, axis=1, stable=True)[:, :rows]
    return jnp.take_along_axis(found, chosen[:, :, None], axis=1), jnp.take_along_axis(usable, chosen, axis=1)


def remember(
    pool: jax.Array, count: jax.Array, said: jax.Array, told: jax.Array, verdict: Verdict
) -> tuple[jax.Array, jax.Array]:
    """`pool` and `count` with the tail of an iterate, from the target's own token on.

    Args:
      pool, count: see `recycled`.
      said: (B, W + 1) int32 the iterate.
      told: (B, W + 1) bool which of its tokens the target said.
      verdict: where it parted from the text.
    """
    lanes, size, width = pool.shape
    place = jnp.arange(width, dtype=jnp.int32)
    at = verdict.accepted[:, None] + place
    tail = jnp.take_along_axis(said, jnp.minimum(at, width - 1), axis=1)
    holds = (at < width) & jnp.take_along_axis(told, jnp.minimum(at, width - 1), axis=1)
    bonus = jnp.take_along_axis(verdict.ids, verdict.accepted[:, None], axis=1)
    tail = jnp.where(place == 0, bonus, tail)
    holds = jnp.cumprod(holds | (place == 0), axis=1, dtype=jnp.int32) > 0
    worth = holds[:, 1]  # a tail of one token leads nowhere
    slot = jnp.where(worth, count % size, size)
    pool = pool.at[jnp.arange(lanes), slot].set(jnp.where(holds, tail, -1), mode="drop")
    return pool, count + worth.astype(jnp.int32)
