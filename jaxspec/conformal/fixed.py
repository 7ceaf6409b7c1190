"""A fixed threshold: no guarantee, nothing to learn.

B lanes, G groups.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.checked import Checked
from jaxspec.conformal.lanes import Lanes
from jaxspec.conformal.tally import Tally, count, empty_tally


class FixedState(NamedTuple):
    """Attributes:
    threshold: () float32 below which drafts are handed over.
    tally: what was decided, every leaf (G,).
    """

    threshold: jax.Array
    tally: Tally


@dataclasses.dataclass(frozen=True)
class Fixed(Checked):
    """Hands drafts with a score below a threshold to the target; counts, per group.

    Decisions read the threshold from the state, so a sweep of thresholds runs in one compiled program: for `jit`, two
    of these are equal if they differ in the threshold alone.

    Attributes:
      threshold: that `init` and `renew` put into the state.
      groups: G, counted apart.
    """

    threshold: float = dataclasses.field(compare=False)
    groups: int

    def init(self) -> FixedState:
        return FixedState(self._own_threshold(), empty_tally(self.groups))

    def _escalates(self, state: FixedState, lanes: Lanes, uniform: jax.Array | None) -> jax.Array:
        return lanes.score < state.threshold

    def _learned(self, state: FixedState, lanes: Lanes, escalate: jax.Array) -> FixedState:
        return state._replace(tally=count(state.tally, lanes, escalate))

    def _renewed(self, state: FixedState, questions_as_groups: bool) -> FixedState:
        tally = empty_tally(self.groups) if questions_as_groups else state.tally
        return FixedState(self._own_threshold(), tally)

    def _own_threshold(self) -> jax.Array:
        return jnp.asarray(self.threshold, jnp.float32)


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
