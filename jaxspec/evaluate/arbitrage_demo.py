"""Draft, target and the policies between them on fresh arithmetic problems: points of cost and accuracy, and one
problem's steps with who wrote them and why."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.text import Text

from jaxspec.engine.load import load_pair
from jaxspec.engine.score_model import ScoringModel, load_scorer
from jaxspec.engine.solution import Solved
from jaxspec.evaluate.arithmetic_marking import ArithmeticMarking
from jaxspec.evaluate.frontier import (
    Contender,
    FrontierRun,
    RolloutSettings,
    by_reward,
    by_router,
    frontier,
    unscored,
)
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps import policies
from jaxspec.steps.exact_score import exact_score
from jaxspec.steps.scorers import AdvantageRouter, RewardModel
from jaxspec.tasks.arithmetic import Problem, check_text, example_problem, prompt_text
from jaxspec.train.run_step_head import step_segmentation

RATES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.65)
POLICIES = ("draft_only", "target_only", "random", "rsd", "arbitrage", "oracle")
STYLES = {"draft": "cyan", "target": "bold magenta"}


class Models(NamedTuple):
    """Attributes:
    draft, target: the pair.
    reward, router: trained on its steps.
    """

    draft: LanguageModel
    target: LanguageModel
    reward: ScoringModel
    router: ScoringModel


def load_models(draft: str, target: str, reward: str, router: str) -> Models:
    """All four, in float32.

    Raises:
      FileNotFoundError: one is missing.
      ValueError: one is not what it should be, or the router is of another pair.
    """
    pair = load_pair(draft, target, dtype="float32")
    scoring = [load_scorer(folder, *pair, dtype="float32") for folder in (reward, router)]
    for folder, found, wanted in zip((reward, router), scoring, (RewardModel, AdvantageRouter), strict=True):
        if not isinstance(found.score, wanted):
            raise ValueError(
                f"{folder} holds no {wanted.__name__}, its scores are read as {found.score}; swap the two?"
            )
    return Models(*pair, *scoring)


def fresh_problems(count: int, seed: int) -> list[Problem]:
    """Problems of the held-out split.

    Raises:
      ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"problems={count} is below 1; there would be nothing to solve")
    return [example_problem(seed, index, "held_out") for index in range(count)]


def settings_of(lanes: int, seed: int) -> RolloutSettings:
    """How the demo solves its problems."""
    return RolloutSettings(step_segmentation(), lanes=lanes, seed=seed)


def contending(models: Models, rates: Sequence[float] | None = None) -> list[Contender]:
    """All policies at thresholds that promise the escalation `rates`, None for `RATES`, and the exact oracle."""
    rates = RATES if rates is None else rates
    oracle = Contender(policies.oracle(0.0, exact_score()), (0.0,))
    return [*unscored(rates), by_reward(models.reward, rates), by_router(models.router, rates), oracle]


def run_demo(
    models: Models,
    problems: Sequence[Problem],
    *,
    seed: int = 0,
    lanes: int = 8,
    rates: Sequence[float] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[FrontierRun]:
    """Every policy at every threshold.

    Args:
      models: see `load_models`.
      problems: see `fresh_problems`.
      seed: of policies that draw.
      lanes: problems worked on at once.
      rates: see `contending`.
      advance: called after every run.
    """
    pair, settings = (models.draft, models.target), settings_of(lanes, seed)
    marking = ArithmeticMarking(*pair, problems, settings)
    return frontier(*pair, marking, contending(models, rates), settings, advance)


def points_object(runs: Sequence[FrontierRun]) -> dict[str, list[dict[str, Any]]]:
    """For every policy its points, as JSON has them."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in POLICIES}
    for run in runs:
        point = run.point._asdict()
        found[point.pop("policy")].append(point)
    return {name: points for name, points in found.items() if points}


def picture(problem: Problem, solved: Solved, threshold: float | None, sign: float = 1.0) -> Text:
    """One problem's steps: who wrote each, what the score said, whether it is right.

    Args:
      problem: that was solved.
      solved: its steps.
      threshold: of the policy, as its paper counts it.
      sign: from the step loop's scores to that scale.
    """
    text = Text()
    for author, style in STYLES.items():
        text.append(f"{author}  ", style)
    text.append(f"\n{prompt_text(problem).strip()}\n", "bold")
    right = check_text(problem, solved.text, ended=solved.finish == "eos").right
    for number, step in enumerate(solved.steps):
        mark = ("right", "green") if number < len(right) and right[number] else ("wrong", "red")
        text.append(f"  {step.text.strip():32} ", STYLES[step.author])
        text.append(f"{mark[0]}  ", mark[1])
        if step.score is not None and threshold is not None:
            side = "escalated" if step.escalated else "kept"
            text.append(f"{side}: {sign * step.score:.2f} against {threshold:.2f}", "dim")
        text.append("\n")
    return text


def most_telling(problems: Sequence[Problem], run: FrontierRun) -> int:
    """Index of the problem to show: a right answer that took both authors, if there is one."""
    for index, solved in enumerate(run.solved):
        authors = {step.author for step in solved.steps}
        if run.right[index] and len(authors) == 2 and len(solved.steps) >= 4:
            return index
    return 0
