"""How much was decided and handed over.

B lanes, C cells.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.lanes import Lanes


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


def count(tally: Tally, lanes: Lanes, escalate: jax.Array) -> Tally:
    """The tally with what was done with live lanes, `escalate` (B,) bool."""

    def added(before: jax.Array, which: jax.Array) -> jax.Array:
        return before.at[lanes.cell].add((which & lanes.live).astype(jnp.int32))

    return Tally(
        decisions=added(tally.decisions, jnp.ones_like(lanes.live)),
        escalations=added(tally.escalations, escalate),
        unusable=added(tally.unusable, ~jnp.isfinite(lanes.raw)),
    )
