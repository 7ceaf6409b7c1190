"""Voting against counting by hand, pass@k against enumeration, ties and missing answers."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxspec
from jaxspec.steps.aggregate import (
    NO_ANSWER,
    best_of_n,
    is_winner_correct,
    majority_vote,
    number_answers,
    pass_at_k,
    shortest_majority_vote,
    weighted_vote,
)

ANSWERS = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=8)


def merits(answers: list[str | None], lengths: list[int], weights: list[float]) -> dict[str, dict[str, float]]:
    """Rule to answer to merit."""
    votes = Counter(answer for answer in answers if answer is not None)
    mean = {a: np.mean([n for n, other in zip(lengths, answers, strict=True) if other == a]) for a in votes}
    return {
        "majority": dict(votes),
        "weighted": {a: sum(w for w, other in zip(weights, answers, strict=True) if other == a) for a in votes},
        "shortest": {a: votes[a] / math.log(max(2.0, float(mean[a]))) for a in votes},
    }


@given(ANSWERS, st.data())
def test_votes_are_those_counted_by_hand(answers: list[str | None], data: st.DataObject) -> None:
    count = len(answers)
    lengths = data.draw(st.lists(st.sampled_from([1, 2, 7, 40]), min_size=count, max_size=count))
    weights = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 2.0]), min_size=count, max_size=count))
    numbers = number_answers([answers])
    found = {
        "majority": majority_vote(numbers),
        "weighted": weighted_vote(numbers, np.array([weights])),
        "shortest": shortest_majority_vote(numbers, np.array([lengths])),
    }
    for rule, merit in merits(answers, lengths, weights).items():
        at = int(found[rule][0])
        if not merit:
            assert at == NO_ANSWER
            continue
        top = max(merit.values())
        tied = {answer for answer, value in merit.items() if math.isclose(value, top, rel_tol=1e-12)}
        assert at == min(answers.index(answer) for answer in tied), rule


@pytest.mark.parametrize("correct", range(7))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(correct: int) -> None:
    row = np.arange(6) < correct
    for k in range(1, 7):
        shares = [any(subset) for subset in itertools.combinations(row, k)]
        np.testing.assert_allclose(pass_at_k(row[None], k), [np.mean(shares)], atol=1e-12)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_pass_at_k_laws(rows: list[list[bool]]) -> None:
    correct = np.array(rows)
    curve = np.array([pass_at_k(correct, k) for k in range(1, 6)])
    np.testing.assert_allclose(curve[0], correct.mean(axis=1))
    np.testing.assert_array_equal(curve[-1], correct.any(axis=1))
    assert (np.diff(curve, axis=0) >= -1e-12).all()


def test_pass_at_k_is_unbiased() -> None:
    rate, k = 0.15, 4
    correct = np.random.default_rng(0).random((20_000, 10)) < rate
    estimate = pass_at_k(correct, k)
    error = estimate.std() / math.sqrt(len(estimate))
    assert abs(estimate.mean() - (1 - (1 - rate) ** k)) < 4 * error


def test_pass_at_k_holds_for_many_samples() -> None:
    correct = np.zeros((1, 20_000), bool)
    correct[0, :3] = True
    expected = 1 - (10_000 * 9_999 * 9_998) / (20_000 * 19_999 * 19_998)
    np.testing.assert_allclose(pass_at_k(correct, 10_000), [expected], rtol=1e-9)


@given(st.lists(st.lists(st.sampled_from(["1", "2", None]), min_size=4, max_size=4), min_size=1, max_size=5))
def test_no_vote_beats_pass_at_n(rows: list[list[str | None]]) -> None:
    numbers = number_answers(rows)
    correct = np.array([[answer == "1" for answer in row] for row in rows])
    right = is_winner_correct(majority_vote(numbers), correct)
    assert (right <= pass_at_k(correct, 4)).all()


def test_answers_are_numbered_in_each_question() -> None:
    numbers = number_answers([["a", "b", "a"], [None, "b", (1, 2)]])
    assert numbers.tolist() == [[0, 1, 0], [NO_ANSWER, 0, 1]]
    assert number_answers([]).shape == (0, 0)


def test_ties_go_to_the_answer_stated_first() -> None:
    numbers = number_answers([["x", "a", "b", "b", "a"], ["b", "a", "a", "b", None]])
    assert majority_vote(numbers).tolist() == [1, 0]
    lengths = np.array([[9, 100, 9, 9, 100]] * 2)
    assert shortest_majority_vote(numbers[:1], lengths[:1]).tolist() == [2]


def test_broken_weights_and_scores_are_the_worst() -> None:
    numbers = number_answers([["a", "b", "c"]])
    assert weighted_vote(numbers, np.array([[np.inf, 0.1, np.nan]])).tolist() == [1]
    assert best_of_n(numbers, np.array([[np.inf, -1e300, np.nan]])).tolist() == [1]
    assert best_of_n(numbers, np.array([[np.nan, np.nan, np.nan]])).tolist() == [0]


def test_best_of_n_takes_the_first_best_that_has_an_answer() -> None:
    numbers = number_answers([[None, "a", "b", "b"], [None] * 4])
    assert best_of_n(numbers, np.array([[9.0, 1.0, 2.0, 2.0]] * 2)).tolist() == [2, NO_ANSWER]


def test_questions_without_an_answer_are_not_right() -> None:
    assert is_winner_correct(np.array([NO_ANSWER, 1]), np.array([[True, True], [False, True]])).tolist() == [
        False,
        True,
    ]


def test_bad_input_is_refused() -> None:
    numbers = number_answers([["a", "b"]])
    with pytest.raises(ValueError, match="samples"):
        number_answers([["a"], ["a", "b"]])
    with pytest.raises(ValueError, match="weight -1"):
        weighted_vote(numbers, np.array([[1.0, -1.0]]))
    with pytest.raises(ValueError, match="weights have shape"):
        weighted_vote(numbers, np.ones((1, 3)))
    with pytest.raises(ValueError, match="length 0"):
        shortest_majority_vote(numbers, np.array([[0, 4]]))
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k={k}"):
            pass_at_k(np.ones((1, 2), bool), k)


def test_rules_are_part_of_the_public_interface() -> None:
    assert jaxspec.steps.aggregate.majority_vote is majority_vote and "aggregate" in jaxspec.steps.__all__
