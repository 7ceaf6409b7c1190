"""Calibrators that hand a draft over by the rank of its score among those they hold.

B lanes.
"""

import dataclasses

import jax

from jaxspec.conformal.lanes import Lanes
from jaxspec.conformal.ranked import Ranked, RankState, draws
from jaxspec.conformal.rate import exact_rate
from jaxspec.conformal.standing import SIDES, escalates


@dataclasses.dataclass(frozen=True)
class BySide(Ranked):
    """Attributes:
    side: which guarantee, see `jaxspec.conformal.standing.escalates`.
    """

    side: str

    def init(self) -> RankState:
        """Without scores: "at_most" never escalates, "exact" at the rate by chance, the other sides always."""
        return self._first_state()

    def _escalates(self, state: RankState, lanes: Lanes, uniform: jax.Array | None) -> jax.Array:
        draw = draws(state, lanes.score.shape[0], uniform)
        return escalates(self.side, exact_rate(self.reject_rate), self._standing(state, lanes), draw)

    def _renewed(self, state: RankState, questions_as_groups: bool) -> RankState:
        return self._renewed_ranks(state, questions_as_groups)


def checked_side(side: str) -> str:
    """`side`, if there is such a one.

    Raises:
      ValueError: there is not.
    """
    if side not in SIDES:
        raise ValueError(f"side={side!r} is not one of {SIDES}; 'at_most' keeps within a budget, 'exact' hits the rate")
    return side
