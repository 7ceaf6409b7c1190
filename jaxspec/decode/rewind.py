"""Texts that are taken back, and drafters that have read them.

Where a step is discarded or cut, a lane's text ends earlier than the drafter has seen, and goes on differently.

B lanes.
"""

from typing import Any, Protocol, runtime_checkable

import jax

from jaxspec.decode.types import Drafter


@runtime_checkable
class Rewindable(Protocol):
    """A drafter that keeps what it read of a text, and so must forget what of it is taken back."""

    def rewind(self, state: Any, length: jax.Array, which: jax.Array) -> Any:
        """State in which the texts of lanes `which` (B,) bool end at `length` (B,) int32, if they reached beyond."""
        ...


def rewind(drafter: Drafter, state: Any, length: jax.Array, which: jax.Array) -> Any:
    """The drafter's state after texts were taken back; of a drafter that keeps none of them, as it was.

    Args:
      drafter: any.
      state: the drafter's.
      length: (B,) int32 tokens that are left.
      which: (B,) bool lanes whose text may have been longer.
    """
    return drafter.rewind(state, length, which) if isinstance(drafter, Rewindable) else state
