"""Where new entries of a bank go.

B lanes, C cells.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.lanes import earlier_alike


class Places(NamedTuple):
    """Attributes:
    place: (B,) int32 of each lane's entry in its cell, the cell's size for none.
    new: (C,) int32 entries that lanes had for the cell.
    next: (C,) int32 place after them.
    """

    place: jax.Array
    new: jax.Array
    next: jax.Array


def take_places(next_place: jax.Array, cell: jax.Array, live: jax.Array, size: int, ring: bool) -> Places:
    """Places of an entry a live lane, in the order of lanes.

    Args:
      next_place: (C,) int32 next place of every cell.
      cell: (B,) int32.
      live: (B,) bool lanes that have an entry.
      size: most entries of a cell.
      ring: whether a full cell gives the oldest entry's place to a new one; otherwise it takes no more.
    """
    order = earlier_alike(cell[:, None] == cell[None, :], live)
    new = jnp.zeros_like(next_place).at[cell].add(live.astype(jnp.int32))
    place = next_place[cell] + order
    if not ring:
        return Places(jnp.where(live, jnp.minimum(place, size), size), new, jnp.minimum(next_place + new, size))
    kept = live & (order >= new[cell] - size)  # the others would be overwritten by these same lanes
    return Places(jnp.where(kept, place % size, size), new, (next_place + new) % size)
