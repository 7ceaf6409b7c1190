"""A threshold that is data: a whole sweep of thresholds runs in one compiled program.

B lanes.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.checked import Checked
from jaxspec.conformal.fixed import checked_threshold
from jaxspec.conformal.lanes import Lanes


class LineState(NamedTuple):
    """Attributes:
    threshold: () float32.
    """

    threshold: jax.Array


@dataclasses.dataclass(frozen=True)
class Line(Checked):
    """Hands drafts with a score below the state's threshold to the target, as `Fixed` does with its own; before it is
    told one, none. Pass `line_state(threshold)` to `steps.solve` as `calibrator`."""

    groups = 1

    def init(self) -> LineState:
        return line_state(-math.inf)

    def _escalates(self, state: LineState, lanes: Lanes, uniform: jax.Array | None) -> jax.Array:
        return lanes.score < state.threshold

    def _learned(self, state: LineState, lanes: Lanes, escalate: jax.Array) -> LineState:
        return state


def line() -> Line:
    """The calibrator."""
    return Line()


def line_state(threshold: float) -> LineState:
    """Its state: minus infinity for no escalation, infinity for all.

    Raises:
      ValueError: the threshold is not a number.
    """
    return LineState(jnp.asarray(checked_threshold(threshold), jnp.float32))
