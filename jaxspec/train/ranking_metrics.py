"""How well a score ranks, separates and says its own odds. N outcomes; NumPy, on the host."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


class LabelAccuracy(NamedTuple):
    """Attributes:
    negative, positive: share of each label that the score puts on the right side; NaN without such a label.
    """

    negative: float
    positive: float


class Calibration(NamedTuple):
    """Attributes:
    error: expected calibration error: mean distance of mean probability and rate over bins, by their outcomes.
    predicted, observed: (K,) mean probability and rate of every bin with outcomes.
    count: (K,) outcomes.
    """

    error: float
    predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where either side never varies.

    Raises:
      ValueError: shapes differ, there is nothing, or a value is not finite.
    """
    ranks = []
    for name, values in (("first", first), ("second", second)):
        array = _finite(name, values)
        ranks.append(rankdata(array) - (len(array) + 1) / 2)
    if len(ranks[0]) != len(ranks[1]):
        raise ValueError(f"{len(ranks[0])} values cannot be paired with {len(ranks[1])}")
    spread = math.sqrt(float(np.sum(ranks[0] ** 2) * np.sum(ranks[1] ** 2)))
    return float(np.sum(ranks[0] * ranks[1]) / spread) if spread else 0.0


def auc(score: ArrayLike, label: ArrayLike) -> float:
    """Probability that a positive outcome scores above a negative one, ties counted half; NaN with one label alone.

    Raises:
      ValueError: shapes differ, there is nothing, or a score is not finite.
    """
    values, positive = _labelled(score, label)
    many = int(positive.sum())
    if many in (0, len(positive)):
        return math.nan
    ranks = rankdata(values)
    return float((ranks[positive].sum() - many * (many + 1) / 2) / (many * (len(positive) - many)))


def label_accuracy(score: ArrayLike, label: ArrayLike, threshold: float = 0.5) -> LabelAccuracy:
    """Share of negative outcomes at or below the threshold, and of positive ones above it.

    Raises:
      ValueError: shapes differ, there is nothing, or a score is not finite.
    """
    values, positive = _labelled(score, label)
    above = values > threshold

    def share(of: np.ndarray, right: np.ndarray) -> float:
        return float(right[of].mean()) if of.any() else math.nan

    return LabelAccuracy(share(~positive, ~above), share(positive, above))


def calibration(probability: ArrayLike, label: ArrayLike, bins: int = 10) -> Calibration:
    """Mean probability against rate, in bins of equal width.

    Raises:
      ValueError: shapes differ, there is nothing, a value is no probability, or there is no bin.
    """
    if bins < 1:
        raise ValueError(f"bins={bins} is below 1")
    values, positive = _labelled(probability, label)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"probabilities range from {values.min()} to {values.max()}; give some between 0 and 1")
    place = np.minimum((values * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    predicted = np.bincount(place, weights=values, minlength=bins)[used] / count[used]
    observed = np.bincount(place, weights=positive, minlength=bins)[used] / count[used]
    error = float(np.average(np.abs(predicted - observed), weights=count[used]))
    return Calibration(error, predicted, observed, count[used])


def _labelled(score: ArrayLike, label: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    values, positive = _finite("score", score), np.asarray(label).astype(bool)
    if values.shape != positive.shape:
        raise ValueError(f"scores of shape {values.shape} cannot be paired with labels of shape {positive.shape}")
    return values, positive


def _finite(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} has shape {array.shape}; give one row of at least one value")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {array[~np.isfinite(array)][0]}, which cannot be ranked")
    return array
