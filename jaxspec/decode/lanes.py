"""Values of all lanes at once.

B lanes.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp

Values = TypeVar("Values")


def choose(mask: jax.Array, new: Values, old: Values) -> Values:
    """Leaf by leaf, each (B, ...), `new` where `mask` (B,) bool, else `old`."""

    def one(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(one, new, old)


def on_every_lane(values: jax.typing.ArrayLike, lanes: int) -> jax.Array:
    """(B, ...) the same `values` (...) on each of B lanes."""
    return jnp.broadcast_to(jnp.asarray(values), (lanes, *jnp.shape(values)))
