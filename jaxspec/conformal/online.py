"""Calibration by the decisions' own past."""

import dataclasses

import jax

from jaxspec.conformal.by_side import BySide, checked_side
from jaxspec.conformal.lanes import Lanes
from jaxspec.conformal.ranked import RankState, rank_settings


@dataclasses.dataclass(frozen=True)
class OnlineConformal(BySide):
    """Ranks among the scores observed so far; lanes of one batch are not compared with each other."""

    def _learned(self, state: RankState, lanes: Lanes, escalate: jax.Array) -> RankState:
        return self._insert(self._count(state, lanes, escalate), lanes)


def online_conformal(
    reject_rate: float = 0.4,
    bank: str = "ring",
    size: int = 1024,
    groups: int = 1,
    side: str = "exact",
    mode: str = "marginal",
    questions: int | None = None,
    cluster_size: int | None = None,
    seed: int = 0,
) -> OnlineConformal:
    """Online conformal: every draft is ranked among the earlier ones, then becomes one of them.

    With side "exact", one lane and scores that are exchangeable, the p-values are independent and uniform as long
    as the bank forgets nothing, so T decisions escalate Binomial(T, reject_rate) drafts (Vovk). No held-out data and
    no pass before.

    Args:
      reject_rate: share of drafts handed over, in [0, 1].
      bank: "ring" forgets the oldest score of a full group, "growing" keeps the first ones and takes no more.
      size: most scores of a group; questions where `cluster_size` is given.
      groups: groups calibrated apart, such as turns.
      side: "exact" breaks ties at random; or "at_most", "at_least", "released".
      mode: "marginal" pools questions; "conditional" compares within a question.
      questions: how many there are, for mode "conditional".
      cluster_size: keep up to so many scores a question, weigh questions alike and leave out the draft's own; None
        to weigh scores alike.
      seed: of the draws.

    Raises:
      ValueError: a rate outside [0, 1], another bank, side or mode, a size below 1, or sizes that do not go together.
    """
    settings = rank_settings(
        reject_rate=reject_rate,
        groups=groups,
        mode=mode,
        questions=questions,
        size=size,
        cluster_size=cluster_size,
        bank=bank,
        seed=seed,
    )
    return OnlineConformal(**settings, side=checked_side(side))
