"""Accuracy against what it costs, for every policy over its thresholds: rollouts on the same problems, marked alike."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxspec.conformal import adaptive_conformal, fixed
from jaxspec.engine.score_model import ScoringModel
from jaxspec.engine.solution import Solved
from jaxspec.engine.solve import solve
from jaxspec.evaluate.intervals import Interval, paired_difference, proportion
from jaxspec.evaluate.marking import Marking
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps import policies
from jaxspec.steps.scorers import Likelihood
from jaxspec.steps.segmentation import Segmentation
from jaxspec.steps.types import Policy

COLOURS = {"random": "0.6", "likelihood": "#8064a2", "rsd": "#c0504d", "arbitrage": "#2e75b6", "oracle": "#2e8b57"}


@dataclasses.dataclass(frozen=True)
class Contender:
    """A policy and the thresholds to run it at.

    Attributes:
      policy: with any threshold.
      thresholds: as the policy's own paper counts them; None for a policy without one.
      sign: from a threshold to the line that scores must not fall below.
      scorer: the model that the policy reads, if any.
    """

    policy: Policy
    thresholds: tuple[float | None, ...] = (None,)
    sign: float = 1.0
    scorer: LanguageModel | None = None

    def at(self, threshold: float | None) -> Policy:
        """The policy with one of the thresholds; they all run in one program."""
        if threshold is None or self.policy.on_escalation == "compare":
            return self.policy
        return dataclasses.replace(self.policy, calibrator=fixed(self.sign * threshold))


class FrontierPoint(NamedTuple):
    """One policy at one threshold.

    Attributes:
      policy: its name.
      threshold: None without one.
      accuracy: share of problems with the right answer, `low` and `high` its 95 % interval.
      step_accuracy: share of steps that are right given those before; None where only answers are marked.
      escalation: share of the draft's steps that the target replaced; 1 where the target writes alone.
      target_tokens: that the target wrote, kept or not.
      target_calls: steps that the target wrote, kept or not.
      wasted: share of the target's steps that are right no more than the draft's were, 0 without any; None likewise.
      seconds: of the whole run, compilation apart.
    """

    policy: str
    threshold: float | None
    accuracy: float
    low: float
    high: float
    step_accuracy: float | None
    escalation: float
    target_tokens: int
    target_calls: int
    wasted: float | None
    seconds: float


class FrontierRun(NamedTuple):
    """Attributes:
    point: the numbers.
    right: for every problem, whether its answer is right.
    solved: the texts, step by step.
    """

    point: FrontierPoint
    right: tuple[bool, ...]
    solved: list[Solved]


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """How problems are solved.

    Attributes:
      segmentation: of steps.
      max_new_tokens, max_steps: of a problem.
      lanes: problems worked on at once.
      cache: tokens a problem may hold.
      seed: of policies that draw.
    """

    segmentation: Segmentation
    max_new_tokens: int = 96
    max_steps: int = 10
    lanes: int = 8
    cache: int = 256
    seed: int = 0

    def of_solve(self) -> dict[str, Any]:
        """The same for `solve`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def unscored(rates: Sequence[float]) -> list[Contender]:
    """Each model alone, and chance at some escalation `rates`."""
    return [
        Contender(policies.draft_only()),
        Contender(policies.target_only()),
        Contender(policies.random(0.0), tuple(rates)),
    ]


def by_reward(reward: ScoringModel, rates: Sequence[float]) -> Contender:
    """RSD where the reward's own quantiles promise the escalation `rates`, if it has any, and at 0.7, its authors'
    threshold."""
    lines = tuple(sorted({*(reward.line(rate) for rate in rates if reward.quantiles), 0.7}))
    return Contender(policies.rsd(scorer=reward.score), lines, scorer=reward.model)


def by_router(router: ScoringModel, rates: Sequence[float]) -> Contender:
    """ARBITRAGE where the router's own quantiles promise the escalation `rates`."""
    lines = tuple(sorted({-router.line(rate) for rate in rates}, reverse=True))
    return Contender(policies.arbitrage(scorer=router.score), lines, sign=-1.0, scorer=router.model)


