"""Calibration once, before the decisions.

T calibration scores.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jaxspec.conformal.by_side import BySide, checked_side
from jaxspec.conformal.calibrator import checked_state
from jaxspec.conformal.lanes import Lanes
from jaxspec.conformal.ranked import RankState, rank_settings


@dataclasses.dataclass(frozen=True)
class StaticConformal(BySide):
    """Ranks among scores given to `calibrate`; decisions teach it nothing."""

    def calibrate(self, score: jax.Array, group: jax.Array, question: jax.Array | None = None) -> RankState:
        """The state with calibration scores.

        Args:
          score: (T,) float, non-finite for worst.
          group: (T,) integer.
          question: (T,) integer, where questions are told apart: the number a question has in the job to come, and
            below 0 for one that is not in it: a different one for each, since scores of one number count as one
            question's. Mode "conditional" has no use for those.

        Raises:
          ValueError: wrong shapes, a question that mode "conditional" does not have, or more scores of a group, or
            questions where `cluster_size` is given, than `size`.
        """
        lanes = self._lanes(score, group, None, question)
        self._check_room(lanes)
        state = self._first_state()
        return state._replace(bank=_filled(self.bank, state.bank, lanes))

    def is_calibrated(self, state: RankState | None) -> bool:
        """Whether there is a state, and it holds any score to rank among.

        Raises:
          ValueError: a state of another calibrator.
        """
        if state is None:
            return False
        bank = checked_state(self, state).bank
        return bool(np.any(np.asarray(bank.entries if self.cluster_size else bank.held)))

    def _check_room(self, lanes: Lanes) -> None:
        cell, question = np.asarray(lanes.cell), np.asarray(lanes.question)
        foreign = question[(question < 0) | (question >= self.questions)]
        if self.questions and foreign.size:
            raise ValueError(
                f"calibration scores of question {foreign[0]}, and mode='conditional' compares within questions 0 to "
                f"{self.questions - 1}; leave out scores of others, or make the calibrator for more questions"
            )
        if self.cluster_size:
            cell = np.unique(np.stack([cell, question]), axis=1)[0]  # each question once
        held = np.bincount(cell, minlength=self.cells)
        if held.max() > self.size:
            kind = "questions" if self.cluster_size else "scores"
            raise ValueError(
                f"{held.max()} calibration {kind} for cell {held.argmax()}, size={self.size}; give a larger size"
            )

    def _learned(self, state: RankState, lanes: Lanes, escalate: jax.Array) -> RankState:
        return self._count(state, lanes, escalate)

    def _renewed(self, state: RankState, questions_as_groups: bool) -> RankState:
        return state  # whoever calibrated it chose the numbers of its questions


@functools.partial(jax.jit, static_argnums=0)
def _filled(kind: Any, bank: Any, lanes: Lanes) -> Any:
    """The bank with all scores, one after the other, so that their number may be large."""

    def insert(bank: Any, one: Lanes) -> tuple[Any, None]:
        one = jax.tree.map(lambda field: field[None], one)
        return kind.insert(bank, one.cell, one.score, one.question, one.live), None

    return jax.lax.scan(insert, bank, lanes)[0]


def static_conformal(
    reject_rate: float = 0.4,
    side: str = "at_most",
    size: int = 1024,
    groups: int = 1,
    mode: str = "marginal",
    questions: int | None = None,
    cluster_size: int | None = None,
    seed: int = 0,
) -> StaticConformal:
    """Split conformal: hands a draft to the target by its rank among calibration scores.

    The rate holds for scores exchangeable with those of calibration, so not when later turns are harder than the
    calibrated one; given the calibration scores it varies as Beta(N + 1 - k, k), k = ceil((N + 1)(1 - reject_rate)).

    Args:
      reject_rate: share of drafts handed over, in [0, 1].
      side: "at_most", "at_least", "exact", or "released" for the rule of the code published with A1.
      size: most calibration scores of a group; questions where `cluster_size` is given.
      groups: groups calibrated apart, such as turns.
      mode: "marginal" pools questions; "conditional" compares within a question.
      questions: how many there are, for mode "conditional".
      cluster_size: keep up to so many scores a question and weigh questions alike, which holds the rate for scores
        that are alike within a question; None to weigh scores alike.
      seed: of the draws of side "exact".

    Raises:
      ValueError: a rate outside [0, 1], another side or mode, a size below 1, or sizes that do not go together.
    """
    settings = rank_settings(
        reject_rate=reject_rate,
        groups=groups,
        mode=mode,
        questions=questions,
        size=size,
        cluster_size=cluster_size,
        bank="growing",
        seed=seed,
    )
    return StaticConformal(**settings, side=checked_side(side))
