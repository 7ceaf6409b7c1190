"""How well a rate was kept: overall, in every group, in every stretch of time, with intervals.

T decisions.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from jaxspec.conformal.rate_intervals import Interval, binomial_interval, cluster_interval


@dataclasses.dataclass(frozen=True)
class RealisedRate:
    """Attributes:
    rate: escalations / decisions.
    decisions, escalations: how many.
    binomial: Wilson's interval, for independent decisions.
    cluster: interval for decisions that are alike within a question, or None without questions or with one only.
    """

    rate: float
    decisions: int
    escalations: int
    binomial: Interval
    cluster: Interval | None


@dataclasses.dataclass(frozen=True)
class CoverageReport:
    """Attributes:
    reject_rate: the rate wanted.
    overall: the rate realised.
    groups: by group, those with decisions.
    window: decisions of a stretch; None where no stretches were asked for.
    rolling: (T - window + 1,) rates of all stretches, empty for fewer decisions than `window`.
    """

    reject_rate: float
    overall: RealisedRate
    groups: Mapping[int, RealisedRate]
    window: int | None
    rolling: np.ndarray

    @property
    def overall_deviation(self) -> float:
        return abs(self.overall.rate - self.reject_rate)

    @property
    def group_deviation(self) -> float:
        """Of the group that is furthest off."""
        return max(abs(group.rate - self.reject_rate) for group in self.groups.values())

    @property
    def rolling_deviation(self) -> float:
        """Of the stretch that is furthest off; NaN without one."""
        return float(np.max(np.abs(self.rolling - self.reject_rate))) if self.rolling.size else math.nan


def coverage_report(
    escalate: ArrayLike,
    reject_rate: float,
    group: ArrayLike | None = None,
    question: ArrayLike | None = None,
    live: ArrayLike | None = None,
    window: int | None = 200,
    confidence: float = 0.95,
) -> CoverageReport:
    """Realised rates of a run.

    Args:
      escalate: bool of any shape; decisions in order, so (ticks, B) is read tick by tick, lanes in order.
      reject_rate: the rate wanted.
      group: integer of the same shape, or None for one group.
      question: integer of the same shape, for intervals that know questions, or None.
      live: bool of the same shape, which entries are decisions, or None for all.
      window: decisions of a stretch; None for decisions that are not in the order of time.
      confidence: of the intervals.

    Raises:
      ValueError: other shapes, no decisions, a window below 1, a rate or confidence outside its range.
    """
    chosen = np.asarray(escalate, bool)
    if not 0.0 <= reject_rate <= 1.0:
        raise ValueError(f"reject_rate={reject_rate} is outside [0, 1]")
    if window is not None and window < 1:
        raise ValueError(f"window={window} is below 1")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence} is not between 0 and 1; 0.95 for 95 %")
    groups = np.zeros(chosen.shape, int) if group is None else np.asarray(group)
    questions = None if question is None else np.asarray(question)
    mask = np.ones(chosen.shape, bool) if live is None else np.asarray(live, bool)
    for name, value in {"group": groups, "question": questions, "live": mask}.items():
        if value is not None and value.shape != chosen.shape:
            raise ValueError(f"{name} has shape {value.shape}, escalate {chosen.shape}; give one entry a decision")
    chosen, groups = chosen[mask], groups[mask]
    questions = None if questions is None else questions[mask]
    if not chosen.size:
        raise ValueError("there are no decisions to report on")

    def realised(which: np.ndarray) -> RealisedRate:
        return _realised(chosen[which], None if questions is None else questions[which], confidence)

    return CoverageReport(
        reject_rate=float(reject_rate),
        overall=realised(np.ones(chosen.shape, bool)),
        groups={int(value): realised(groups == value) for value in np.unique(groups)},
        window=window,
        rolling=np.zeros(0) if window is None else _rolling(chosen, window),
    )


def _rolling(chosen: np.ndarray, window: int) -> np.ndarray:
    sums = np.concatenate([[0], np.cumsum(chosen)])
    return (sums[window:] - sums[:-window]) / window


def _realised(chosen: np.ndarray, question: np.ndarray | None, confidence: float) -> RealisedRate:
    total, hits = int(chosen.size), int(chosen.sum())
    cluster = None if question is None else cluster_interval(chosen, question, confidence)
    return RealisedRate(hits / total, total, hits, binomial_interval(hits, total, confidence), cluster)
