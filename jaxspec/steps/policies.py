"""Policies: who writes a problem's steps. RSD, ARBITRAGE and its oracle, A1, and the baselines they are measured by.

Thresholds are numbers or calibrators: `arbitrage(conformal.adaptive_conformal(reject_rate=0.3))` holds a budget of
target calls where `arbitrage(0.5)` holds a line. Equality is settled as each paper writes it. A number is data of the
compiled program, so policies that differ in theirs alone share one; the oracle's margin is not.
"""

import math
import numbers
from typing import Any

from jaxspec.conformal import Calibrator, adaptive_conformal, fixed
from jaxspec.decode.whole_number import integer
from jaxspec.steps.scorers import AdvantageRouter, Likelihood, RandomScore, RewardModel
from jaxspec.steps.types import Policy, Scorer
from jaxspec.steps.weighted import weighted
from jaxspec.steps.weights import Weight

Threshold = float | Calibrator


def draft_only() -> Policy:
    """The draft writes everything."""
    return Policy("draft_only")


def target_only() -> Policy:
    """The target writes everything."""
    return Policy("target_only", first="target")


def rsd(threshold: Threshold | Weight = 0.7, scorer: Scorer | None = None) -> Policy:
    """Reward-guided speculative decoding (arXiv 2501.19324): keeps a draft step iff its reward is at least `threshold`.

    Args:
      threshold: of the reward; or a weight function, such as `steps.weights.logistic(0.7)`, for a step to stay with
        the probability it gives to the reward, drawn by seed, problem and turn; or a calibrator.
      scorer: None for a process reward model.

    Raises:
      ValueError: the threshold is nothing of the kind.
    """
    return Policy("rsd", scorer or RewardModel(), _calibrator(threshold))


def arbitrage(threshold: Threshold = 0.5, scorer: Scorer | None = None) -> Policy:
    """ARBITRAGE (arXiv 2512.05033): hands a step over iff the router expects more than `threshold` of the target.

    Args:
      threshold: of the router's output, in whatever unit it `expects`; or a calibrator, which sees its negative.
      scorer: None for a binary router.

    Raises:
      ValueError: the threshold is neither a number nor a calibrator.
    """
    line = -float(threshold) if isinstance(threshold, numbers.Real) else threshold
    return Policy("arbitrage", scorer or AdvantageRouter(), _calibrator(line, weights=False))


def oracle(threshold: float = 0.0, scorer: Scorer | None = None) -> Policy:
    """ARBITRAGE's oracle: both models write every step, the target's stays iff it scores more than `threshold` above.

    Args:
      threshold: margin of the scores; above 0 it saves target steps a router of the same margin would.
      scorer: None for a process reward model.

    Raises:
      ValueError: the threshold is not a number.
    """
    if not isinstance(threshold, numbers.Real) or math.isnan(threshold):
        raise ValueError(f"threshold={threshold!r} is not a number; give a margin on the scale of the scores")
    return Policy("oracle", scorer or RewardModel(), fixed(math.inf), on_escalation="compare", margin=float(threshold))


def random(rate: float) -> Policy:
    """Hands over a share `rate` of the steps, whatever they say.

    Raises:
      ValueError: the rate is outside [0, 1].
    """
    _check_rate("rate", rate)
    return Policy("random", RandomScore(), fixed(rate))


