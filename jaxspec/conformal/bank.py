"""Scores seen before, to compare new ones with.

B lanes, C cells, N entries of a cell.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.places import take_places
from jaxspec.conformal.standing import Standing


class Bank(NamedTuple):
    """Attributes:
    score: (C, N) float32; only the first `held` of a row count.
    held: (C,) int32 entries.
    next: (C,) int32 place of the next entry.
    """

    score: jax.Array
    held: jax.Array
    next: jax.Array


@dataclasses.dataclass(frozen=True)
class PooledBank:
    """Every score weighs the same.

    Attributes:
      size: N, most entries a cell.
      ring: whether a full cell forgets its oldest entry for a new one; otherwise it takes no more.
    """

    size: int
    ring: bool
    unit = 1

    def init(self, cells: int) -> Bank:
        zeros = jnp.zeros((cells,), jnp.int32)
        return Bank(jnp.full((cells, self.size), -jnp.inf, jnp.float32), zeros, zeros)

    def compare(self, bank: Bank, cell: jax.Array, score: jax.Array, question: jax.Array) -> Standing:
        """Where scores (B,) stand in their cells (B,)."""
        del question
        rows, held = bank.score[cell], bank.held[cell]
        there = jnp.arange(self.size, dtype=jnp.int32) < held[:, None]
        worse = jnp.sum(there & (rows < score[:, None]), axis=1, dtype=jnp.int32)
        equal = jnp.sum(there & (rows == score[:, None]), axis=1, dtype=jnp.int32)
        return Standing(worse, equal, held, self.unit)

    def insert(self, bank: Bank, cell: jax.Array, score: jax.Array, question: jax.Array, live: jax.Array) -> Bank:
        """The bank with the scores of live lanes, in the order of lanes, each (B,)."""
        del question
        place, new, following = take_places(bank.next, cell, live, self.size, self.ring)
        return Bank(
            score=bank.score.at[cell, place].set(score, mode="drop"),
            held=jnp.minimum(bank.held + new, self.size),
            next=following,
        )
