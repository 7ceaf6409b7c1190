"""Intervals of accuracies and of their differences, by formula: one rate, two rates on the same questions, clusters.

Samples of one question are more alike than samples of two; where a question has several, pass `cluster`, and what is
averaged is what questions, not samples, vary by. Shapes: N outcomes, G clusters. NumPy, on the host.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy import special

from jaxspec.conformal.rate_intervals import score_interval


class Interval(NamedTuple):
    """Attributes:
    estimate: the plain mean or difference of means.
    low, high: bounds, never beyond what is possible.
    """

    estimate: float
    low: float
    high: float


def proportion(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a rate (Wilson, 1927); without trials, everything is possible.

    Raises:
      ValueError: counts that cannot be, or a level outside (0, 1).
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials cannot be")
    z = NormalDist().inv_cdf(_upper(level))
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    return _around(successes / trials, trials, z)


def clustered_proportion(
    outcomes: Sequence[float] | np.ndarray, cluster: Sequence[int] | np.ndarray, level: float = 0.95
) -> Interval:
    """Interval of a rate whose outcomes come in clusters: Wilson's, with as many trials as the clusters are worth.

    That number is what makes the binomial variance that of the mean between clusters (Korn and Graubard, 1998), at most
    N; where all outcomes agree, it is the number of clusters. Student's t replaces the normal quantile.

    Args:
      outcomes: (N,) 0 or 1.
      cluster: (N,) which one each belongs to, at least two different.

    Raises:
      ValueError: shapes differ, outcomes other than 0 and 1, fewer than two clusters.
    """
    values, sizes, sums = _clusters(outcomes, cluster, (0.0, 1.0))
    rate, total = float(values.mean()), len(values)
    variance = _ratio_variance(sums, sizes)
    binomial = rate * (1.0 - rate)
    if binomial == 0.0:
        worth = float(len(sizes))
    else:
        worth = min(float(total), binomial / variance) if variance > 0.0 else float(total)
    return _around(rate, worth, _student(len(sizes) - 1, level))


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    cluster: Sequence[int] | np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    """Interval of mean(second) - mean(first), both measured on the same questions.

    The adjusted Wald interval of Bonett and Price (2012): one question more that only `first` gets right and one that
    only `second` does, then the plain interval of a mean. With clusters, one cluster of mean size each, the variance
    between clusters, and Student's t. The interval keeps some width where nothing was seen to differ.

    Args:
      first, second: (N,) 0 or 1, entry by entry on the same question and sample.
      cluster: (N,) which one each pair belongs to, at least two different; None for independent pairs.

    Raises:
      ValueError: shapes differ, no pairs, outcomes other than 0 and 1, fewer than two clusters.
    """
    first, second = _outcomes(first, (0.0, 1.0)), _outcomes(second, (0.0, 1.0))
    if first.shape != second.shape or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} outcomes are no pairs")
    difference = second - first
    if cluster is None:
        sums, sizes = difference, np.ones(len(difference))
        quantile = NormalDist().inv_cdf(_upper(level))
    else:
        _, sizes, sums = _clusters(difference, cluster, (-1.0, 0.0, 1.0))
        quantile = _student(len(sizes) - 1, level)
    size = sizes.mean()
    sums, sizes = np.append(sums, [size, -size]), np.append(sizes, [size, size])
    centre = float(sums.sum() / sizes.sum())
    variance = _ratio_variance(sums, sizes)
    if cluster is None:
        variance *= (len(sizes) - 1) / len(sizes)  # the published form divides by the number of pairs
    half = quantile * math.sqrt(variance)
    return Interval(float(difference.mean()), max(-1.0, centre - half), min(1.0, centre + half))


def _around(rate: float, trials: float, z: float) -> Interval:
    ends = score_interval(rate, trials, z)
    return Interval(rate, ends.low, ends.high)


def _ratio_variance(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Variance of sum(sums) / sum(sizes) by how far clusters lie from it (linearised ratio estimator)."""
    count = len(sizes)
    residual = sums - sizes * (sums.sum() / sizes.sum())
    return float(count / (count - 1) * np.sum(residual**2) / sizes.sum() ** 2)


def _clusters(
    outcomes: Sequence[float] | np.ndarray, cluster: Sequence[int] | np.ndarray, allowed: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes (N,), and sizes and sums (G,) of their clusters."""
    values, names = _outcomes(outcomes, allowed), np.asarray(cluster)
    if names.shape != values.shape:
        raise ValueError(f"{len(values)} outcomes, but {names.size} cluster names")
    _, index = np.unique(names, return_inverse=True)
    sizes = np.bincount(index)
    if len(sizes) < 2:
        raise ValueError(f"{len(sizes)} cluster says nothing of how clusters vary; give at least 2")
    return values, sizes.astype(np.float64), np.bincount(index, weights=values)


def _outcomes(outcomes: Sequence[float] | np.ndarray, allowed: tuple[float, ...]) -> np.ndarray:
    values = np.asarray(outcomes, np.float64)
    strange = values[~np.isin(values, allowed)]
    if len(strange):
        raise ValueError(f"outcome {strange[0]} is none of {', '.join(f'{value:g}' for value in allowed)}")
    return values


def _student(degrees: int, level: float) -> float:
    return float(special.stdtrit(degrees, _upper(level)))


def _upper(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level} is outside (0, 1)")
    return (1.0 + level) / 2.0
