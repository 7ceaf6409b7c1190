"""Initial tokens are drawn with randomness of their own."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.sampling import ACCEPT, DRAFT, DRAW, RESIDUAL, key_of
from jaxspec.decode.types import Context
from jaxspec.drafters.initial_tokens import INITIAL, initial_tokens


def test_no_other_draw_shares_their_stream() -> None:
    assert INITIAL not in (DRAW, ACCEPT, RESIDUAL, DRAFT)


def test_they_are_the_bits_of_their_stream() -> None:
    ones, seed = jnp.ones((1,), jnp.int32), jnp.asarray([7], jnp.uint32)
    context = Context(jnp.zeros((1, 4), jnp.int32), ones, ones, seed, jnp.asarray([True]))
    drawn = initial_tokens("vocabulary", context, jnp.asarray([[5, 9]], jnp.int32), jnp.int32(1000))
    bits = [int(jax.random.bits(key_of(seed[0], INITIAL, jnp.int32(place)))) for place in (5, 9)]
    assert np.asarray(drawn)[0].tolist() == [bit % 1000 for bit in bits]
