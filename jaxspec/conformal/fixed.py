"""A fixed threshold: no guarantee, nothing to learn.

B lanes, G groups.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxspec.conformal.calibrator import checked_state
from jaxspec.conformal.lanes import Tally, all_or, count, empty_tally, lane_values, usable


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Hands drafts with a score below `threshold` to the target; the state counts, per group."""

    threshold: float
    groups: int

    def init(self) -> Tally:
        return empty_tally(self.groups)

    def decide(
        self,
        state: Tally,
        score: jax.Array,
        group: jax.Array,
        live: jax.Array | None = None,
        question: jax.Array | None = None,
        uniform: jax.Array | None = None,
    ) -> jax.Array:
        del question, uniform
        checked_state(self, state)
        score, _, live = self._lanes(score, group, live)
        return (usable(score) < self.threshold) & live

    def observe(
        self,
        state: Tally,
        score: jax.Array,
        group: jax.Array,
        escalate: jax.Array,
        live: jax.Array | None = None,
        question: jax.Array | None = None,
    ) -> Tally:
        del question
        state = checked_state(self, state)
        score, cell, live = self._lanes(score, group, live)
        escalate = lane_values("escalate", escalate, score.shape[0], jnp.bool_)
        return count(state, cell, score, escalate, live)

    def _lanes(
        self, score: jax.Array, group: jax.Array, live: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        score = lane_values("score", score, None, jnp.floating)
        group = lane_values("group", group, score.shape[0], jnp.integer)
        cell = jnp.clip(group, 0, self.groups - 1).astype(jnp.int32)
        return score, cell, all_or("live", live, score.shape[0])


def fixed(threshold: float, groups: int = 1) -> Fixed:
    """Escalation of every draft with a score below a threshold: minus infinity for none, infinity for all.

    Args:
      threshold: of the score.
      groups: groups counted apart.

    Raises:
      ValueError: the threshold is not a number or there is no group.
    """
    if threshold != threshold:
        raise ValueError(f"threshold={threshold} is not a number; give one on the scale of the scores")
    if groups < 1:
        raise ValueError(f"groups={groups} is below 1")
    return Fixed(float(threshold), groups)
