"""What is told of a job's steps: who was first to write each, and how many were handed over."""

import dataclasses

import pytest

from jaxspec.engine.solution import Solved, SolvedStep, statistics_of
from jaxspec.steps.state import Work, no_usage

DRAFT, TARGET = "draft", "target"


def step(author: str, escalated: bool, drafted: int, score: float | None = None, ids: int = 3) -> SolvedStep:
    return SolvedStep("", list(range(ids)), author, escalated, score, None, 0, drafted)


def solved(*steps: SolvedStep, draft_calls: int = 5) -> Solved:
    work = dict.fromkeys(Work._fields, 0) | {"draft_calls": draft_calls}
    return Solved(0, 0, "", [i for one in steps for i in one.ids], list(steps), "eos", work)


BROKEN = step(TARGET, True, 0)  # its draft said nothing before its logits were no numbers
CASES = {
    "written anew": ([step(DRAFT, False, 3, 0.9), step(TARGET, True, 3, 0.1), BROKEN], [0, 1, 2], 2),
    "written on": ([step(DRAFT, True, 3, 0.1), step(TARGET, True, 0), step(DRAFT, False, 3, 0.9)], [0, 2], 1),
    "twice written on": ([step(DRAFT, True, 3, 0.1), step(TARGET, True, 0)] * 2, [0, 2], 2),
    "compared": ([step(DRAFT, False, 3, 0.9), step(TARGET, True, 3, 0.1)], [0, 1], 1),
    "broken from the start": ([BROKEN, BROKEN], [0, 1], 2),
    "nothing": ([], [], 0),
}


@pytest.mark.parametrize("name", CASES)
def test_escalations_are_counted_by_what_the_draft_began(name: str) -> None:
    steps, drafts, escalations = CASES[name]
    one = solved(*steps)
    assert [id(each) for each in one.drafts] == [id(steps[place]) for place in drafts]
    statistics = statistics_of([one, one], no_usage()._replace(decisions=2 * len(drafts)), 2, 2)
    assert statistics.escalations == 2 * escalations
    assert statistics.escalation_rate == (escalations / len(drafts) if drafts else 0.0)


def test_where_steps_are_compared_scores_of_both_models_may_be_missing() -> None:
    scores = [(0.5, 0.5), (None, 0.5), (0.5, None), (None, None)]
    one = solved(*(dataclasses.replace(step(DRAFT, False, 3, ours), target_score=theirs) for ours, theirs in scores))
    usage = no_usage()._replace(decisions=4)
    assert statistics_of([one], usage, 2, 2, compared=True).unusable == 4
    assert statistics_of([one], usage, 2, 2).unusable == 2


def test_a_target_alone_stands_in_for_nobody() -> None:
    one = solved(step(TARGET, True, 0), step(TARGET, True, 0), draft_calls=0)
    assert one.drafts == [] and statistics_of([one], no_usage(), 2, 2).escalations == 0
