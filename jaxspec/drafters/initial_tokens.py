"""What stands in a Jacobi draft where the target has not guessed yet.

B lanes, W tokens a row, V vocabulary.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxspec.decode.sampling import key_of
from jaxspec.decode.types import Context

Initial = Literal["prompt", "vocabulary", "repeat"]

INITIAL = 4  # random stream, behind those of `decode.sampling`


def initial_tokens(initial: Initial, context: Context, position: jax.Array, vocabulary: jax.Array) -> jax.Array:
    """(B, W) int32 initial tokens for `position` (B, W), which depend on it, on the request and its seed only.

    Args:
      initial: see `jacobi`.
      context: "prompt" draws from its prompts and "repeat" takes its roots.
      position: of the tokens in the text.
      vocabulary: () int32 V.
    """
    if initial == "repeat":
        return jnp.broadcast_to(context.root[:, None], position.shape)

    def bits(seed: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.bits(key_of(seed, INITIAL, position))

    drawn = jax.vmap(jax.vmap(bits, in_axes=(None, 0)))(context.seed, position)
    if initial == "vocabulary":
        return (drawn % vocabulary.astype(jnp.uint32)).astype(jnp.int32)
    choice = drawn % jnp.maximum(context.prompt_length, 1).astype(jnp.uint32)[:, None]
    return jnp.take_along_axis(context.tokens, choice.astype(jnp.int32), axis=1)
