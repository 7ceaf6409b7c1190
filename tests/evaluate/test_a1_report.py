"""The comparison of test-time scaling systems on toy models: rows that add up, and pictures."""

import dataclasses
import importlib
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

from jaxspec.engine.solve import solve
from jaxspec.evaluate import a1_plots, a1_report
from jaxspec.evaluate.a1_demo import arithmetic_questions, stated_answer
from jaxspec.evaluate.a1_report import compare, row_object, table_row
from jaxspec.evaluate.a1_systems import RELEASED, SYSTEMS, Ran, Scaling, policy_of
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
        right = [answer_of(solved.text) == "c" and solved.finish == "eos" for solved in solution.problems]
        answers = np.array(right).reshape(len(PROMPTS), -1)
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


def test_wall_time_is_the_median_of_rounds_that_say_the_same(runs, monkeypatch) -> None:
    times = {"target_only": iter([3.0, 9.0, 5.0]), "draft_only": iter([2.0, 1.0, 4.0])}
    order = []

    def again(draft, target, system, prompts, scaling, slice_ticks):
        order.append(system)
        _, solution, usages = runs[system]
        return Ran(dataclasses.replace(solution, seconds=next(times[system])), usages, None)

    monkeypatch.setattr(a1_report, "run_system", again)
    questions, lm = [(prompt, "c") for prompt in PROMPTS], toy_model(1)
    found = compare(lm, lm, questions, answer_of, SCALING, systems=list(times), rounds=3)
    assert order == ["target_only", "draft_only"] * 3
    assert {system: run.row.seconds for system, run in found.items()} == {"target_only": 5.0, "draft_only": 2.0}
    assert found["draft_only"].row._replace(seconds=0.0) == runs["draft_only"].row._replace(seconds=0.0)

    def changes(draft, target, system, prompts, scaling, slice_ticks):
        order.append(system)
        _, solution, usages = runs["a1" if len(order) % 2 else "target_only"]
        return Ran(solution, usages, None)

    order.clear()
    monkeypatch.setattr(a1_report, "run_system", changes)
    with pytest.raises(RuntimeError, match="'a1' wrote other texts in a later round"):
        compare(lm, lm, questions, answer_of, SCALING, systems=["a1"], rounds=2)


def test_what_a_limit_cut_off_states_no_answer(runs) -> None:
    solution = runs["a1"].solution
    texts = [("bc", "eos"), ("bc", "length"), ("ba", "eos"), ("bc", "cache")]
    problems = [
        dataclasses.replace(solution.problems[0], question=0, text=text, finish=finish) for text, finish in texts
    ]
    marks = a1_report._mark(dataclasses.replace(solution, problems=problems), ["c"], answer_of)
    assert marks.correct.tolist() == [[True, False, False, False]]
    assert len(set(marks.answers[0].tolist())) == 3  # c, none, a


def test_rates_count_what_was_decided(runs) -> None:
    for name in ("a1", "a1_resample", "synchronous"):
        row, solution, _ = runs[name]
        coverage = row.coverage
        assert coverage.overall.decisions == solution.statistics.decisions
        assert coverage.overall.escalations == solution.statistics.escalations
        assert sum(group.decisions for group in coverage.groups.values()) == coverage.overall.decisions
        assert coverage.window is None and coverage.rolling.size == 0  # steps are in no order of time
        assert row.most_with_target <= 2
        for question, rate in enumerate(row.by_question):
            mine = [one for one in solution.problems if one.question == question]
            handed = [step.escalated for one in mine for step in one.drafts if step.escalated or step.score is not None]
            assert rate == np.mean(handed)
        assert len(row.by_question) == len(PROMPTS)
        spread = row_object(row)["reject_rate"]["by_question"]
        assert list(spread) == ["0", "0.1", "0.5", "0.9", "1"] and spread["0"] == min(row.by_question)
    assert runs["target_only"].row.coverage is runs["draft_only"].row.coverage is None
    assert table_row(runs["target_only"].row)["by question"] == ""


def test_a_rate_that_would_leave_out_what_was_kept_unseen_is_refused() -> None:
    """A target without numbers: a kept draft has no score, as one has that ended its text."""
    draft = toy_model(1, eos_ids=(6,))
    target = dataclasses.replace(draft, params={"table": draft.params["table"] * jnp.nan})
    solution = solve(
        draft, target, policy_of("a1", SCALING, 5), PROMPTS, max_new_tokens=12, temperature=4.0, lanes=8, cache=128
    )
    assert solution.statistics.unusable == solution.statistics.decisions > solution.statistics.escalations > 0
    for rates in (lambda: a1_report.coverage_of(solution, 0.4), lambda: a1_report.rates_by_question(solution)):
        with pytest.raises(ValueError, match="decisions kept a draft step whose score was no number"):
            rates()


@pytest.mark.slow
def test_the_released_rule_ranks_among_first_chunks_of_a_pass_of_its_own() -> None:
    questions = [(prompt, "c") for prompt in PROMPTS]
    draft, target = toy_model(1, eos_ids=(6,)), toy_model(2, eos_ids=(6,))
    row, solution, _ = compare(draft, target, questions, answer_of, SCALING, systems=[RELEASED])[RELEASED]
    state = solution.calibrator
    held = int(state.bank.held[0])
    assert 0 < held <= len(PROMPTS) * SCALING.samples
    calibration = np.sort(np.asarray(state.bank.score[0, :held]))
    line = calibration[int(0.4 * held)]
    decided = [s for one in solution.problems for s in one.drafts if s.escalated or s.score is not None]
    assert decided and all(step.escalated == (step.score < line) for step in decided)
    first = {step.score for one in solution.problems for step in one.drafts if step.turn == 0}
    assert not {float(score) for score in calibration} <= first
    assert row.seconds > row.seconds_before > 0 and row.draft_tokens > solution.statistics.draft_tokens


def test_the_released_rule_is_pooled_and_as_large_as_its_pass() -> None:
    policy = policy_of(RELEASED, SCALING, 5)
    assert policy.groups == "none" and policy.on_escalation == "continue"
    assert (policy.calibrator.side, policy.calibrator.size, policy.calibrator.groups) == ("released", 20, 1)


def test_the_benchmark_says_how_throughput_compares(runs, monkeypatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    rows = {row["system"]: row for row in importlib.import_module("a1").lines({4: runs})}
    assert tuple(rows) == SYSTEMS
    for name, row in rows.items():
        mine, barrier = runs[name].row, runs["synchronous"].row
        assert mine.throughput == pytest.approx(len(PROMPTS) * 4 / mine.seconds)
        assert row["throughput / synchronous"] == pytest.approx(barrier.seconds / mine.seconds)
    assert rows["target_only"]["throughput / target_only"] == rows["a1"]["seconds / A1's"] == 1.0


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
    with pytest.raises(ValueError, match="rounds=0"):
        compare(lm, lm, [("a", "b")] * 2, answer_of, SCALING, rounds=0)
    with pytest.raises(ValueError, match="system 'best' is unknown"):
        compare(lm, lm, [("a", "b")] * 2, answer_of, SCALING, systems=["best"])
    with pytest.raises(ValueError, match="samples=1 leaves 'synchronous' nothing to rank"):
        compare(lm, lm, [("a", "b")] * 2, answer_of, dataclasses.replace(SCALING, samples=1))
    with pytest.raises(ValueError, match="lanes=6 do not divide"):
        scaling = dataclasses.replace(SCALING, lanes=6)
        compare(lm, lm, [("a", "b")] * 2, answer_of, scaling, systems=["synchronous"])
