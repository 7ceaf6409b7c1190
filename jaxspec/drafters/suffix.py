"""Drafts copied from where the end of the text stood before, the longest repeat first.

What SuffixDecoding (Oliaro et al., arXiv 2411.04975) finds with a suffix tree on the host, found with static shapes
on the device: the most recent places where the text said its last two tokens, then those where it said the last
one, each compared backwards with the end of the text.

B lanes, L tokens, C candidates, K rows, W width.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.copying import continuation, latest_places
from jaxspec.drafters.rows import Rows, draft_rows
from jaxspec.drafters.sizes import sizes
from jaxspec.drafters.stateless import Stateless

MATCH_CLASSES = (1, 2, 3, 4, 5, 7, 10)  # shortest match of every class of evidence: 1, 2, 3, 4, 5-6, 7-9, 10 and more


@dataclasses.dataclass(frozen=True)
class Suffix(Rows, Stateless):
    """Up to `rows` chains of up to `width` tokens that differ within the first few.

    Attributes:
      width: longest chain.
      rows: chains.
      longest: tokens compared backwards; longer matches count as so long.
      shortest: matches below are not proposed.
      window: candidates compared.
      factor, offset: a match of m tokens proposes `factor * m + offset` tokens, between 1 and `width`.
      distinct: tokens within which any two chains differ.
    """

    width: int
    rows: int
    longest: int
    shortest: int
    window: int
    factor: float
    offset: float
    distinct: int

    sources = ("suffix",)

    def propose(self, params: Any, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        start, matched = jax.vmap(self._search)(context.tokens, context.length)
        matched = jnp.where(matched >= self.shortest, matched, 0)
        ids = jax.vmap(continuation, in_axes=(0, 0, 0, None))(context.tokens, context.length, start, self.width)
        wanted = jnp.floor(self.factor * matched.astype(jnp.float32) + self.offset).astype(jnp.int32)
        proposed = jnp.where(matched > 0, jnp.clip(wanted, 1, self.width), 0)
        # The first row is right much more often than what else the same match length has to offer.
        later = jnp.arange(self.rows, dtype=jnp.int32) > 0
        evidence = match_class(matched) + jnp.where(later, len(MATCH_CLASSES), 0)
        return draft_rows(ids, proposed, jnp.zeros_like(proposed), evidence), state

    def _search(self, tokens: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(K,) where continuations start, and how many tokens before repeat the end of the text, 0 for none."""
        last, found = occurrences(tokens, length, self.window)
        matched = jnp.where(found, match_lengths(tokens, length, last, self.longest), 0)
        begin = continuation(tokens, length, last + 1, self.distinct)
        return distinct_best(last + 1, matched, begin, tokens.shape[0], self.rows)


def occurrences(tokens: jax.Array, length: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The latest earlier places of the last token.

    Args:
      tokens: (L,) int32, undefined at and beyond `length` ().
      count: C.

    Returns:
      (C,) int32 positions: first those that the last two tokens share, latest first, then those of the last token
      alone, latest first; and (C,) bool whether there is one.
    """
    position = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    last = tokens[jnp.maximum(length - 1, 0)]
    before = tokens[jnp.maximum(length - 2, 0)]
    one = (tokens == last) & (position < length - 1)
    two = one & (jnp.roll(tokens, 1) == before) & (position > 0) & (length > 1)
    rank = jnp.arange(count, dtype=jnp.int32)
    of_two, twos = latest_places(two, rank)
    of_one, ones = latest_places(one & ~two, rank - twos)
    place = jnp.where(rank < twos, of_two, of_one)
    return jnp.minimum(place, tokens.shape[0] - 1), rank < twos + ones


def match_lengths(tokens: jax.Array, length: jax.Array, last: jax.Array, longest: int) -> jax.Array:
    """(C,) int32 how many tokens up to and with position `last` (C,) repeat the end of the text, at most `longest`."""
    back = jnp.arange(longest, dtype=jnp.int32)
    there, here = last[:, None] - back, length - 1 - back
    same = tokens[jnp.maximum(there, 0)] == tokens[jnp.maximum(here, 0)]
    alive = jnp.cumprod((same & (there >= 0) & (here >= 0)).astype(jnp.int32), axis=1)
    return jnp.sum(alive, axis=1)


def distinct_best(
    start: jax.Array, matched: jax.Array, begin: jax.Array, size: int, rows: int
) -> tuple[jax.Array, jax.Array]:
    """The best candidates that begin differently: of the longest match, of equals the latest.

    Args:
      start: (C,) int32 below `size`, where the continuation starts.
      matched: (C,) int32, 0 for no candidate.
      begin: (C, distinct) int32 tokens from `start` on.
      rows: K.

    Returns:
      (K,) int32 starts and (K,) int32 match lengths, 0 where candidates have run out.
    """
    score = jnp.where(matched > 0, matched * size + start, 0)

    def take(score: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        best = jnp.argmax(score)
        return jnp.where(jnp.all(begin == begin[best], axis=1), 0, score), score[best]

    _, best = jax.lax.scan(take, score, None, length=rows)
    return best % size, best // size


def match_class(matched: jax.Array) -> jax.Array:
    """Class of evidence of matches of so many tokens, see `MATCH_CLASSES`."""
    reached = matched[..., None] >= jnp.asarray(MATCH_CLASSES, jnp.int32)
    return jnp.maximum(jnp.sum(reached, axis=-1, dtype=jnp.int32) - 1, 0)


def suffix(
    width: int = 10,
    rows: int = 1,
    longest: int = 16,
    shortest: int = 1,
    window: int = 64,
    factor: float = 3.0,
    offset: float = 4.0,
    distinct: int = 3,
) -> Suffix:
    """Drafts by copying what followed the longest repeats of the end of the text.

    Args:
      width: most tokens a row.
      rows: rows.
      longest: longest match told apart.
      shortest: shortest match proposed.
      window: how many of the latest places of the last token are looked at.
      factor: tokens proposed for every token matched.
      offset: tokens proposed besides.
      distinct: tokens within which any two rows differ: 1 for rows that all begin with another token.

    Raises:
      ValueError: a size is no integer or below 1, `shortest` is above `longest`, or `rows` above `window`; a negative
        or not finite factor.
    """
    width, rows, longest, shortest, window, distinct = sizes(
        "suffix", width=width, rows=rows, longest=longest, shortest=shortest, window=window, distinct=distinct
    )
    if shortest > longest:
        raise ValueError(f"shortest={shortest} is above longest={longest}, so no match would be proposed")
    if rows > window:
        raise ValueError(f"rows={rows} is above window={window}; there are no more rows than places looked at")
    if not 0 <= factor < float("inf") or not abs(offset) < float("inf"):
        raise ValueError(f"factor={factor}, offset={offset}: the factor must be 0 or more and both finite")
    return Suffix(width, rows, longest, shortest, window, float(factor), float(offset), distinct)