def by_likelihood(rates: Sequence[float]) -> list[Contender]:
    """The steps that the target finds least likely are its own, at `rates` that calibrators hold: needs no training."""
    kept = [policies.rsd(adaptive_conformal(rate), Likelihood()) for rate in rates]
    return [Contender(dataclasses.replace(policy, name="likelihood")) for policy in kept]


def frontier(
    draft: LanguageModel,
    target: LanguageModel,
    marking: Marking,
    contending: Sequence[Contender],
    settings: RolloutSettings,
    advance: Callable[[], None] = lambda: None,
) -> list[FrontierRun]:
    """Runs every contender at every threshold on the same problems.

    Args:
      draft, target: the pair.
      marking: the problems, and what their solutions are worth.
      contending: what to run.
      settings: of all runs.
      advance: called after every run.

    Raises:
      ValueError: no problem, or a setting that `solve` refuses.
    """
    prompts = list(marking.prompts)
    if not prompts:
        raise ValueError("there are no problems to solve")
    runs = []
    for contender in contending:
        options, warm = {**settings.of_solve(), "scorer": contender.scorer}, False
        for threshold in contender.thresholds:
            policy = contender.at(threshold)
            if not warm:
                solve(draft, target, policy, prompts[:2], **options)
                warm = True
            solution = solve(draft, target, policy, prompts, **options)
            marks = marking.mark(solution.problems)
            right = marks.right
            low, high = proportion(sum(right), len(right))[1:]
            counted = solution.statistics
            by_draft = [step for one in solution.problems for step in one.steps if step.author == "draft"]
            replaced = counted.steps - len(by_draft)
            compared = policy.on_escalation == "compare"
            point = FrontierPoint(
                policy=policy.name,
                threshold=threshold,
                accuracy=sum(right) / len(right),
                low=low,
                high=high,
                step_accuracy=marks.step_accuracy,
                escalation=replaced / counted.steps,
                target_tokens=counted.target_tokens,
                target_calls=counted.steps if compared else replaced,
                wasted=marks.wasted,
                seconds=solution.seconds,
            )
            runs.append(FrontierRun(point, right, solution.problems))
            advance()
    return runs


def escalation_at(runs: Sequence[FrontierRun], accuracy: float, cost: str = "escalation") -> float | None:
    """The least `cost` at which a policy's points reach an accuracy, by straight lines between points; None if never.

    Args:
      runs: of one policy, with the draft alone as the point of no cost.
      accuracy: to reach.
      cost: field of `FrontierPoint`.
    """
    points = sorted((getattr(run.point, cost), run.point.accuracy) for run in runs)
    for (left, before), (right, after) in zip(points, points[1:], strict=False):
        if before >= accuracy:
            return float(left)
        if after >= accuracy:
            return float(left + (right - left) * (accuracy - before) / (after - before))
    return float(points[-1][0]) if points and points[-1][1] >= accuracy else None


def difference(first: FrontierRun, second: FrontierRun) -> Interval:
    """Paired 95 % interval of the second run's accuracy minus the first's, problem by problem."""
    return paired_difference(np.array(first.right, float), np.array(second.right, float))


def plot(runs: Sequence[FrontierRun], path: Path, title: str) -> None:
    """Final accuracy and waste against the escalation rate, one line a policy."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, colour in COLOURS.items():
        points = sorted((run.point for run in runs if run.point.policy == name), key=lambda point: point.escalation)
        if not points:
            continue
        rate = [point.escalation for point in points]
        left.plot(rate, [point.accuracy for point in points], "o-", color=colour, label=name, markersize=4)
        left.fill_between(rate, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.12, lw=0)
        if all(point.wasted is not None for point in points):
            right.plot(rate, [point.wasted for point in points], "o-", color=colour, label=name, markersize=4)
    for run in runs:
        if run.point.policy in ("draft_only", "target_only"):
            left.axhline(run.point.accuracy, color="0.3", lw=0.8, ls=":" if run.point.policy == "draft_only" else "--")
            left.text(1.0, run.point.accuracy, run.point.policy, fontsize=7, ha="right", va="bottom")
    left.set(xlabel="share of steps the target writes", ylabel="right answers", xlim=(0, 1))
    right.set(xlabel="share of steps the target writes", ylabel="wasted escalations", xlim=(0, 1), ylim=(0, 1))
    left.legend(fontsize=7)
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
