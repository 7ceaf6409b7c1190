"""Curves from stored traces: the oracle is the best of all subsets, intervals are paired, costs add up."""

import itertools

import numpy as np
import pytest

from jaxspec.evaluate.step_replay import StepOutcomes, break_even, cost, escalations, gain_over, replay, replay_curve


def outcomes(count: int, seed: int = 0) -> StepOutcomes:
    random = np.random.default_rng(seed)
    right = random.random((2, count)) < [[0.5], [0.8]]
    tokens = random.integers(3, 9, (2, count))
    return StepOutcomes(right[0], right[1], tokens[0], tokens[1], np.arange(count) // 3)


def test_the_oracle_is_the_best_of_all_subsets_of_its_size() -> None:
    small = outcomes(9)
    advantage = small.target_right.astype(float) - small.draft_right
    for many in range(10):
        best = max(
            replay(small, np.isin(np.arange(9), chosen)).accuracy.estimate
            for chosen in itertools.combinations(range(9), many)
        )
        assert replay(small, escalations(-advantage, many / 9)).accuracy.estimate == pytest.approx(best)


def test_ends_are_the_models_alone_and_waste_is_counted() -> None:
    some = outcomes(300)
    none, half, everything = replay_curve(some, np.zeros(300), [0.0, 0.5, 1.0])
    assert none.accuracy.estimate == some.draft_right.mean() and none.target_share == none.wasted == 0.0
    assert everything.accuracy.estimate == some.target_right.mean() and everything.target_share == 1.0
    assert everything.wasted == pytest.approx(np.mean(~(some.target_right & ~some.draft_right)))
    assert half.rate == 0.5 and half.accuracy.low < half.accuracy.estimate < half.accuracy.high


def test_ties_are_broken_at_random_and_unusable_scores_are_worst() -> None:
    assert escalations(np.zeros(50), 0.4).sum() == 20
    assert not np.array_equal(escalations(np.zeros(50), 0.4, 1), escalations(np.zeros(50), 0.4, 2))
    assert escalations(np.array([0.1, np.nan, 0.3]), 1 / 3).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="rate=1.5"):
        escalations(np.zeros(2), 1.5)


def test_a_better_score_gains_over_chance() -> None:
    some = outcomes(600)
    advantage = some.target_right.astype(float) - some.draft_right
    found = gain_over(some, np.zeros(600), -advantage, 0.25)
    assert 0 < found.low < found.estimate < found.high
    same = gain_over(some, advantage, advantage, 0.25)
    assert same.estimate == 0.0 and same.low <= 0.0 <= same.high


def test_costs() -> None:
    assert cost(0.15, 0.05, 0.2) == pytest.approx(0.4) and cost(0.15, 0.05, 0.2, 0.5) == pytest.approx(0.5)
    assert cost(0.2, 0.1, break_even(0.2, 0.1, 0.4), 0.4) == pytest.approx(1.0)
    assert break_even(0.9, 0.2) == 0.0
