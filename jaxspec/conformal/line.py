"""A threshold that is data: a whole sweep of thresholds runs in one compiled program.

B lanes.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.calibrator import checked_state
from jaxspec.conformal.lanes import all_or, lane_values, usable


class LineState(NamedTuple):
    """Attributes:
    threshold: () float32.
    """

    threshold: jax.Array


@dataclasses.dataclass(frozen=True)
class Line:
    """Hands drafts with a score below the state's threshold to the target, as `Fixed` does with its own; before it is
    told one, none. Pass `line_state(threshold)` to `steps.solve` as `calibrator`."""

    def init(self) -> LineState:
        return line_state(-math.inf)

    def decide(
        self,
        state: LineState,
        score: jax.Array,
        group: jax.Array,
        live: jax.Array | None = None,
        question: jax.Array | None = None,
        uniform: jax.Array | None = None,
    ) -> jax.Array:
        del group, question, uniform
        state = checked_state(self, state)
        score = lane_values("score", score, None, jnp.floating)
        return (usable(score) < state.threshold) & all_or("live", live, score.shape[0])

    def observe(
        self,
        state: LineState,
        score: jax.Array,
        group: jax.Array,
        escalate: jax.Array,
        live: jax.Array | None = None,
        question: jax.Array | None = None,
    ) -> LineState:
        del score, group, escalate, live, question
        return checked_state(self, state)


def line() -> Line:
    """The calibrator."""
    return Line()


def line_state(threshold: float) -> LineState:
    """Its state: minus infinity for no escalation, infinity for all.

    Raises:
      ValueError: the threshold is not a number.
    """
    if threshold != threshold:
        raise ValueError(f"threshold={threshold} is not a number; give one on the scale of the scores")
    return LineState(jnp.asarray(threshold, jnp.float32))
