"""Intervals against published values, and their coverage in simulations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.evaluate.intervals import clustered_proportion, paired_difference, proportion


def test_wilson_by_its_definition() -> None:
    """The bounds are the rates p with |x/n - p| = z sqrt(p (1 - p) / n)."""
    z = 1.959963984540054
    for successes, trials in [(1, 10), (15, 40), (39, 40), (300, 1000)]:
        found = proportion(successes, trials)
        for bound in (found.low, found.high):
            distance = abs(successes / trials - bound)
            assert math.isclose(distance, z * math.sqrt(bound * (1 - bound) / trials), rel_tol=1e-9)
        assert found.low < found.estimate < found.high


def test_wilson_at_the_ends() -> None:
    assert proportion(0, 10)[:2] == (0.0, 0.0)
    assert math.isclose(proportion(0, 10).high, 0.27753, abs_tol=5e-6)  # z^2 / (n + z^2)
    assert proportion(10, 10).high == 1.0
    nothing = proportion(0, 0)
    assert math.isnan(nothing.estimate) and nothing[1:] == (0.0, 1.0)


def test_paired_difference_by_the_published_formula() -> None:
    """Bonett and Price: (b - c) / (n + 2) after adding one to each, +- z sqrt((b + c - (b - c)^2 / n) / n^2)."""
    first, second = np.array([1] * 7 + [0] * 13), np.array([1] * 4 + [0] * 3 + [1] * 9 + [0] * 4)
    gained, lost, total = 9 + 1, 3 + 1, 20 + 2
    p, q = gained / total, lost / total
    half = 1.959963984540054 * math.sqrt((p + q - (p - q) ** 2) / total)
    found = paired_difference(first, second)
    np.testing.assert_allclose(found, (0.3, p - q - half, p - q + half), rtol=1e-9)


def correlated(random: np.random.Generator, questions: int, samples: int, rate: float, spread: float) -> np.ndarray:
    """(G, M) bool outcomes whose rates vary by question as a beta law with concentration `spread`."""
    rates = random.beta(rate * spread, (1 - rate) * spread, size=(questions, 1))
    return random.random((questions, samples)) < rates


@pytest.mark.parametrize(("rate", "trials"), [(0.02, 100), (0.1, 30), (0.5, 25), (0.9, 200)])
def test_wilson_covers(rate: float, trials: int) -> None:
    counts = np.random.default_rng(1).binomial(trials, rate, size=4000)
    covered = [low <= rate <= high for _, low, high in (proportion(int(count), trials) for count in counts)]
    assert 0.92 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize(("gain", "loss", "pairs"), [(0.0, 0.0, 50), (0.05, 0.02, 60), (0.3, 0.1, 40), (0.2, 0.2, 200)])
def test_paired_difference_covers(gain: float, loss: float, pairs: int) -> None:
    random = np.random.default_rng(2)
    covered = []
    for _ in range(2000):
        draw = random.random(pairs)
        agreed = random.random(pairs) < 0.5
        first = np.where(draw < gain, False, np.where(draw < gain + loss, True, agreed))
        second = np.where(draw < gain, True, np.where(draw < gain + loss, False, agreed))
        _, low, high = paired_difference(first, second)
        covered.append(low <= gain - loss <= high)
    assert np.mean(covered) >= 0.935


@pytest.mark.parametrize(("rate", "spread"), [(0.3, 0.7), (0.8, 2.0), (0.5, 1e6)])
def test_clustered_proportion_covers_where_the_plain_one_does_not(rate: float, spread: float) -> None:
    random = np.random.default_rng(3)
    questions, samples = 64, 16
    cluster = np.repeat(np.arange(questions), samples)
    covered, plain = [], []
    for _ in range(800):
        outcomes = correlated(random, questions, samples, rate, spread).ravel()
        _, low, high = clustered_proportion(outcomes, cluster)
        covered.append(low <= rate <= high)
        _, low, high = proportion(int(outcomes.sum()), len(outcomes))
        plain.append(low <= rate <= high)
    assert 0.925 <= np.mean(covered) <= 0.98
    assert np.mean(plain) < 0.7 or spread > 100


def test_clustered_difference_covers_where_the_plain_one_does_not() -> None:
    random = np.random.default_rng(4)
    questions, samples = 48, 16
    cluster = np.repeat(np.arange(questions), samples)
    covered, plain = [], []
    for _ in range(800):
        first = correlated(random, questions, samples, 0.4, 1.0).ravel()
        second = correlated(random, questions, samples, 0.5, 1.0).ravel()
        _, low, high = paired_difference(first, second, cluster)
        covered.append(low <= 0.1 <= high)
        _, low, high = paired_difference(first, second)
        plain.append(low <= 0.1 <= high)
    assert 0.93 <= np.mean(covered) <= 0.985
    assert np.mean(plain) < 0.7


def test_pairing_narrows() -> None:
    random = np.random.default_rng(5)
    first = random.random(500) < 0.5
    second = first ^ (random.random(500) < 0.02)
    _, low, high = paired_difference(first, second)
    _, apart, _ = paired_difference(first, random.permutation(second))
    assert high - low < 0.05 < 0.1 < -2 * apart


def test_agreement_of_all_is_no_certainty() -> None:
    cluster = np.repeat(np.arange(20), 8)
    ones = np.ones(160)
    assert clustered_proportion(ones, cluster).low < proportion(160, 160).low < 1.0
    assert paired_difference(ones, ones).high > 0.0
    assert paired_difference(ones, ones, cluster).high > 4 * paired_difference(ones, ones).high


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), min_size=2, max_size=12))
def test_swapping_and_naming_change_nothing_else(rows: list[tuple[bool, bool, int]]) -> None:
    first, second, cluster = (np.array(column) for column in zip(*rows, strict=True))
    cluster[0], cluster[1] = 8, 9
    there, back = paired_difference(first, second, cluster), paired_difference(second, first, cluster)
    np.testing.assert_allclose(there, (-back.estimate, -back.high, -back.low), atol=1e-12)
    assert paired_difference(first, second, 100 - cluster) == pytest.approx(there)
    for found, least in ((there, -1.0), (clustered_proportion(first, cluster), 0.0)):
        assert least <= found.low <= found.high <= 1.0


def test_a_wider_level_is_wider() -> None:
    for low, high in ((0.8, 0.95), (0.95, 0.999)):
        assert proportion(3, 9, high).low < proportion(3, 9, low).low
        assert (
            paired_difference([0, 1, 1], [1, 1, 0], level=high).low
            < paired_difference([0, 1, 1], [1, 1, 0], level=low).low
        )


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="5 successes in 4"):
        proportion(5, 4)
    with pytest.raises(ValueError, match="level=95"):
        proportion(1, 4, 95)
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([1, 0], [1])
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="outcome 0.5"):
        paired_difference([1, 0.5], [1, 0])
    with pytest.raises(ValueError, match="1 cluster"):
        clustered_proportion([1, 0], [3, 3])
    with pytest.raises(ValueError, match="3 cluster names"):
        clustered_proportion([1, 0], [3, 3, 4])
