"""Numbers drawn for a turn of a sample: the same on any lane, at any tick, in any order of the queue.

B lanes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxspec.decode.sampling import key_of


def turn_draw(
    seed: jax.Array, stream: int, turn: jax.Array, mark: jax.Array, sample: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """(B,) `sample` of a key that is a function of a problem's `seed`, the `turn` and the prompt's `mark`, all (B,).

    Samples of different questions share seeds, so the mark is what makes their draws independent.
    """

    def one(seed: jax.Array, turn: jax.Array, mark: jax.Array) -> jax.Array:
        return sample(jax.random.fold_in(key_of(seed, stream, turn), mark))

    return jax.vmap(one)(seed, turn, mark)


def turn_uniform(seed: jax.Array, stream: int, turn: jax.Array, mark: jax.Array) -> jax.Array:
    """(B,) float32 in [0, 1), see `turn_draw`."""
    return turn_draw(seed, stream, turn, mark, lambda key: jax.random.uniform(key, (), jnp.float32))
