"""Test-time scaling side by side: A1, its synchronous forerunner, the target alone and the draft alone, on one engine.

Q questions, M samples of each.
"""

import statistics
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxspec.conformal import CoverageReport, coverage_report
from jaxspec.engine.solution import Solution
from jaxspec.evaluate.a1_systems import ALL_SYSTEMS, REFERENCE, SYSTEMS, Ran, Scaling, run_system
from jaxspec.evaluate.intervals import Interval, clustered_proportion, paired_difference
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps import aggregate
from jaxspec.steps.state import Usage

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)  # of the rates of questions


class LaneAccount(NamedTuple):
    """How the lane-ticks of a model that writes were spent; they sum to its places times ticks.

    Attributes:
      busy: its pass wrote for a lane.
      masked: its pass ran with the place empty.
      waiting: it wrote for nobody, though it may have read.
    """

    busy: int
    masked: int
    waiting: int

    @property
    def intensity(self) -> float:
        """Busy over waiting: asynchronous arithmetic intensity, counted instead of timed (A1, section 1)."""
        return self.busy / self.waiting if self.waiting else float("inf")


class ScalingRow(NamedTuple):
    """What one system reached, and what it took.

    Attributes:
      system: one of `ALL_SYSTEMS`.
      questions, samples: Q and M.
      coverage: realised rates overall and by turn, with intervals; None where nothing is decided.
      by_question: realised rate of every question with a decision.
      mean: accuracy of a sample, with an interval over questions.
      majority: accuracy of the most frequent answer.
      pass_at: chance that k samples include a right one, by k.
      mean_difference, majority_difference: to the target alone, question by question; None for itself.
      target_tokens, draft_tokens: written, kept or not, in a pass before the run, too.
      target_read: tokens the target read, likewise: prompts, and chunks to score or to write on behind.
      tokens: of the samples.
      ticks: rounds of the loop.
      busy, waiting: share of lane-ticks in which a model worked for the lane, and in which it had a problem and none
        did; the rest, lanes were empty.
      draft, target: lane accounts of each model.
      most_with_target: lanes with the target at once.
      seconds: wall time, compilation apart; of several rounds the median.
      seconds_before: what a pass before the run took of it, in the first round.
    """

    system: str
    questions: int
    samples: int
    coverage: CoverageReport | None
    by_question: tuple[float, ...]
    mean: Interval
    majority: float
    pass_at: dict[int, float]
    mean_difference: Interval | None
    majority_difference: Interval | None
    target_tokens: int
    draft_tokens: int
    target_read: int
    tokens: int
    ticks: int
    busy: float
    waiting: float
    draft: LaneAccount
    target: LaneAccount
    most_with_target: int
    seconds: float
    seconds_before: float

    @property
    def throughput(self) -> float:
        """Samples a second."""
        return self.questions * self.samples / self.seconds


class Run(NamedTuple):
    """Attributes:
    row: the summary.
    solution: all samples.
    usages: accounting after every slice.
    """

    row: ScalingRow
    solution: Solution
    usages: list[Usage]


def compare(
    draft: LanguageModel,
    target: LanguageModel,
    questions: Sequence[tuple[str, Hashable]],
    answer_of: Callable[[str], Hashable | None],
    scaling: Scaling,
    *,
    systems: Sequence[str] = SYSTEMS,
    rounds: int = 1,
    slice_ticks: int | None = None,
    advance: Callable[[str], None] = lambda system: None,
) -> dict[str, Run]:
    """Runs the systems in turn on the same questions and seeds, each compiled before its clock starts.

    Args:
      draft, target: models of one vocabulary.
      questions: (prompt, right answer), at least two.
      answer_of: a sample's answer from its text; None where it states none, which is never right and never voted for.
        It is asked of samples that came to their own end: what a limit cut off may have been about to say another.
      scaling: how they run.
      systems: names from `ALL_SYSTEMS`; differences need the target alone among them.
      rounds: how often, for medians of wall time; whatever else is reported repeats.
      slice_ticks: rounds between looks at the accounting; None for none before the end.
      advance: called with every system's name as it is done.

    Raises:
      ValueError: fewer than two questions or one round, an unknown system, or settings `solve` refuses.
      RuntimeError: a system wrote other texts in a later round.
    """
    if len(questions) < 2:
        raise ValueError(f"{len(questions)} questions say nothing of how questions differ; give at least 2")
    if rounds < 1:
        raise ValueError(f"rounds={rounds}; give at least 1")
    unknown = [system for system in systems if system not in ALL_SYSTEMS]
    if unknown:
        raise ValueError(f"system {unknown[0]!r} is unknown; choose from {', '.join(ALL_SYSTEMS)}")
    if "synchronous" in systems and scaling.samples == 1:
        raise ValueError("samples=1 leaves 'synchronous' nothing to rank; take 2 or more, or the other systems")
    if "synchronous" in systems and scaling.samples > 0 and scaling.lanes % scaling.samples:
        raise ValueError(
            f"lanes={scaling.lanes} do not divide into questions of samples={scaling.samples}, which 'synchronous' "
            f"ranks together; take {-(-scaling.lanes // scaling.samples) * scaling.samples} lanes"
        )
    prompts, truths = [prompt for prompt, _ in questions], [truth for _, truth in questions]
    done: dict[str, Ran] = {}
    seconds: dict[str, list[float]] = {system: [] for system in systems}
    for _ in range(rounds):
        for system in systems:
            ran = run_system(draft, target, system, prompts, scaling, slice_ticks)
            if ran.solution.ids != done.setdefault(system, ran).solution.ids:
                raise RuntimeError(f"system {system!r} wrote other texts in a later round of the same seed")
            seconds[system].append(ran.seconds)
            advance(system)
    marked = {system: _mark(each.solution, truths, answer_of) for system, each in done.items()}
    runs = {}
    for system, each in done.items():
        against = marked.get(REFERENCE) if system != REFERENCE else None
        row = _row(system, each, marked[system], against, scaling, statistics.median(seconds[system]))
        runs[system] = Run(row, each.solution, each.usages)
    return runs


