"""Collapse monitors: training that ruins the model stops early and says how.

Consistency training can teach a model to say one token over and over, which is perfectly consistent. It shows first
as a fall of the accuracy on the clean text, then as repetition, while the consistency loss looks better than ever.
A short dip is normal; what counts is a level that stays bad.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxspec.train.augment import REPEATS


@dataclasses.dataclass(frozen=True)
class CollapseLimits:
    """Attributes:
    accuracy_drop: how far `ar_accuracy` may fall below its level at the start.
    repetition_rise: how far `repetition` may rise above `data_repetition`.
    repetitive_answers: how far `held_out_repetition`, the share of answers written freely that say one token over
      and over, may rise above `base_repetition`; two such observations in a row end the run.
    start: observations that make the level at the start.
    patience: bad observations in a row before training stops.
    """

    accuracy_drop: float = 0.3
    repetition_rise: float = 0.3
    repetitive_answers: float = 0.5
    start: int = 5
    patience: int = 20

    def __post_init__(self) -> None:
        for name in ("accuracy_drop", "repetition_rise", "repetitive_answers"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and at most 1")
        for name in ("start", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1; a monitor needs at least one observation")


class CollapseState(NamedTuple):
    """What a monitor remembers.

    Attributes:
      seen: observations so far.
      accuracy: sum of `ar_accuracy` over those at the start.
      inaccurate, repetitive, babbling: bad observations in a row, the last of answers written freely.
    """

    seen: int = 0
    accuracy: float = 0.0
    inaccurate: int = 0
    repetitive: int = 0
    babbling: int = 0


def observe(
    limits: CollapseLimits, state: CollapseState, step: int, metrics: Mapping[str, float]
) -> tuple[CollapseState, str | None]:
    """The state after one more observation, and why training should stop, or None.

    Args:
      limits: when to stop.
      state: `CollapseState()` at the start.
      step: for the message.
      metrics: `ar_accuracy`, `repetition` and `data_repetition` as the objective of `consistency` gives them, and
        `held_out_repetition` and `base_repetition` when answers have been written.

    Raises:
      KeyError: a metric is missing.
    """
    accuracy = float(metrics["ar_accuracy"])
    repetition, natural = float(metrics["repetition"]), float(metrics["data_repetition"])
    total = state.accuracy + (accuracy if state.seen < limits.start else 0.0)
    level = total / min(state.seen + 1, limits.start)
    lowest = level - limits.accuracy_drop
    # Comparisons that NaN fails: it counts as bad.
    inaccurate = 0 if accuracy >= lowest else state.inaccurate + 1
    repetitive = 0 if repetition <= natural + limits.repetition_rise else state.repetitive + 1
    free, before = float(metrics.get("held_out_repetition", 0.0)), float(metrics.get("base_repetition", 0.0))
    babbling = state.babbling
    if "held_out_repetition" in metrics:
        babbling = 0 if free <= before + limits.repetitive_answers else babbling + 1
    objection = None
    if inaccurate >= limits.patience:
        objection = (
            f"accuracy on clean answers fell from {level:.3f} to {accuracy:.3f} and stayed below {lowest:.3f} for "
            f"{inaccurate} observations up to step {step}: the model is collapsing; raise ar_weight, lower the "
            "learning rate, or start another run from an earlier checkpoint (weights)"
        )
    elif repetitive >= limits.patience:
        objection = (
            f"{repetition:.1%} of neighbouring tokens the model says are equal, against {natural:.1%} in the answers, "
            f"for {repetitive} observations up to step {step}: the model is collapsing into repetition; clean the "
            "trajectories, raise ar_weight, or start another run from an earlier checkpoint (weights)"
        )
    elif babbling >= 2:
        objection = (
            f"{free:.1%} of the answers at step {step} say one token {REPEATS} times in a row or more, against "
            f"{before:.1%} of the base's: the model is collapsing into repetition; clean the trajectories, raise "
            "ar_weight, or start another run from an earlier checkpoint (weights)"
        )
    return CollapseState(state.seen + 1, total, inaccurate, repetitive, babbling), objection


class CollapseMonitor:
    """A `Monitor` of the trainer: `(step, metrics) -> ` why training should stop, or None.

    Attributes:
      limits: when to stop.
      state: after the last observation.
    """

    def __init__(
        self, limits: CollapseLimits | None = None, history: Iterable[tuple[int, Mapping[str, float]]] = ()
    ) -> None:
        """Starts anew, or where a run stopped.

        Args:
          limits: None for the defaults.
          history: (step, metrics) of the steps already done, of a run that is resumed.
        """
        self.limits = CollapseLimits() if limits is None else limits
        self.state = CollapseState()
        for step, metrics in history:
            self(step, metrics)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> str | None:
        self.state, objection = observe(self.limits, self.state, step, metrics)
        return objection


def repetition_rate(answers: Sequence[Sequence[int]], repeats: int = REPEATS) -> float:
    """Share of answers in which one token stands `repeats` times in a row; 0 of none.

    Args:
      answers: token ids.
      repeats: how often in a row is too often.
    """
    if not answers:
        return 0.0
    longest = [max((len(list(run)) for _, run in itertools.groupby(answer)), default=0) for answer in answers]
    return sum(length >= repeats for length in longest) / len(answers)
