"""Ranking metrics against counting by hand."""

import math

import numpy as np
import pytest

from jaxspec.train.ranking_metrics import auc, calibration, label_accuracy, spearman


def mean_ranks(values: np.ndarray) -> np.ndarray:
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def test_spearman_is_pearson_of_mean_ranks_and_ignores_scale() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(0, 5, (2, 60)).astype(float)
    wanted = np.corrcoef(mean_ranks(first), mean_ranks(second))[0, 1]
    assert spearman(first, second) == pytest.approx(wanted)
    assert spearman(np.exp(first), 3 * second - 1) == pytest.approx(wanted)
    assert spearman(first, first) == pytest.approx(1.0) and spearman(first, -first) == pytest.approx(-1.0)
    assert spearman(first, np.ones(60)) == 0.0


def test_auc_counts_pairs() -> None:
    random = np.random.default_rng(1)
    score, label = random.integers(0, 6, 50), random.random(50) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in score[label] for b in score[~label]]
    assert auc(score, label) == pytest.approx(np.mean(pairs))
    assert math.isnan(auc(score, np.ones(50)))


def test_accuracy_per_label_is_strict_at_the_threshold() -> None:
    found = label_accuracy([0.2, 0.5, 0.7, 0.5, 0.9], [0, 0, 0, 1, 1])
    assert found.negative == pytest.approx(2 / 3) and found.positive == 0.5
    assert math.isnan(label_accuracy([0.2], [0]).positive)


def test_calibration_is_small_for_honest_odds_and_names_the_lie() -> None:
    random = np.random.default_rng(2)
    odds = random.random(20_000)
    label = random.random(20_000) < odds
    assert calibration(odds, label).error < 0.02
    told = calibration(np.full(100, 0.95), np.arange(100) < 60)
    assert told.error == pytest.approx(0.35) and told.count.tolist() == [100]
    assert calibration([1.0, 0.0], [1, 0]).error == 0.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="cannot be ranked"):
        spearman([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match="2 values cannot be paired with 3"):
        spearman([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="range from"):
        calibration([1.5], [1])
