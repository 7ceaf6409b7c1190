"""Scores kept by question, every question weighing the same.

Samples of one question are alike: of 100 questions with 16 samples each and correlation 0.6, the 1,600 scores are
worth about 160. Here the question is the unit that is exchangeable, and the candidate's own question is left out:
hierarchical conformal prediction (Dunn, Wasserman, Ramdas, arXiv 1809.07441; Lee, Barber, Willett, arXiv 2306.06342).
One entry a question is their subsampling; it costs nothing but precision.

B lanes, C cells, K questions of a cell, M entries of a question.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.lanes import earlier_alike
from jaxspec.conformal.places import take_places
from jaxspec.conformal.standing import Standing

EARLIER = -(2**31)  # number of all questions of earlier jobs; no draft is of it


class ClusterBankState(NamedTuple):
    """Attributes:
    score: (C, K, M) float32; only the first `entries` of a question count.
    question: (C, K) int32, `EARLIER` for one of an earlier job.
    entries: (C, K) int32, 0 for a free place.
    next: (C,) int32 place of the next question.
    """

    score: jax.Array
    question: jax.Array
    entries: jax.Array
    next: jax.Array


@dataclasses.dataclass(frozen=True)
class ClusterBank:
    """Entries weigh `unit / (entries of their question)`, an integer.

    Attributes:
      size: K, most questions a cell.
      cluster_size: M, most entries of a question; later ones are dropped.
      ring: whether a full cell forgets its oldest question for a new one; otherwise it takes no more.
    """

    size: int
    cluster_size: int
    ring: bool

    @property
    def unit(self) -> int:
        return math.lcm(*range(1, self.cluster_size + 1))

    def init(self, cells: int) -> ClusterBankState:
        zeros = jnp.zeros((cells, self.size), jnp.int32)
        score = jnp.full((cells, self.size, self.cluster_size), -jnp.inf, jnp.float32)
        return ClusterBankState(score, zeros, zeros, jnp.zeros((cells,), jnp.int32))

    def earlier(self, bank: ClusterBankState) -> ClusterBankState:
        """The bank with all its questions closed: new drafts are of none of them, and are ranked among all."""
        return bank._replace(question=jnp.full_like(bank.question, EARLIER))

    def compare(self, bank: ClusterBankState, cell: jax.Array, score: jax.Array, question: jax.Array) -> Standing:
        """Where scores (B,) stand among the other questions of their cells (B,)."""
        rows, entries = bank.score[cell], bank.entries[cell]
        other = (entries > 0) & (bank.question[cell] != question[:, None])
        there = jnp.arange(self.cluster_size, dtype=jnp.int32) < entries[:, :, None]
        weight = jnp.where(other, self.unit // jnp.maximum(entries, 1), 0)

        def weigh(which: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sum(there & which, axis=2, dtype=jnp.int32) * weight, axis=1)

        candidate = score[:, None, None]
        total = self.unit * jnp.sum(other, axis=1, dtype=jnp.int32)
        return Standing(weigh(rows < candidate), weigh(rows == candidate), total, self.unit)

    def insert(
        self, bank: ClusterBankState, cell: jax.Array, score: jax.Array, question: jax.Array, live: jax.Array
    ) -> ClusterBankState:
        """The bank with the scores of live lanes, in the order of lanes, each (B,)."""
        if not cell.shape[0]:
            return bank
        same = (cell[:, None] == cell[None, :]) & (question[:, None] == question[None, :])
        order = earlier_alike(same, live)
        match = (bank.entries[cell] > 0) & (bank.question[cell] == question[:, None])
        known = jnp.any(match, axis=1)
        opens = live & ~known & (order == 0)
        begun, _, following = take_places(bank.next, cell, opens, self.size, self.ring)
        fresh = jnp.zeros_like(bank.entries, dtype=bool).at[cell, begun].set(True, mode="drop")

        # A lane joins its question where it is, or where the first of these lanes with that question began it.
        first = jnp.argmax(same & live[None, :], axis=1)
        old = jnp.argmax(match, axis=1).astype(jnp.int32)
        kept = known & ~fresh[cell, old]
        place = jnp.where(kept, old, jnp.where(known, self.size, begun[first]))
        place = jnp.where(live, place, self.size)
        before = jnp.where(kept, bank.entries[cell, old], 0)
        entry = before + order
        place = jnp.where(entry < self.cluster_size, place, self.size)
        return ClusterBankState(
            score=bank.score.at[cell, place, entry].set(score, mode="drop"),
            question=bank.question.at[cell, begun].set(question, mode="drop"),
            entries=jnp.where(fresh, 0, bank.entries).at[cell, place].add(1, mode="drop"),
            next=following,
        )
