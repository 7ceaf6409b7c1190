"""Cleaning and augmentation, against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.train.augment import augment, clean, longest_repetition
from jaxspec.train.trajectories import Trajectories


def trajectories_of(answers: list[list[int]], prompt: list[int]) -> Trajectories:
    sequence = len(prompt) + max(map(len, answers))
    tokens = np.array([prompt + answer + [0] * (sequence - len(prompt) - len(answer)) for answer in answers])
    count = len(answers)
    return Trajectories(
        tokens=tokens,
        prompt_length=np.full(count, len(prompt)),
        length=np.array([len(prompt) + len(answer) for answer in answers]),
        states=np.zeros((count, 1, 3, 2), int),
        count=np.arange(count)[:, None] + 1,
        converged=np.ones((count, 1), bool),
    )


def slowest_repetition(tokens: list[int], period: int) -> int:
    best = run = min(period, len(tokens))
    for place in range(period, len(tokens)):
        run = run + 1 if tokens[place] == tokens[place - period] else period
        best = max(best, run)
    return best


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(0, 5), st.integers(0, 4), st.integers(1, 4))
def test_repetition_is_that_of_a_walk(tokens, before, behind, period):
    padded = np.array([[1] * before + tokens + [1] * behind], int)
    found = longest_repetition(padded, np.array([before]), np.array([before + len(tokens)]), period)
    assert found.tolist() == [slowest_repetition(tokens, period)]


def test_ten_equal_tokens_are_dropped_and_nine_kept():
    answers = [[1, *[2] * 9, 3], [1, *[2] * 10, 3], [4, 5, 6]]
    kept, dropped = clean(trajectories_of(answers, prompt=[7] * 12))  # a prompt may repeat itself
    assert dropped == 1
    assert kept.count[:, 0].tolist() == [1, 3]
    assert all(len(field) == 2 for field in kept)


def test_phrases_are_dropped_where_asked():
    answers = [[1, 2, 3] * 4, [1, 2, 3] * 3 + [1, 2, 4]]
    assert clean(trajectories_of(answers, [9]), repeats=4)[1] == 0
    kept, dropped = clean(trajectories_of(answers, [9]), repeats=4, longest_phrase=3)
    assert dropped == 1 and kept.count[:, 0].tolist() == [2]


class Recorded:
    """Hands out the same draws to two implementations."""

    def __init__(self, draws: np.ndarray) -> None:
        self.draws, self.used = draws, 0

    def random(self, shape) -> np.ndarray:
        assert shape == self.draws.shape[1:]
        self.used += 1
        return self.draws[self.used - 1]


def slow_augment(states: np.ndarray, count: int, draws: np.ndarray) -> np.ndarray:
    """One trajectory (K, n) state by state, with draws (n // 2, K)."""
    states = states.copy()
    fixed = states[count - 1]
    for index in range(count - 2):
        wrong = np.flatnonzero(states[index] != fixed)
        for draw in range(len(wrong) // 2):
            later = wrong[1:]
            place = later[int(draws[draw, index] * len(later))]
            states[index, place] = fixed[place]
    return states


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_augmentation_is_that_of_a_loop(seed, block):
    random = np.random.default_rng(seed)
    states = random.integers(0, 3, (2, 3, block + 1, block))
    count = random.integers(1, block + 2, (2, 3))
    draws = random.random((block // 2, 2, 3, block + 1))
    found = augment(states, count, Recorded(draws))  # type: ignore[arg-type]
    for lane, place in np.ndindex(2, 3):
        expected = slow_augment(states[lane, place], count[lane, place], draws[:, lane, place])
        np.testing.assert_array_equal(found[lane, place], expected)


def test_augmentation_corrects_behind_the_first_wrong_token_alone():
    random = np.random.default_rng(0)
    states, count = random.integers(0, 4, (50, 2, 9, 8)), np.full((50, 2), 7)
    found = augment(states, count, random)
    fixed = states[:, :, 6:7]
    changed = found != states
    wrong = states != fixed
    first = wrong & (np.cumsum(wrong, axis=-1) == 1)
    assert changed[:, :, :5].any()
    assert not changed[:, :, 5:].any()  # the last two states, and what stands behind them
    assert not changed[first].any() and not changed[~wrong].any()
    assert (found == np.broadcast_to(fixed, found.shape))[changed].all()
    assert (changed.sum(axis=-1) <= wrong.sum(axis=-1) // 2).all()


def test_bad_rules_are_refused():
    data = trajectories_of([[1, 2]], [3])
    with pytest.raises(ValueError, match="repeats=1 is below 2"):
        clean(data, repeats=1)
    with pytest.raises(ValueError, match="longest_phrase=0 is below 1"):
        clean(data, longest_phrase=0)
    with pytest.raises(ValueError, match="period=0 is below 1"):
        longest_repetition(data.tokens, data.prompt_length, data.length, 0)
