"""What a step-level job gives back: texts, who wrote each step and why, and what it cost."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxspec.decode.commit import Finish
from jaxspec.steps.state import Author, Phase, Usage, Work


@dataclasses.dataclass(frozen=True)
class SolvedStep:
    """One committed step.

    Attributes:
      text: its text; empty without a tokenizer.
      ids: its tokens.
      author: `draft` or `target`.
      escalated: whether it was handed over; a comparison that the draft's step won is not, though the target wrote too.
      score: of the draft's step, None where none was scored.
      target_score: of the target's step, where both were.
      turn: draft steps before it.
      drafted: tokens the draft wrote for it, kept or not.
    """

    text: str
    ids: list[int]
    author: str
    escalated: bool
    score: float | None
    target_score: float | None
    turn: int
    drafted: int


@dataclasses.dataclass(frozen=True)
class Solved:
    """One sample of one problem.

    Attributes:
      question: index of the problem.
      sample: index of the sample.
      text: new text.
      ids: new token ids.
      steps: in order.
      finish: `eos`, `stop`, `length`, `cache`, `numerical`, or `steps` where it had as many steps or turns as allowed.
      work: counters, see `steps.state.Work`.
    """

    question: int
    sample: int
    text: str
    ids: list[int]
    steps: list[SolvedStep]
    finish: str
    work: dict[str, int]

    @property
    def drafts(self) -> list[SolvedStep]:
        """The steps that the draft was first to write, or to try, whoever's text stands: those a decision may be about.

        Left out are the steps of a target alone, and those in which it wrote on behind a draft step handed over.
        """
        if not self.work["draft_calls"]:
            return []
        written_on = [step.escalated and step.author == "draft" for step in self.steps]
        return [step for step, behind in zip(self.steps, [False, *written_on], strict=False) if not behind]

    @property
    def decided(self) -> list[SolvedStep]:
        """Those of `drafts` put to the decision; one that ended its text was not: it has no score and no escalation."""
        return [step for step in self.drafts if step.escalated or step.score is not None]


@dataclasses.dataclass(frozen=True)
class StepStatistics:
    """Totals of a job.

    Attributes:
      steps: committed, of both authors.
      decisions: draft steps that were put to the decision.
      escalations: draft steps handed over; see `SolvedStep.escalated`.
      tokens: generated.
      draft_tokens, target_tokens: written by each model, kept or not.
      target_kept: tokens of the result that the target wrote.
      discarded: draft tokens that are not in the result.
      draft_calls, target_calls: passes that wrote, summed over the problems they worked for.
      draft_passes, target_passes, draft_reads, target_reads, scorer_reads: passes the machine ran.
      ticks: rounds of the loop.
      lane_ticks: rounds a lane spent in every phase, by name.
      draft_utilisation, target_utilisation: share of the places of its writing passes a model worked for.
      most_with_target: lanes with the target at once.
      unusable: steps decided on without a usable score; where both models' steps are compared, of either model.
      held, busy: lane-ticks with a problem, and those in which a model worked for it.
      overruled: escalations undone because all places with the target were taken.
    """

    steps: int
    decisions: int
    escalations: int
    tokens: int
    draft_tokens: int
    target_tokens: int
    target_kept: int
    discarded: int
    draft_calls: int
    target_calls: int
    draft_passes: int
    target_passes: int
    draft_reads: int
    target_reads: int
    scorer_reads: int
    ticks: int
    lane_ticks: dict[str, int]
    draft_utilisation: float
    target_utilisation: float
    most_with_target: int
    unusable: int
    held: int
    busy: int
    overruled: int

    @property
    def escalation_rate(self) -> float:
        """Escalations a decision."""
        return self.escalations / self.decisions if self.decisions else 0.0

    @property
    def target_share(self) -> float:
        """Share of the resulting tokens that the target wrote."""
        return self.target_kept / self.tokens if self.tokens else 0.0

    @property
    def busy_share(self) -> float:
        """Share of all lane-ticks in which a model worked for the lane."""
        total = sum(self.lane_ticks.values())
        return self.busy / total if total else 0.0

    @property
    def waiting_share(self) -> float:
        """Share of all lane-ticks in which a lane had a problem and no model worked for it."""
        total = sum(self.lane_ticks.values())
        return (self.held - self.busy) / total if total else 0.0


@dataclasses.dataclass(frozen=True)
class Solution:
    """Attributes:
    problems: every sample, ordered by question, then sample.
    statistics: totals.
    calibrator: the calibrator's state afterwards, or None; pass it on to go on from there.
    seconds: wall time of the loop, compilation included if it was needed.
    """

    problems: list[Solved]
    statistics: StepStatistics
    calibrator: Any
    seconds: float

    @property
    def texts(self) -> list[str]:
        """New text of every sample."""
        return [problem.text for problem in self.problems]

    @property
    def ids(self) -> list[list[int]]:
        """New token ids of every sample."""
        return [problem.ids for problem in self.problems]


def solved_of(tokenizer: Any, row: Any, question: int, sample: int) -> Solved:
    """A finished problem from its row of `Problems`, on the host."""
    start = int(row.prompt_length)
    trace, steps = row.trace, []

    def text_of(ids: Sequence[int]) -> str:
        return "" if tokenizer is None else tokenizer.decode(list(ids))

    for place in range(int(trace.count)):
        end = int(trace.end[place])
        ids = [int(i) for i in row.tokens[start:end]]
        steps.append(
            SolvedStep(
                text=text_of(ids),
                ids=ids,
                author=Author(int(trace.author[place])).name.lower(),
                escalated=bool(trace.escalated[place]),
                score=_number(trace.score[place]),
                target_score=_number(trace.target_score[place]),
                turn=int(trace.turn[place]),
                drafted=int(trace.drafted[place]),
            )
        )
        start = end
    ids = [int(i) for i in row.tokens[int(row.prompt_length) : int(row.length)]]
    work = {name: int(value) for name, value in zip(Work._fields, row.work, strict=True)}
    return Solved(question, sample, text_of(ids), ids, steps, Finish(int(row.finish)).name.lower(), work)


def statistics_of(
    problems: Sequence[Solved], usage: Usage, draft_lanes: int, target_lanes: int, *, compared: bool = False
) -> StepStatistics:
    """Totals over `problems`, and the lanes' accounting; `compared` where the target wrote every step too."""
    steps = [step for problem in problems for step in problem.steps]
    drafts = [step for problem in problems for step in problem.drafts]
    work = {name: sum(problem.work[name] for problem in problems) for name in Work._fields}
    kept_from_draft = sum(len(step.ids) for step in steps if step.author == "draft")
    reads = np.asarray(usage.reads)
    usable = sum(step.score is not None for step in drafts)
    if compared:
        usable += sum(step.target_score is not None for step in drafts)
    return StepStatistics(
        steps=len(steps),
        decisions=int(usage.decisions),
        escalations=sum(step.escalated for step in drafts),
        tokens=sum(len(problem.ids) for problem in problems),
        draft_tokens=work["draft_tokens"],
        target_tokens=work["target_tokens"],
        target_kept=sum(len(step.ids) for step in steps if step.author == "target"),
        discarded=work["draft_tokens"] - kept_from_draft,
        draft_calls=work["draft_calls"],
        target_calls=work["target_calls"],
        draft_passes=int(usage.draft_passes),
        target_passes=int(usage.target_passes),
        draft_reads=int(reads[0]),
        target_reads=int(reads[1]),
        scorer_reads=int(reads[2]),
        ticks=int(usage.ticks),
        lane_ticks={phase.name.lower(): int(usage.phases[phase]) for phase in Phase},
        draft_utilisation=_share(usage.draft_rows, usage.draft_passes, draft_lanes),
        target_utilisation=_share(usage.target_rows, usage.target_passes, target_lanes),
        most_with_target=int(usage.most_with_target),
        unusable=int(usage.decisions) * (2 if compared else 1) - usable,
        held=int(usage.held),
        busy=int(usage.busy),
        overruled=int(usage.overruled),
    )


def _share(rows: Any, passes: Any, lanes: int) -> float:
    return float(rows) / (float(passes) * lanes) if passes else 0.0


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
