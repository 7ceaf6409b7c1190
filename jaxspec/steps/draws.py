"""Numbers drawn for a turn of a sample: the same on any lane, at any tick, in any order of the queue.

B lanes, L tokens a text.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxspec.decode.sampling import key_of

ODD = 0x9E3779B1  # 2 ** 32 over the golden ratio: neighbouring positions get unrelated factors


def prompt_mark(tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
    """(B,) uint32 that tells prompts apart, from `tokens` (B, L) up to `prompt_length` (B,)."""
    place = jnp.arange(tokens.shape[1], dtype=jnp.uint32)
    factor = (2 * place + 1) * jnp.uint32(ODD)
    inside = place < prompt_length[:, None].astype(jnp.uint32)
    mixed = (tokens.astype(jnp.uint32) + 1) * factor
    mixed = mixed ^ (mixed >> 15)
    return jnp.sum(jnp.where(inside, mixed * factor, jnp.uint32(0)), axis=1, dtype=jnp.uint32)


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
