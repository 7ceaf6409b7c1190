"""What calibrators are given about every lane: checks, scores made comparable, order among lanes.

B lanes, C cells: the parts of a calibrator that are calibrated apart, by group or by question and group.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Tally(NamedTuple):
    """What was decided so far.

    Attributes:
      decisions: (C,) int32.
      escalations: (C,) int32 drafts handed to the target.
      unusable: (C,) int32 non-finite scores.
    """

    decisions: jax.Array
    escalations: jax.Array
    unusable: jax.Array

    @property
    def rate(self) -> jax.Array:
        """(C,) float32 realised rate of every cell, NaN for one without decisions."""
        return self.escalations.astype(jnp.float32) / self.decisions.astype(jnp.float32)


def empty_tally(cells: int) -> Tally:
    """No decisions yet in C cells."""
    return Tally(*(jnp.zeros((cells,), jnp.int32) for _ in Tally._fields))


def count(tally: Tally, cell: jax.Array, score: jax.Array, escalate: jax.Array, live: jax.Array) -> Tally:
    """The tally with the decisions of live lanes, each (B,)."""

    def added(before: jax.Array, which: jax.Array) -> jax.Array:
        return before.at[cell].add((which & live).astype(jnp.int32))

    return Tally(
        decisions=added(tally.decisions, jnp.ones_like(live)),
        escalations=added(tally.escalations, escalate),
        unusable=added(tally.unusable, ~jnp.isfinite(score)),
    )


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


def all_or(name: str, mask: jax.Array | None, lanes: int) -> jax.Array:
    """(B,) bool `mask`, or all True."""
    return jnp.ones((lanes,), bool) if mask is None else lane_values(name, mask, lanes, jnp.bool_)


def earlier_alike(alike: jax.Array, live: jax.Array) -> jax.Array:
    """(B,) int32 how many live lanes before this one are like it, given `alike` (B, B) bool."""
    lanes = jnp.arange(live.shape[0], dtype=jnp.int32)
    return jnp.sum(alike & live[None, :] & (lanes[None, :] < lanes[:, None]), axis=1, dtype=jnp.int32)
