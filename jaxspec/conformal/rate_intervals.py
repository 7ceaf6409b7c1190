"""Intervals of a realised rate: for independent decisions, and for those that are alike within a question.

T decisions. NumPy, on the host.
"""

import dataclasses
import math

import numpy as np
from scipy import special


@dataclasses.dataclass(frozen=True)
class Interval:
    """Attributes:
    low, high: ends, within [0, 1].
    """

    low: float
    high: float

    def __contains__(self, rate: float) -> bool:
        return self.low <= rate <= self.high


def binomial_interval(escalations: int, decisions: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a rate."""
    return score_interval(escalations / decisions, decisions, float(special.ndtri(0.5 + confidence / 2)))


def score_interval(rate: float, trials: float, z: float) -> Interval:
    """Wilson's score interval (1927): the rates that lie within `z` of their own standard errors from the `rate` seen.

    Args:
      rate: of successes.
      trials: how many, not necessarily a whole number.
      z: quantile.
    """
    spread = z * z / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + spread * spread / 4) / (1 + spread)
    # What rounding would leave out: the rate itself, and the ends of what is possible.
    low = 0.0 if rate == 0.0 else min(max(0.0, centre - half), rate)
    return Interval(low, 1.0 if rate == 1.0 else max(min(1.0, centre + half), rate))


def cluster_interval(escalate: np.ndarray, question: np.ndarray, confidence: float = 0.95) -> Interval | None:
    """Interval of a rate from how much questions differ: the ratio estimator, with Student's quantile.

    Args:
      escalate: (T,) bool.
      question: (T,) integer.

    Returns:
      The interval, or None for fewer than two questions.
    """
    _, index = np.unique(question, return_inverse=True)
    decisions = np.bincount(index).astype(float)
    if len(decisions) < 2:
        return None
    rate = float(np.mean(escalate))
    residual = np.bincount(index, weights=escalate.astype(float)) - rate * decisions
    freedom = len(decisions) - 1
    error = math.sqrt(float(residual @ residual) * len(decisions) / freedom) / float(decisions.sum())
    half = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * error
    return Interval(max(0.0, rate - half), min(1.0, rate + half))
