"""The comparison of test-time scaling systems on toy models: rows that add up, and pictures."""

import dataclasses
import json

import numpy as np
import pytest
from toy_model import toy_model

from jaxspec.evaluate import a1_plots
from jaxspec.evaluate.a1_demo import arithmetic_questions, stated_answer
from jaxspec.evaluate.a1_report import SYSTEMS, Scaling, compare, row_object, table_row
from jaxspec.tasks import arithmetic

SCALING = Scaling(
    samples=4, turns=4, chunk=3, max_new_tokens=24, temperature=4.0, lanes=8, target_lanes=2, cache=128, seed=3
)
PROMPTS = ["abc", "dea", "fbc", "aab", "cdd"]


def answer_of(text: str) -> str | None:
    """The letter behind the first b, if there is one."""
    place = text.find("b")
    return text[place + 1 : place + 2] or None if place >= 0 else None


@pytest.fixture(scope="module")
def runs():
    questions = [(prompt, "c") for prompt in PROMPTS]
    draft, target = toy_model(1, eos_ids=(6,)), toy_model(2, eos_ids=(6,))
    return compare(draft, target, questions, answer_of, SCALING, slice_ticks=3)


def test_rows_follow_from_the_samples(runs) -> None:
    assert tuple(runs) == SYSTEMS
    for name, (row, solution, usages) in runs.items():
        answers = np.array([answer_of(solved.text) == "c" for solved in solution.problems]).reshape(len(PROMPTS), -1)
        assert row.mean.estimate == row.pass_at[1] == pytest.approx(answers.mean())
        assert row.pass_at[4] == pytest.approx(answers.any(axis=1).mean())
        assert row.majority <= row.pass_at[4] and list(row.pass_at) == [1, 2, 4]
        assert 0 < row.busy <= row.busy + row.waiting <= 1 + 1e-9
        places = 8 if name == "target_only" else 2
        assert sum(row.draft) == 8 * row.ticks and sum(row.target) == places * row.ticks
        assert row.draft.busy == row.draft_tokens and row.target.busy == row.target_tokens
        assert row.tokens == sum(len(solved.ids) for solved in solution.problems)
        ticks, busy = a1_plots.utilisation(usages, 8)
        assert ticks[-1] == row.ticks and len(ticks) > 5
        assert np.average(busy, weights=np.diff([0, *ticks])) == pytest.approx(row.busy)
    assert runs["draft_only"].row.target_tokens == runs["target_only"].row.draft_tokens == 0


def test_rates_count_what_was_decided(runs) -> None:
    for name in ("a1", "a1_resample", "synchronous"):
        row, solution, _ = runs[name]
        coverage = row.coverage
        assert coverage.overall.decisions == solution.statistics.decisions
        assert coverage.overall.escalations == solution.statistics.escalations
        assert sum(group.decisions for group in coverage.groups.values()) == coverage.overall.decisions
        assert row.most_with_target <= 2
    assert runs["target_only"].row.coverage is runs["draft_only"].row.coverage is None


def test_differences_are_to_the_target_alone(runs) -> None:
    reference = runs["target_only"].row
    assert reference.mean_difference is None
    for name in ("a1", "a1_resample", "synchronous", "draft_only"):
        row = runs[name].row
        assert row.mean_difference.estimate == pytest.approx(row.mean.estimate - reference.mean.estimate)
        assert row.majority_difference.estimate == pytest.approx(row.majority - reference.majority)
        assert row.majority_difference.low <= row.majority_difference.estimate <= row.majority_difference.high


def test_rows_are_json_and_table_rows(runs) -> None:
    for run in runs.values():
        plain = json.loads(json.dumps(row_object(run.row), allow_nan=False))
        shares = plain["lane_utilisation"]
        assert shares["busy"] + shares["waiting"] + shares["empty"] == pytest.approx(1)
        assert set(plain["accuracy"]["pass_at_k"]) == {"1", "2", "4"}
        assert table_row(run.row)["system"] == run.row.system


def test_pictures_are_written(runs, tmp_path) -> None:
    rows = [run.row for run in runs.values()]
    a1_plots.plot_utilisation({name: run.usages for name, run in runs.items()}, 8, tmp_path / "new" / "lanes.png")
    a1_plots.plot_rates(rows, tmp_path / "rates.png")
    a1_plots.plot_accuracy(rows, tmp_path / "accuracy.png")
    assert all(path.stat().st_size > 5000 for path in tmp_path.rglob("*.png")) and len(list(tmp_path.rglob("*"))) == 4


def test_questions_have_the_answers_of_their_solutions() -> None:
    questions = arithmetic_questions(9, seed=4)
    for index, (prompt, answer) in enumerate(questions):
        solution = arithmetic.example(4, index, "held_out")
        assert solution[0] == prompt and arithmetic.grade(solution[1], f"answer {answer}\n")
    assert stated_answer("1+1=2\nanswer \n") is None and stated_answer("1+1=2\n") is None
    assert stated_answer("answer 7\nanswer 8\n") == "7"


def test_bad_comparisons_are_refused() -> None:
    lm = toy_model(1)
    with pytest.raises(ValueError, match="1 questions say nothing"):
        compare(lm, lm, [("a", "b")], answer_of, SCALING)
    with pytest.raises(ValueError, match="system 'best' is unknown"):
        compare(lm, lm, [("a", "b")] * 2, answer_of, SCALING, systems=["best"])
    with pytest.raises(ValueError, match="lanes=6 do not divide"):
        scaling = dataclasses.replace(SCALING, lanes=6)
        compare(lm, lm, [("a", "b")] * 2, answer_of, scaling, systems=["synchronous"])