class _Marks(NamedTuple):
    """(Q, M) numbers of answers, and which samples are right."""

    answers: np.ndarray
    correct: np.ndarray

    @property
    def majority(self) -> np.ndarray:
        return aggregate.is_winner_correct(aggregate.majority_vote(self.answers), self.correct)


def _mark(solution: Solution, truths: Sequence[Hashable], answer_of: Callable[[str], Hashable | None]) -> _Marks:
    given: list[list[Hashable | None]] = [[] for _ in truths]
    for solved in solution.problems:
        given[solved.question].append(answer_of(solved.text) if solved.finish == "eos" else None)
    correct = [
        [answer is not None and answer == truth for answer in row] for row, truth in zip(given, truths, strict=True)
    ]
    return _Marks(aggregate.number_answers(given), np.array(correct))


class _Decision(NamedTuple):
    escalated: bool
    turn: int
    question: int


def _decisions_of(solution: Solution) -> list[_Decision]:
    made = [
        _Decision(step.escalated, step.turn, solved.question) for solved in solution.problems for step in solved.decided
    ]
    total = solution.statistics.decisions
    if len(made) < total:
        raise ValueError(
            f"{total - len(made)} of {total} decisions kept a draft step whose score was no number, and such a step "
            "looks like one nothing was decided about, so rates would leave it out; see why the scorer's logits are "
            "no numbers"
        )
    return made


def coverage_of(solution: Solution, reject_rate: float) -> CoverageReport | None:
    """Realised rates overall and by turn, of the draft steps that were decided on; None if there are none.

    Samples do not say when each of their steps was decided on, so there are no rates of stretches of time.

    Raises:
      ValueError: draft steps were kept whose score was no number.
    """
    made = _decisions_of(solution)
    if not made:
        return None
    escalated, turn, question = zip(*made, strict=True)
    return coverage_report(escalated, reject_rate, group=turn, question=question, window=None)


def rates_by_question(solution: Solution) -> tuple[float, ...]:
    """Realised rate of every question with a decision, in order.

    Raises:
      ValueError: as `coverage_of`.
    """
    made: dict[int, list[bool]] = {}
    for decision in _decisions_of(solution):
        made.setdefault(decision.question, []).append(decision.escalated)
    return tuple(sum(escalated) / len(escalated) for escalated in made.values())


def accounts_of(usage: Usage, lanes: int, target_lanes: int) -> tuple[LaneAccount, LaneAccount]:
    """Lane accounts of the draft and the target."""

    def account(rows: Any, passes: Any, places: int) -> LaneAccount:
        rows, passes = int(rows), int(passes)
        return LaneAccount(rows, passes * places - rows, (int(usage.ticks) - passes) * places)

    return (
        account(usage.draft_rows, usage.draft_passes, lanes),
        account(usage.target_rows, usage.target_passes, target_lanes),
    )


