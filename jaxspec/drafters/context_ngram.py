"""Drafts copied from the context: what followed the latest earlier occurrence of the last few tokens.

Prompt lookup (Saxena, 2023) and the context half of N-Grammys (arXiv 2411.03786, section 4.2), on the device.

B lanes, L tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.chain import OneChain, chain
from jaxspec.drafters.copying import continuation
from jaxspec.drafters.sizes import sizes
from jaxspec.drafters.stateless import Stateless


@dataclasses.dataclass(frozen=True)
class ContextNgram(OneChain, Stateless):
    """One row of `width` tokens, after the longest match of at most `query` tokens; of equals, the latest."""

    width: int
    query: int

    sources = ("context_ngram",)

    def propose(self, params: Any, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        start, matched = longest_match(context.tokens, context.length, self.query)
        ids = jax.vmap(continuation, in_axes=(0, 0, 0, None))(context.tokens, context.length, start, self.width)
        return chain(ids, jnp.where(matched > 0, self.width, 0)), state


def longest_match(tokens: jax.Array, length: jax.Array, query: int) -> tuple[jax.Array, jax.Array]:
    """Where the end of the text last stood before.

    Args:
      tokens: (B, L) int32.
      length: (B,) int32.
      query: longest match considered.

    Returns:
      start (B,): position of the token that followed the occurrence which repeats most of the last `query` tokens,
      the latest such; and how many it repeats (B,), 0 when the last token is new.
    """
    size = tokens.shape[1]
    position = jnp.arange(size, dtype=jnp.int32)
    alive = (position >= 1) & (position < length[:, None])
    matched = jnp.zeros_like(tokens)
    for back in range(1, query + 1):
        wanted = jnp.take_along_axis(tokens, jnp.maximum(length - back, 0)[:, None], axis=1)
        alive &= (position >= back) & (jnp.roll(tokens, back, axis=1) == wanted) & (length[:, None] >= back)
        matched += alive.astype(jnp.int32)
    score = jnp.where(matched > 0, matched * size + position, 0)
    best = jnp.max(score, axis=1)
    return best % size, best // size


def context_ngram(width: int = 10, query: int = 3) -> ContextNgram:
    """Drafts by copying from the prompt and the output so far.

    Args:
      width: tokens proposed a step.
      query: longest stretch of last tokens looked up; longer matches are preferred, then later ones.

    Raises:
      ValueError: `width` or `query` is no integer or below 1.
    """
    width, query = sizes("context_ngram", width=width, query=query)
    return ContextNgram(width, query)
