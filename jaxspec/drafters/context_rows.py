"""Rows copied from the context: what followed every earlier occurrence of the last few tokens.

The context n-grams of N-Grammys (arXiv 2411.03786, section 4.2). Where its listing leaves equal counts in no order,
this follows the text: the one that occurs later goes first.

B lanes, L tokens, M places, K rows, W width.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.drafters.copying import latest_places


class ContextRows(NamedTuple):
    """Distinct continuations, those that occur most often first, of equals the one that occurs latest.

    Attributes:
      ids: (B, K, W) int32, 0 beyond `length`.
      length: (B, K) int32 tokens of a row; 0 once the text has no more.
      count: (B, K) int32 how often it occurs among the places looked at.
    """

    ids: jax.Array
    length: jax.Array
    count: jax.Array


def context_rows(
    tokens: jax.Array, length: jax.Array, query: int, width: int, rows: int, window: int, strict: bool = True
) -> ContextRows:
    """The best `rows` continuations of the last `query` tokens.

    Args:
      tokens: (B, L) int32, undefined at and beyond `length` (B,).
      query: tokens looked up.
      width: W, tokens of a continuation.
      rows: K, at most `window`.
      window: M, how many of the latest places are looked at; counts are exact when there are no more.
      strict: only places with `width` tokens after them, as published; otherwise a place near the end gives the
        shorter row that is there.
    """
    one_lane = functools.partial(_search, query=query, width=width, rows=rows, window=window, strict=strict)
    return jax.vmap(one_lane)(tokens, length)


def _search(
    tokens: jax.Array, length: jax.Array, *, query: int, width: int, rows: int, window: int, strict: bool
) -> ContextRows:
    """`context_rows` of one lane: `tokens` (L,), `length` ()."""
    start, found = _places(tokens, length, query, width if strict else 1, window)
    position = start[:, None] + jnp.arange(width, dtype=jnp.int32)
    inside = found[:, None] & (position < length)
    ids = jnp.where(inside, tokens[jnp.minimum(position, tokens.shape[0] - 1)], -1)  # (M, W)
    same = jnp.all(ids[:, None] == ids[None, :], axis=2) & found[:, None] & found
    count = jnp.sum(same, axis=1, dtype=jnp.int32)
    place = jnp.arange(window, dtype=jnp.int32)  # from the latest back
    is_latest = found & (jnp.argmax(same, axis=1) == place)
    score = jnp.where(is_latest, count * window - place, 0)  # positive, because a count is at least 1
    best_score, best = jax.lax.top_k(score, rows)
    exists = best_score > 0
    row_length = jnp.where(exists, jnp.sum(inside[best], axis=1, dtype=jnp.int32), 0)
    return ContextRows(
        ids=jnp.where(exists[:, None] & inside[best], ids[best], 0),
        length=row_length,
        count=jnp.where(exists, count[best], 0),
    )


def _places(tokens: jax.Array, length: jax.Array, query: int, after: int, window: int) -> tuple[jax.Array, jax.Array]:
    """Where the latest earlier occurrences of the last `query` tokens end, with at least `after` tokens behind them.

    Returns:
      (M,) int32 positions of the token after each, the latest first, and (M,) bool whether there is one.
    """
    position = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    hit = (position >= query) & (position + after <= length)
    for back in range(1, query + 1):
        hit &= jnp.roll(tokens, back) == tokens[jnp.maximum(length - back, 0)]
    rank = jnp.arange(window, dtype=jnp.int32)
    start, count = latest_places(hit, rank)
    return start, rank < count