def _row(
    system: str, ran: Ran, marks: _Marks, reference: _Marks | None, scaling: Scaling, seconds: float
) -> ScalingRow:
    solution, totals = ran.solution, ran.solution.statistics
    questions, samples = marks.correct.shape
    cluster = np.repeat(np.arange(questions), samples)
    places = scaling.lanes if system == "target_only" else scaling.target_lanes
    draft, target = accounts_of(ran.usages[-1], scaling.lanes, places)
    mean_difference = majority_difference = None
    if reference is not None:
        mean_difference = paired_difference(reference.correct.ravel(), marks.correct.ravel(), cluster)
        majority_difference = paired_difference(reference.majority, marks.majority)
    return ScalingRow(
        system=system,
        questions=questions,
        samples=samples,
        coverage=coverage_of(solution, scaling.reject_rate),
        by_question=rates_by_question(solution),
        mean=clustered_proportion(marks.correct.ravel(), cluster),
        majority=float(marks.majority.mean()),
        pass_at={k: float(aggregate.pass_at_k(marks.correct, k).mean()) for k in _powers(samples)},
        mean_difference=mean_difference,
        majority_difference=majority_difference,
        target_tokens=sum(each.statistics.target_tokens for each in ran.passes),
        draft_tokens=sum(each.statistics.draft_tokens for each in ran.passes),
        target_read=sum(solved.work["target_reads"] for each in ran.passes for solved in each.problems),
        tokens=totals.tokens,
        ticks=totals.ticks,
        busy=totals.busy_share,
        waiting=totals.waiting_share,
        draft=draft,
        target=target,
        most_with_target=totals.most_with_target,
        seconds=seconds,
        seconds_before=0.0 if ran.before is None else ran.before.seconds,
    )


def _powers(samples: int) -> list[int]:
    return sorted({*(2**i for i in range(samples.bit_length()) if 2**i <= samples), samples})


def row_object(row: ScalingRow) -> dict[str, Any]:
    """A row as JSON."""

    def account(lanes: LaneAccount) -> dict[str, Any]:
        waited = lanes.waiting > 0
        return lanes._asdict() | {"intensity": lanes.intensity if waited else None}

    coverage = row.coverage
    rates = None
    if coverage is not None:
        overall = coverage.overall
        between = overall.cluster or overall.binomial
        rates = {
            "wanted": coverage.reject_rate,
            "overall": overall.rate,
            "interval": [between.low, between.high],
            "decisions": overall.decisions,
            "by_turn": {
                str(turn): {"rate": group.rate, "decisions": group.decisions} for turn, group in coverage.groups.items()
            },
            "by_question": {f"{share:g}": rate for share, rate in zip(QUANTILES, _spread(row), strict=True)},
        }
    return {
        "system": row.system,
        "questions": row.questions,
        "samples": row.samples,
        "reject_rate": rates,
        "accuracy": {
            "mean": row.mean.estimate,
            "mean_interval": [row.mean.low, row.mean.high],
            "majority": row.majority,
            "pass_at_k": {str(k): value for k, value in row.pass_at.items()},
            "mean_minus_target_only": _interval(row.mean_difference),
            "majority_minus_target_only": _interval(row.majority_difference),
        },
        "target_tokens": row.target_tokens,
        "draft_tokens": row.draft_tokens,
        "target_read": row.target_read,
        "tokens": row.tokens,
        "ticks": row.ticks,
        "lane_utilisation": {
            "busy": row.busy,
            "waiting": row.waiting,
            "empty": max(0.0, 1.0 - row.busy - row.waiting),
            "draft": account(row.draft),
            "target": account(row.target),
            "most_with_target": row.most_with_target,
        },
        "seconds": row.seconds,
        "seconds_before": row.seconds_before,
        "samples_a_second": row.throughput,
    }


def _spread(row: ScalingRow) -> list[float]:
    """`QUANTILES` of the rates of questions."""
    return [float(rate) for rate in np.quantile(row.by_question, QUANTILES)]


def _interval(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def table_row(row: ScalingRow) -> dict[str, Any]:
    """A row for a table; rates by question as least, tenth, half, nine tenths and most."""
    overall = "" if row.coverage is None else f"{row.coverage.overall.rate:.3f}"
    turns = "" if row.coverage is None else "/".join(f"{group.rate:.2f}" for group in row.coverage.groups.values())
    spread = "/".join(f"{rate:.2f}" for rate in _spread(row)) if row.by_question else ""
    return {
        "system": row.system,
        "samples": row.samples,
        "rate": overall,
        "by turn": turns,
        "by question": spread,
        "mean": row.mean.estimate,
        "majority": row.majority,
        f"pass@{row.samples}": row.pass_at[row.samples],
        "target tokens": row.target_tokens,
        "target read": row.target_read,
        "busy": row.busy,
        "waiting": row.waiting,
        "seconds": row.seconds,
    }
