"""Scores like those of the released A1 runs: later turns are harder, samples of one question alike, hard ones last."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

# Share of drafts below the level that cuts off 40 % at turn 0.
TURN_RATES = (0.40, 0.28, 0.39, 0.45, 0.465, 0.475, 0.48, 0.475, 0.46, 0.45, 0.49, 0.53, 0.565, 0.59, 0.61)
CORRELATION = 0.6  # within a question


class Stream(NamedTuple):
    """Each (T,), in the order of decisions."""

    score: np.ndarray
    turn: np.ndarray
    question: np.ndarray


def drifting_stream(seed: int, questions: int = 100, samples: int = 16, by_turn: bool = True) -> Stream:
    """One question after the other; within one, turn by turn, or else sample by sample."""
    random = np.random.default_rng(seed)
    turns = len(TURN_RATES)
    quantile = NormalDist().inv_cdf
    drift = np.array([quantile(rate) - quantile(TURN_RATES[0]) for rate in TURN_RATES])
    question = np.sqrt(CORRELATION) * random.standard_normal((questions, 1, 1))
    noise = np.sqrt(1 - CORRELATION) * random.standard_normal((questions, samples, turns))
    score = -(question + noise + drift)
    # One sample in ten mostly goes to the last turns, the others stop after four on average.
    stops = np.where(np.arange(samples) % 10 == 0, 0.07, 0.26)[None, :, None]
    stopped = random.random((questions, samples, turns)) < stops
    asked = np.cumsum(np.roll(stopped, 1, axis=2) & (np.arange(turns) > 0), axis=2) == 0
    index = np.indices(score.shape)
    fields = [score, index[2], index[0], asked]
    if by_turn:
        fields = [field.swapaxes(1, 2) for field in fields]
    score, turn, number, asked = (field.reshape(-1) for field in fields)
    return Stream(score[asked].astype(np.float32), turn[asked].astype(np.int32), number[asked].astype(np.int32))
