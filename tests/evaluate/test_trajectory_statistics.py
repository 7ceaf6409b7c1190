"""Counts of hand-made trajectories, and the equivalence of the two ways to say what a stationary token is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.evaluate.trajectory_statistics import (
    fast_forwarded,
    fast_forwarded_tokens,
    reached,
    right_in_a_row,
    settled,
    stationary_tokens,
    summary,
)

# Right tokens are 1 to 6. Token 5 is right for a moment and then from iteration 2 on; token 3 comes with token 2.
MIXED = np.array(
    [
        [0, 0, 0, 0, 5, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 2, 3, 0, 5, 0],
        [1, 2, 3, 4, 5, 0],
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6],
    ]
)
ONE_BY_ONE = np.array([[9, 9, 9], [1, 9, 9], [1, 2, 9], [1, 2, 3]])
AT_ONCE = np.array([[9, 9, 9], [1, 2, 3], [1, 2, 3], [1, 2, 3]])
FROM_THE_START = np.array([[1, 2, 3]] * 4)


def test_a_mixed_trajectory() -> None:
    assert settled(MIXED).tolist() == [1, 2, 2, 3, 2, 4]
    assert reached(MIXED).tolist() == [1, 2, 2, 3, 3, 4]
    assert right_in_a_row(MIXED).tolist() == [0, 1, 3, 5, 6, 6, 6]
    assert stationary_tokens(MIXED).tolist() == [False, False, False, False, True, False]
    assert fast_forwarded_tokens(MIXED).tolist() == [False, False, True, False, True, False]
    assert fast_forwarded(MIXED) == 6 / 4


def test_the_ends_of_the_scale() -> None:
    assert fast_forwarded(ONE_BY_ONE) == 1 and not stationary_tokens(ONE_BY_ONE).any()
    assert fast_forwarded(AT_ONCE) == 3 and not stationary_tokens(AT_ONCE).any()
    assert fast_forwarded_tokens(AT_ONCE).tolist() == [False, True, True]
    assert np.isnan(fast_forwarded(FROM_THE_START)) and settled(FROM_THE_START).tolist() == [0, 0, 0]
    known_first = ONE_BY_ONE.copy()
    known_first[0, 0] = 1  # as where the first token is known beforehand: two tokens in three iterations, then one
    assert settled(known_first).tolist() == [0, 2, 3] and fast_forwarded(known_first) == 2 / 3


def test_leading_axes_and_repeated_fixed_points_change_nothing() -> None:
    batch = np.stack([ONE_BY_ONE, AT_ONCE])[None]
    assert fast_forwarded(batch).tolist() == [[1, 3]]
    longer = np.concatenate([MIXED, MIXED[-1:]])
    assert settled(longer).tolist() == settled(MIXED).tolist() and fast_forwarded(longer) == fast_forwarded(MIXED)


@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_stationary_tokens_outlast_those_that_came_with_the_prefix(seed: int, n: int) -> None:
    """The published counter: right in more last iterations than a token has that came right with its prefix."""
    rng = np.random.default_rng(seed)
    fixed = rng.integers(0, 3, n)
    iterates = [rng.integers(0, 3, n)]
    for j in range(1, n + 1):  # as in Jacobi iteration, a prefix stays right and grows
        grown = max(j, int(right_in_a_row(np.stack([iterates[-1], fixed]))[0]))
        iterates.append(np.where(np.arange(n) < grown, fixed, rng.integers(0, 3, n)))
    history = np.stack(iterates)
    counter, due = np.zeros(n, int), np.zeros(n, int)
    for iterate in history:
        right = iterate == fixed
        counter = np.where(right, counter + 1, 0)
        prefix = int(np.cumprod(right).sum())
        due[:prefix] += 1
    np.testing.assert_array_equal(stationary_tokens(history), counter > due)
    assert (reached(history) <= np.arange(1, n + 1)).all()


def test_summary_takes_means_of_means() -> None:
    iterates = np.stack([np.stack([ONE_BY_ONE, AT_ONCE]), np.stack([AT_ONCE, np.zeros_like(AT_ONCE)])])
    passes = np.array([[3, 2], [2, 0]])
    out = summary(iterates, passes)
    assert out.requests == 2 and out.blocks == 3
    assert out.tokens_per_forward == 9 / 7
    assert out.fast_forwarded == ((1 + 3) / 2 + 3) / 2
    assert out.iterations == ((3 + 1) / 2 + 1) / 2
    assert out.stationary == 0
    start = summary(FROM_THE_START[None, None], np.array([[1]]))
    assert start.tokens_per_forward == 3 and start.iterations == 0 and np.isnan(start.fast_forwarded)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"iterates of shape \(4, 3\)"):
        summary(ONE_BY_ONE, np.array([[1]]))
    with pytest.raises(ValueError, match="no block with a pass"):
        summary(ONE_BY_ONE[None, None], np.array([[0]]))
