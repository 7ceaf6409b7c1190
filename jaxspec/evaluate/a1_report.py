"""Test-time scaling side by side: A1, its synchronous forerunner, the target alone and the draft alone, on one engine.

A1 runs twice: as published, the target writes on behind an unlikely chunk, which stays in the text with whatever is
wrong with it; as `a1_resample`, the target writes the chunk anew. A third time, if asked for, as `a1_released`, by the
rule of the code published with it: a pass before the run writes the first chunk of as many samples, and chunks of all
turns are ranked among those.

Q questions, M samples of each.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxspec.conformal import CoverageReport, StaticConformal, coverage_report, fixed, static_conformal
from jaxspec.engine.solution import Solution, Solved, SolvedStep
from jaxspec.engine.solve import solve
from jaxspec.evaluate.intervals import Interval, clustered_proportion, paired_difference
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps import aggregate, policies
from jaxspec.steps.segmentation import Segmentation
from jaxspec.steps.state import Usage
from jaxspec.steps.types import Policy

REFERENCE = "target_only"  # what accuracies are compared with
SYSTEMS = ("a1", "a1_resample", "synchronous", "target_only", "draft_only")
RELEASED = "a1_released"
ALL_SYSTEMS = (*SYSTEMS, RELEASED)
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)  # of the rates of questions


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How all systems run.

    Attributes:
      reject_rate: share of draft chunks to hand over.
      samples: M, of every question.
      turns, chunk: draft chunks of a sample, and tokens of a chunk of either model.
      max_new_tokens: of every sample.
      temperature: of both models.
      lanes: samples worked on at once.
      target_lanes: of which the target writes for so many at once; `target_only` may use all lanes.
      wave: share of the target's places that must be taken before it writes; see `solve`.
      cache: tokens a sample may hold, prompt included.
      seed: of all draws.
    """

    reject_rate: float = 0.4
    samples: int = 16
    turns: int = 15
    chunk: int = 8
    max_new_tokens: int = 120
    temperature: float = 0.8
    lanes: int = 32
    target_lanes: int = 16
    wave: float = 0.75
    cache: int = 256
    seed: int = 0


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
      seconds: wall time, compilation apart.
      seconds_before: the part of it that a pass before the run took.
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
    slice_ticks: int | None = None,
    advance: Callable[[str], None] = lambda system: None,
) -> dict[str, Run]:
    """Runs the systems one after the other on the same questions and seeds, each compiled before its clock starts.

    Args:
      draft, target: models of one vocabulary.
      questions: (prompt, right answer), at least two.
      answer_of: a sample's answer from its text; None where it states none, which is never right and never voted for.
        It is asked of samples that came to their own end: what a limit cut off may have been about to say another.
      scaling: how they run.
      systems: names from `ALL_SYSTEMS`; differences need the target alone among them.
      slice_ticks: rounds between looks at the accounting; None for none before the end.
      advance: called with every system's name as it is done.

    Raises:
      ValueError: fewer than two questions, an unknown system, or settings `solve` refuses.
    """
    if len(questions) < 2:
        raise ValueError(f"{len(questions)} questions say nothing of how questions differ; give at least 2")
    unknown = [system for system in systems if system not in ALL_SYSTEMS]
    if unknown:
        raise ValueError(f"system {unknown[0]!r} is unknown; choose from {', '.join(ALL_SYSTEMS)}")
    if "synchronous" in systems and scaling.samples > 0 and scaling.lanes % scaling.samples:
        raise ValueError(
            f"lanes={scaling.lanes} do not divide into questions of samples={scaling.samples}, which 'synchronous' "
            f"ranks together; take {-(-scaling.lanes // scaling.samples) * scaling.samples} lanes"
        )
    prompts, truths = [prompt for prompt, _ in questions], [truth for _, truth in questions]
    done: dict[str, _Done] = {}
    for system in systems:
        done[system] = _run(draft, target, system, prompts, scaling, slice_ticks)
        advance(system)
    marked = {system: _mark(each.solution, truths, answer_of) for system, each in done.items()}
    runs = {}
    for system, each in done.items():
        against = marked.get(REFERENCE) if system != REFERENCE else None
        row = _row(system, each, marked[system], against, scaling)
        runs[system] = Run(row, each.solution, each.usages)
    return runs


def policy_of(system: str, scaling: Scaling, questions: int) -> Policy:
    """The policy of a name in `ALL_SYSTEMS`, for so many questions."""
    if system == RELEASED:
        rule = static_conformal(scaling.reject_rate, side="released", size=questions * scaling.samples)
        return policies.a1(
            scaling.reject_rate, scaling.samples, scaling.turns, scaling.chunk, calibrator=rule, groups="none"
        )
    if system in ("a1", "a1_resample"):
        resample = system == "a1_resample"
        return policies.a1(scaling.reject_rate, scaling.samples, scaling.turns, scaling.chunk, resample=resample)
    if system == "synchronous":
        return policies.synchronous(scaling.reject_rate)
    return policies.target_only() if system == "target_only" else policies.draft_only()


class _Done(NamedTuple):
    """A run, its accounting after every slice, and the pass before it, if it took one."""

    solution: Solution
    usages: list[Usage]
    before: Solution | None


