"""A fixed threshold: no guarantee, nothing to learn.

B lanes.
"""

import dataclasses

import jax

from jaxspec.conformal.checked import Checked
from jaxspec.conformal.lanes import Lanes
from jaxspec.conformal.tally import Tally, count, empty_tally


@dataclasses.dataclass(frozen=True)
class Fixed(Checked):
    """Hands drafts with a score below `threshold` to the target; the state counts, per group."""

    threshold: float
    groups: int

    def init(self) -> Tally:
        return empty_tally(self.groups)

    def _escalates(self, state: Tally, lanes: Lanes, uniform: jax.Array | None) -> jax.Array:
        return lanes.score < self.threshold

    def _learned(self, state: Tally, lanes: Lanes, escalate: jax.Array) -> Tally:
        return count(state, lanes, escalate)


def checked_threshold(threshold: float) -> float:
    """`threshold`, if it is a number, finite or not.

    Raises:
      ValueError: it is none.
    """
    if threshold != threshold:
        raise ValueError(f"threshold={threshold} is not a number; give one on the scale of the scores")
    return float(threshold)


def fixed(threshold: float, groups: int = 1) -> Fixed:
    """Escalation of every draft with a score below a threshold: minus infinity for none, infinity for all.

    Args:
      threshold: of the score.
      groups: groups counted apart.

    Raises:
      ValueError: the threshold is not a number or there is no group.
    """
    if groups < 1:
        raise ValueError(f"groups={groups} is below 1")
    return Fixed(checked_threshold(threshold), groups)
