"""Numbers that tell tokens and prompts apart, in 32-bit integers, so the same on every device.

B lanes, L tokens.
"""

import jax
import jax.numpy as jnp

ODD = 0x9E3779B1  # 2 ** 32 over the golden ratio: neighbouring numbers get unrelated products


def scrambled(x: jax.Array) -> jax.Array:
    """uint32 `x` with its high bits mixed into the low ones and back; different for different `x`."""
    x = (x ^ (x >> 15)) * jnp.uint32(0x2C1B3C6D)
    return x ^ (x >> 12)


def prompt_mark(tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
    """(B,) uint32 that tells prompts apart, from `tokens` (B, L) up to `prompt_length` (B,), whatever L is."""
    place = jnp.arange(tokens.shape[1], dtype=jnp.uint32)
    factor = (2 * place + 1) * jnp.uint32(ODD)
    inside = place < prompt_length[:, None].astype(jnp.uint32)
    mixed = (tokens.astype(jnp.uint32) + 1) * factor
    mixed = mixed ^ (mixed >> 15)
    return jnp.sum(jnp.where(inside, mixed * factor, jnp.uint32(0)), axis=1, dtype=jnp.uint32)
