"""What calibrators are given about every lane: checks, scores made comparable, order among lanes.

B lanes, C cells: the parts of a calibrator that are calibrated apart, by group or by question and group.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Lanes(NamedTuple):
    """Checked arguments of a calibrator, each (B,).

    Attributes:
      score: float32, minus infinity for non-finite ones.
      raw: score as given.
      cell: int32.
      question: int32, zeros where nothing asks for it.
      live: bool.
    """

    score: jax.Array
    raw: jax.Array
    cell: jax.Array
    question: jax.Array
    live: jax.Array


def lanes_of(score: jax.Array, group: jax.Array, live: jax.Array | None, groups: int) -> Lanes:
    """Lanes whose cell is their group, or the nearest of `groups`; all live for None.

    Raises:
      ValueError: wrong shapes or dtypes.
    """
    raw = lane_values("score", score, None, jnp.floating)
    lanes = raw.shape[0]
    cell = jnp.clip(lane_values("group", group, lanes, jnp.integer), 0, groups - 1).astype(jnp.int32)
    mask = jnp.ones((lanes,), bool) if live is None else lane_values("live", live, lanes, jnp.bool_)
    return Lanes(usable(raw), raw, cell, jnp.zeros((lanes,), jnp.int32), mask)


def usable(score: jax.Array) -> jax.Array:
    """float32 scores with NaN and both infinities as minus infinity, below every score a draft can have.

    The mean over an empty chunk is NaN, so a chunk without tokens is worst, not best.
    """
    score = score.astype(jnp.float32)
    return jnp.where(jnp.isfinite(score), score, -jnp.inf)


def lane_values(name: str, value: jax.Array, lanes: int | None, kind: type) -> jax.Array:
    """`value` as an array with one entry a lane.

    Args:
      name: what it is called in errors.
      lanes: B, or None for any.
      kind: jnp.floating, jnp.integer or jnp.bool_.

    Raises:
      ValueError: another shape or dtype.
    """
    value = jnp.asarray(value)
    if value.ndim != 1 or (lanes is not None and value.shape[0] != lanes):
        expected = "(B,)" if lanes is None else f"({lanes},)"
        raise ValueError(f"{name} has shape {value.shape}, expected {expected}: one entry a lane")
    if not jnp.issubdtype(value.dtype, kind):
        raise ValueError(f"{name} has dtype {value.dtype}, expected {kind.__name__}")
    return value


def earlier_alike(alike: jax.Array, live: jax.Array) -> jax.Array:
    """(B,) int32 how many live lanes before this one are like it, given `alike` (B, B) bool."""
    lanes = jnp.arange(live.shape[0], dtype=jnp.int32)
    return jnp.sum(alike & live[None, :] & (lanes[None, :] < lanes[:, None]), axis=1, dtype=jnp.int32)
