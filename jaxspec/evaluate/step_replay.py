"""Whole curves from stored paired traces: what a policy would have done at every step, at any rate, for one run.

Both steps of every stored context are known, so are their scores; a policy's decision there costs nothing. What is
right of the curves is the step: accuracy, waste and cost a step, on the contexts of the greedy oracle. What a policy
does to the contexts of its own later steps, and so to final answers, only a rollout tells (`frontier`).

N steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxspec.evaluate.intervals import Interval, clustered_proportion, paired_difference
from jaxspec.train.step_traces import StepTraces


class StepOutcomes(NamedTuple):
    """Attributes:
    draft_right, target_right: (N,) bool.
    draft_tokens, target_tokens: (N,) int of both steps.
    problem: (N,) int that the step is of.
    """

    draft_right: np.ndarray
    target_right: np.ndarray
    draft_tokens: np.ndarray
    target_tokens: np.ndarray
    problem: np.ndarray


class ReplayPoint(NamedTuple):
    """Attributes:
    rate: share of steps handed over.
    accuracy: of steps, with its interval over problems.
    target_share: tokens the target writes, of those it would write alone.
    wasted: share of the escalations that gained nothing; 0 without escalations.
    """

    rate: float
    accuracy: Interval
    target_share: float
    wasted: float


def outcomes_of(traces: StepTraces) -> StepOutcomes:
    """What exact scores say of both steps of every context."""
    return StepOutcomes(
        draft_right=traces.draft_score > 0.5,
        target_right=traces.target_score > 0.5,
        draft_tokens=traces.draft_length,
        target_tokens=traces.target_length,
        problem=traces.problem,
    )


def escalations(score: np.ndarray, rate: float, seed: int = 0) -> np.ndarray:
    """(N,) bool the steps of the lowest scores, `rate` of all to the nearest number; ties are broken at random.

    Raises:
      ValueError: the rate is outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate} is not between 0 and 1")
    score = np.where(np.isfinite(score), score, -np.inf)
    order = np.lexsort((np.random.default_rng(seed).random(len(score)), score))
    chosen = np.zeros(len(score), bool)
    chosen[order[: round(rate * len(score))]] = True
    return chosen


def replay(outcomes: StepOutcomes, escalate: np.ndarray) -> ReplayPoint:
    """What comes of handing over the steps `escalate` (N,) bool."""
    right = np.where(escalate, outcomes.target_right, outcomes.draft_right)
    many = int(escalate.sum())
    gains = escalate & outcomes.target_right & ~outcomes.draft_right
    return ReplayPoint(
        rate=many / len(escalate),
        accuracy=clustered_proportion(right.astype(float), outcomes.problem),
        target_share=float(outcomes.target_tokens[escalate].sum() / max(1, outcomes.target_tokens.sum())),
        wasted=1.0 - int(gains.sum()) / many if many else 0.0,
    )


def replay_curve(outcomes: StepOutcomes, score: np.ndarray, rates: Sequence[float], seed: int = 0) -> list[ReplayPoint]:
    """The policy that hands over the lowest of `score` (N,), at every rate."""
    return [replay(outcomes, escalations(score, rate, seed)) for rate in rates]


def gain_over(outcomes: StepOutcomes, first: np.ndarray, second: np.ndarray, rate: float, seed: int = 0) -> Interval:
    """Paired interval of what deciding by `second` (N,) instead of `first` (N,) adds to step accuracy at a rate."""
    right = [
        np.where(escalations(score, rate, seed), outcomes.target_right, outcomes.draft_right).astype(float)
        for score in (first, second)
    ]
    return paired_difference(*right, cluster=outcomes.problem)


def cost(draft_cost: float, scorer_cost: float, rate: float, catch_up: float = 0.0) -> float:
    """Time a token relative to the target alone: c + r + rho (1 + k), a step's draft always being written.

    Args:
      draft_cost: c, time of a draft token in target tokens.
      scorer_cost: r, of scoring.
      rate: rho, share of tokens the target writes.
      catch_up: k, what reading others' text adds to a target step.
    """
    return draft_cost + scorer_cost + rate * (1.0 + catch_up)


def break_even(draft_cost: float, scorer_cost: float, catch_up: float = 0.0) -> float:
    """The rate below which a policy is faster than the target alone; 0 where none is."""
    return max(0.0, (1.0 - draft_cost - scorer_cost) / (1.0 + catch_up))
