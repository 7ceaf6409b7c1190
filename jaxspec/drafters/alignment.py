"""Where in a reference a text stands, and the draft that copies on from there.

B lanes, L tokens, T tokens of a reference, W width.
"""

import functools

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Draft
from jaxspec.drafters.chain import chain

BOUNDARY = -1  # behind every reference; never matched, never proposed


def align(
    reference: jax.Array,
    tokens: jax.Array,
    length: jax.Array,
    said: jax.Array,
    place: jax.Array,
    since: jax.Array,
    query: int,
    reach: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where in its reference every lane stands.

    Between `place`, if all tokens since were inserted, and `place + since`, if each replaced one of the reference's
    or is one of them, every place is as near as can be. A longer match goes first as far as `query`; then the
    nearer place; then the longer match; then the later place.

    Args:
      reference: (B, T) int32.
      tokens: (B, L) int32, undefined at and beyond `length` (B,).
      said: (B,) int32 how many of these are output; only they are compared.
      place: (B,) int32 where the lane stood when it was last sure.
      since: (B,) int32 tokens said since then.
      query: a match of so many tokens counts wherever it stands.
      reach: tokens from the expected place within which shorter matches count.

    Returns:
      (B,) int32 index of the token expected to follow, (B,) int32 tokens matched before it, at most `2 * query`, and
      (B,) bool whether the match is as long as could be asked.
    """
    one_lane = functools.partial(_align, query=query, reach=reach)
    return jax.vmap(one_lane)(reference, tokens, length, said, place, since)


def _align(
    reference: jax.Array,
    tokens: jax.Array,
    length: jax.Array,
    said: jax.Array,
    place: jax.Array,
    since: jax.Array,
    *,
    query: int,
    reach: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`align` of one lane."""
    size, longest = reference.shape[0], 2 * query
    position = jnp.arange(size, dtype=jnp.int32)
    alive = jnp.ones((size,), bool)
    matched = jnp.zeros((size,), jnp.int32)
    for back in range(1, longest + 1):
        alive &= (position >= back) & (jnp.roll(reference, back) == tokens[jnp.maximum(length - back, 0)])
        alive &= back <= said
        matched += alive.astype(jnp.int32)
    expected = place + since
    distance = jnp.maximum(jnp.maximum(place - position, position - expected), 0)
    level = jnp.minimum(matched, query)
    counts = (level == query) | ((level > 0) & (distance <= reach))
    score = jnp.where(counts, (level * size + size - distance) * (longest + 1) + matched, 0)
    best = (size - 1 - jnp.argmax(score[::-1])).astype(jnp.int32)
    found = score[best] > 0
    sure = found & (level[best] >= jnp.minimum(said, query))
    return jnp.where(found, best, expected), jnp.where(found, matched[best], 0), sure


def draft_from(reference: jax.Array, following: jax.Array, matched: jax.Array, width: int) -> Draft:
    """A draft of the next tokens of every lane's reference, up to its end.

    Args:
      reference: (B, T) int32.
      following: (B,) int32 index of the first token to copy.
      matched: (B,) int32 tokens before it that the text repeats, the evidence.
      width: W.
    """
    index = following[:, None] + jnp.arange(width, dtype=jnp.int32)
    ids = jnp.take_along_axis(reference, index, axis=1, mode="fill", fill_value=BOUNDARY)
    proposed = jnp.sum(jnp.cumprod((ids != BOUNDARY).astype(jnp.int32), axis=1), axis=1)
    return chain(jnp.maximum(ids, 0), proposed, matched)