def a1(
    reject_rate: float = 0.4,
    samples: int = 16,
    turns: int = 15,
    chunk: int = 64,
    *,
    target_chunk: int | None = None,
    calibrator: Calibrator | None = None,
    overflow: str = "wait",
    resample: bool = False,
    groups: str = "turn",
) -> Policy:
    """A1 (arXiv 2509.15148): the target writes on behind draft chunks it finds unlikely, at a rate that holds.

    Args:
      reject_rate: share of the chunks to hand over; a `calibrator` has its own.
      samples: of every question: parallel scaling.
      turns: draft chunks of every sample: sequential scaling.
      chunk: tokens the draft writes a turn.
      target_chunk: tokens the target writes on; None for as many.
      calibrator: from `jaxspec.conformal`, decides by the chunk's mean log-probability under the target. None for
        adaptive conformal inference with a bank and a level for every turn.
      overflow: what to do where more chunks are to be handed over than the target has places: `wait` for a place,
        which keeps the rate; or `accept` the drafts, all but the unlikeliest, which keeps the pace. Accepted drafts
        are not made up for later, so the rate may come out lower. Which chunks meet in a tick depends on lanes, target
        lanes and the other samples; so, with `accept`, do texts, even with a calibrator that learns nothing.
      resample: discard an unlikely chunk and let the target write it anew, instead of writing on behind it.
      groups: what the calibrator tells apart: `turn`, `question` or `none`.

    Raises:
      ValueError: a rate outside [0, 1], a count below 1, an unknown `overflow` or `groups`, a `calibrator` that is
        none, or groups other than turns without a calibrator of their own.
    """
    _check_rate("reject_rate", reject_rate)
    _check_counts(samples=samples, turns=turns, chunk=chunk, target_chunk=target_chunk)
    for name, value, known in (
        ("overflow", overflow, ("wait", "accept")),
        ("groups", groups, ("turn", "question", "none")),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r} is not one of {', '.join(known)}")
    if calibrator is None and groups == "question":
        raise ValueError("groups='question' needs calibrator=adaptive_conformal(groups=...) with as many as questions")
    if calibrator is not None and not isinstance(calibrator, Calibrator):
        raise ValueError(f"calibrator={calibrator!r} is no calibrator; take one from jaxspec.conformal, or None")
    return Policy(
        "a1",
        Likelihood(),
        calibrator or adaptive_conformal(reject_rate, groups=turns if groups == "turn" else 1),
        on_escalation="replace" if resample else "continue",
        groups=groups,
        decide_finished=False,
        overflow=overflow,
        samples=samples,
        turns=turns,
        chunk=chunk,
        target_chunk=target_chunk,
    )


def synchronous(
    reject_rate: float, samples: int | None = None, turns: int | None = None, chunk: int | None = None
) -> Policy:
    """What A1 replaces: the worst share of every question's chunks goes to the target, by rank, behind a barrier.

    The samples of a question start together, go from turn to turn together, and end before the next takes their
    lanes: a rank needs them all. `solve` refuses a question of one sample, which has no rank.

    Args:
      reject_rate: share of the chunks to hand over, rounded to whole samples of a question.
      samples, turns, chunk: as in `a1`; None for what `solve` is told.

    Raises:
      ValueError: the rate is outside [0, 1], or a count is below 1.
    """
    _check_rate("reject_rate", reject_rate)
    _check_counts(samples=samples, turns=turns, chunk=chunk)
    return Policy(
        "synchronous",
        Likelihood(),
        None,
        on_escalation="continue",
        decide_finished=False,
        ranked=reject_rate,
        samples=samples,
        turns=turns,
        chunk=chunk,
    )


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and integer(name, count) < 1:
            raise ValueError(f"{name}={count} is below 1")


def _check_rate(name: str, rate: Any) -> None:
    if not isinstance(rate, numbers.Real) or not 0 <= float(rate) <= 1:
        raise ValueError(f"{name}={rate!r} is not between 0 and 1")


def _calibrator(threshold: Any, weights: bool = True) -> Calibrator:
    """Who decides by a threshold, a calibrator or, with `weights`, a weight function."""
    if isinstance(threshold, numbers.Real):
        return fixed(float(threshold))
    if isinstance(threshold, Calibrator):
        return threshold
    if weights and isinstance(threshold, tuple) and callable(threshold):  # a named tuple, as all weight functions are
        return weighted(threshold)
    others = ", a function from jaxspec.steps.weights" if weights else ""
    raise ValueError(
        f"threshold={threshold!r} is no threshold; give a number{others} or a calibrator from jaxspec.conformal"
    )
