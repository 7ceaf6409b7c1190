"""One answer from many samples of a question, and how often one of them would have been right.

Samples are grouped by answer: `number_answers` gives equal answers equal numbers, and "no answer" `NO_ANSWER`, which
never wins. Every rule returns the place of a sample that states the winner, or `NO_ANSWER` where no sample has an
answer. Ties go to the answer stated first, so that a result depends on the samples and their order alone.

Shapes: Q questions, M samples of each. NumPy, on the host.
"""

from collections.abc import Hashable, Sequence

import numpy as np

NO_ANSWER = -1
SHORTEST = 2.0  # tokens; keeps logarithms of lengths positive


def number_answers(answers: Sequence[Sequence[Hashable | None]]) -> np.ndarray:
    """(Q, M) int64 numbers of answers, counted anew in each question; None becomes `NO_ANSWER`.

    Raises:
      ValueError: questions differ in the number of their samples.
    """
    if len({len(row) for row in answers}) > 1:
        raise ValueError(
            f"questions have {sorted({len(row) for row in answers})} samples; give each as many, None-filled"
        )
    numbered = np.full((len(answers), len(answers[0]) if answers else 0), NO_ANSWER, np.int64)
    for row, given in enumerate(answers):
        known: dict[Hashable, int] = {}
        for column, answer in enumerate(given):
            if answer is not None:
                numbered[row, column] = known.setdefault(answer, len(known))
    return numbered


def majority_vote(answers: np.ndarray) -> np.ndarray:
    """(Q,) places of samples with the most frequent of `answers` (Q, M)."""
    return weighted_vote(answers, np.ones(answers.shape))


def weighted_vote(answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(Q,) places of samples with the answer whose samples weigh most together.

    Args:
      answers: (Q, M) numbers.
      weights: (Q, M) at least 0, such as a scorer's; those that are not finite count as 0.

    Raises:
      ValueError: shapes differ, or a weight is negative.
    """
    weights = np.asarray(weights, np.float64)
    _check_shapes(answers, weights, "weights")
    if (weights < 0).any():
        raise ValueError(f"weight {weights.min()} is negative; a vote must not speak against its own answer")
    weights = np.where(np.isfinite(weights), weights, 0.0)
    return _first_best(answers, _together(answers, weights))


def shortest_majority_vote(answers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(Q,) places of samples with the answer of most votes a log-length: n / log(mean length of its n samples).

    Shortest Majority Vote of Zeng et al. (arXiv 2502.12215): of answers with as many votes, that of the shorter
    reasoning wins.

    Args:
      answers: (Q, M) numbers.
      lengths: (Q, M) tokens of each sample, at least 1; means below 2 count as 2.

    Raises:
      ValueError: shapes differ, or a length is below 1.
    """
    lengths = np.asarray(lengths, np.float64)
    _check_shapes(answers, lengths, "lengths")
    if not (lengths >= 1).all():
        raise ValueError(f"length {lengths.min()} is below 1 token")
    votes = _together(answers, np.ones(answers.shape))
    mean = _together(answers, lengths) / votes
    return _first_best(answers, votes / np.log(np.maximum(mean, SHORTEST)))


def best_of_n(answers: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(Q,) places of the sample of the highest score among those with an answer; the first of equal ones.

    Args:
      answers: (Q, M) numbers.
      scores: (Q, M); those that are not finite are worse than all others.

    Raises:
      ValueError: shapes differ.
    """
    scores = np.asarray(scores, np.float64)
    _check_shapes(answers, scores, "scores")
    return _first_best(answers, np.where(np.isfinite(scores), scores, np.finfo(np.float64).min))


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """(Q,) float64 probability that k of a question's samples, drawn without replacement, include a correct one.

    Unbiased for k fresh samples: 1 - C(n - c, k) / C(n, k), c of n correct (Chen et al., arXiv 2107.03374).

    Args:
      correct: (Q, M) bool.

    Raises:
      ValueError: k is not between 1 and M.
    """
    correct = np.asarray(correct, bool)
    samples = correct.shape[1]
    if not 1 <= k <= samples:
        raise ValueError(f"k={k} must lie between 1 and the {samples} samples of a question")
    wrong = samples - correct.sum(axis=1, keepdims=True)
    drawn = np.arange(k)
    return 1.0 - np.prod(np.maximum(wrong - drawn, 0) / (samples - drawn), axis=1)


def is_winner_correct(winner: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(Q,) bool whether the sample at `winner` (Q,) is one of `correct` (Q, M); no answer is not."""
    chosen = np.take_along_axis(np.asarray(correct, bool), np.maximum(winner, 0)[:, None], axis=1)[:, 0]
    return chosen & (winner != NO_ANSWER)


def _together(answers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(Q, M) float64 for each sample, the sum of `values` over all samples of its answer, the same for all of them."""
    same = answers[:, :, None] == answers[:, None, :]
    return np.sum(np.where(same, values[:, None, :], 0.0), axis=2)


def _first_best(answers: np.ndarray, merit: np.ndarray) -> np.ndarray:
    """(Q,) first place of the largest merit among samples with an answer, `NO_ANSWER` if there is none."""
    answered = answers != NO_ANSWER
    if answers.shape[1] == 0:
        return np.full(len(answers), NO_ANSWER)
    best = np.argmax(np.where(answered, merit, -np.inf), axis=1)
    return np.where(answered.any(axis=1), best, NO_ANSWER)


def _check_shapes(answers: np.ndarray, values: np.ndarray, name: str) -> None:
    if answers.shape != values.shape:
        raise ValueError(f"{name} have shape {values.shape}, the answers {answers.shape}")