def _run(
    draft: LanguageModel,
    target: LanguageModel,
    system: str,
    prompts: Sequence[str],
    scaling: Scaling,
    slice_ticks: int | None,
) -> _Done:
    usages: list[Usage] = []
    policy = policy_of(system, scaling, len(prompts))
    settings: dict[str, Any] = dict(
        samples=scaling.samples,
        segmentation=Segmentation.chunks(scaling.chunk),
        max_turns=scaling.turns if policy.first == "draft" else None,
        temperature=scaling.temperature,
        seed=scaling.seed,
        lanes=scaling.lanes,
        target_lanes=scaling.lanes if system == "target_only" else scaling.target_lanes,
        wave=scaling.wave,
        cache=scaling.cache,
    )
    limit, before = scaling.max_new_tokens, None
    if system == RELEASED:
        before = _first_chunks(draft, target, prompts, limit, settings)
        settings["calibrator"] = _ranked_among(policy, before)
    solve(draft, target, policy, prompts[:1], max_new_tokens=1, **settings)
    solution = solve(
        draft, target, policy, prompts, max_new_tokens=limit, slice_ticks=slice_ticks, watch=usages.append, **settings
    )
    return _Done(solution, usages, before)


def _first_chunks(
    draft: LanguageModel, target: LanguageModel, prompts: Sequence[str], limit: int, settings: dict[str, Any]
) -> Solution:
    """Every sample's first chunk, scored and kept, with draws that are not those of the run."""
    chunk = settings["segmentation"].max_step_tokens
    policy = policies.a1(samples=settings["samples"], turns=1, chunk=chunk, calibrator=fixed(-math.inf), groups="none")
    settings = settings | {"max_turns": 1, "seed": settings["seed"] + 1}
    solve(draft, target, policy, prompts[:1], max_new_tokens=1, **settings)
    return solve(draft, target, policy, prompts, max_new_tokens=limit, **settings)


def _ranked_among(policy: Policy, before: Solution) -> Any:
    """The state of the policy's static calibrator with the scores of a pass."""
    scores = [step.score for solved in before.problems for step in _decided(solved) if step.score is not None]
    assert isinstance(policy.calibrator, StaticConformal)
    return policy.calibrator.calibrate(jnp.array(scores, jnp.float32), jnp.zeros(len(scores), jnp.int32))


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


def coverage_of(solution: Solution, reject_rate: float) -> CoverageReport | None:
    """Realised rates overall and by turn, of the draft steps that were decided on; None if there are none.

    Samples do not say when each of their steps was decided on, so there are no rates of stretches of time.
    """
    made = [(step.escalated, step.turn, solved.question) for solved in solution.problems for step in _decided(solved)]
    if not made:
        return None
    escalated, turn, question = zip(*made, strict=True)
    return coverage_report(escalated, reject_rate, group=turn, question=question, window=None)


def rates_by_question(solution: Solution) -> tuple[float, ...]:
    """Realised rate of every question with a decision, in order."""
    made: dict[int, list[bool]] = {}
    for solved in solution.problems:
        for step in _decided(solved):
            made.setdefault(solved.question, []).append(step.escalated)
    return tuple(sum(escalated) / len(escalated) for escalated in made.values())


def _decided(solved: Solved) -> list[SolvedStep]:
    """Steps put to the decision; one that ended its text was not, and has neither a score nor an escalation."""
    return [step for step in solved.drafts if step.escalated or step.score is not None]


def accounts_of(usage: Usage, lanes: int, target_lanes: int) -> tuple[LaneAccount, LaneAccount]:
    """Lane accounts of the draft and the target."""

    def account(rows: Any, passes: Any, places: int) -> LaneAccount:
        rows, passes = int(rows), int(passes)
        return LaneAccount(rows, passes * places - rows, (int(usage.ticks) - passes) * places)

    return (
        account(usage.draft_rows, usage.draft_passes, lanes),
        account(usage.target_rows, usage.target_passes, target_lanes),
    )


def _row(system: str, done: _Done, marks: _Marks, reference: _Marks | None, scaling: Scaling) -> ScalingRow:
    solution, before = done.solution, done.before
    questions, samples = marks.correct.shape
    cluster = np.repeat(np.arange(questions), samples)
    places = scaling.lanes if system == "target_only" else scaling.target_lanes
    draft, target = accounts_of(done.usages[-1], scaling.lanes, places)
    statistics = solution.statistics
    passes = [solution] if before is None else [before, solution]
    seconds_before = 0.0 if before is None else before.seconds
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
        target_tokens=sum(each.statistics.target_tokens for each in passes),
        draft_tokens=sum(each.statistics.draft_tokens for each in passes),
        target_read=sum(solved.work["target_reads"] for each in passes for solved in each.problems),
        tokens=statistics.tokens,
        ticks=statistics.ticks,
        busy=statistics.busy_share,
        waiting=statistics.waiting_share,
        draft=draft,
        target=target,
        most_with_target=statistics.most_with_target,
        seconds=solution.seconds + seconds_before,
        seconds_before=seconds_before,
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
