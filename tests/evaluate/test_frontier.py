"""The frontier of a random pair: identities of its ends, waste counted by hand, and what the demo prints."""

import dataclasses
import importlib
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxspec import steps
from jaxspec.cli import main
from jaxspec.engine.score_model import ScoringModel, describe_scoring, load_scorer
from jaxspec.evaluate import arbitrage_demo
from jaxspec.evaluate.arbitrage_demo import fresh_problems, picture, points_object
from jaxspec.evaluate.arithmetic_marking import ArithmeticMarking
from jaxspec.evaluate.frontier import (
    Contender,
    FrontierPoint,
    FrontierRun,
    RolloutSettings,
    by_likelihood,
    by_reward,
    difference,
    escalation_at,
    frontier,
    plot,
    unscored,
)
from jaxspec.evaluate.marking import AnswerMarking, grade_by
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.transformer import transformer_fn
from jaxspec.steps.exact_score import exact_score
from jaxspec.tasks.arithmetic import check_text, tokenizer
from jaxspec.train.forward import init_params
from jaxspec.weights.save import save_model

CONFIG = ModelConfig("llama", tokenizer().vocabulary_size, 16, 24, 1, 2, 2, 8, context=256)
SETTINGS = RolloutSettings(steps.Segmentation.custom(["\n"], 8), max_new_tokens=24, max_steps=4, lanes=4, cache=128)
PROBLEMS = fresh_problems(6, seed=3)


def model(seed: int, outputs: int | None = None) -> LanguageModel:
    config = dataclasses.replace(CONFIG, outputs=outputs)
    params = init_params(config, jax.random.key(seed))
    params["head"]["kernel"] = params["head"]["kernel"] * 50.0  # sharp, so that lines end and texts differ
    return LanguageModel(config, transformer_fn(config), params, tokenizer(), np.float32, np.float32, f"model {seed}")


@pytest.fixture(scope="module")
def pair() -> tuple[LanguageModel, LanguageModel]:
    return model(1), model(2)


@pytest.fixture(scope="module")
def runs(pair) -> list[FrontierRun]:
    exact = steps.rsd(scorer=exact_score())
    contending = [
        Contender(steps.draft_only()),
        Contender(steps.target_only()),
        Contender(exact, (-math.inf, math.inf)),
    ]
    return frontier(*pair, ArithmeticMarking(*pair, PROBLEMS, SETTINGS), contending, SETTINGS)


def test_the_ends_of_a_sweep_are_the_models_alone(runs: list[FrontierRun]) -> None:
    draft, target, kept, replaced = runs
    assert [one.ids for one in kept.solved] == [one.ids for one in draft.solved]
    assert [one.ids for one in replaced.solved] == [one.ids for one in target.solved]
    assert kept.point.escalation == 0.0 == kept.point.wasted and kept.point.target_tokens == 0
    assert replaced.point.escalation == 1.0 == target.point.escalation
    assert replaced.point.target_tokens == target.point.target_tokens == sum(len(one.ids) for one in target.solved)


def test_calls_of_the_target_are_the_steps_handed_over(pair, runs: list[FrontierRun]) -> None:
    draft, target, kept, replaced = runs
    assert draft.point.target_calls == kept.point.target_calls == 0
    written = [sum(len(one.steps) for one in run.solved) for run in (target, replaced)]
    assert written == [target.point.target_calls, replaced.point.target_calls]
    contending = [Contender(steps.oracle(scorer=exact_score()))]
    compared = frontier(*pair, ArithmeticMarking(*pair, PROBLEMS, SETTINGS), contending, SETTINGS)[0]
    assert compared.point.target_calls == sum(len(one.steps) for one in compared.solved)
    assert compared.point.escalation < 1.0 and compared.point.target_calls < compared.point.target_tokens


def test_waste_is_what_gains_nothing(runs: list[FrontierRun]) -> None:
    everything = runs[3]
    gains = total = 0
    for problem, one in zip(PROBLEMS, everything.solved, strict=True):
        right = check_text(problem, one.text, ended=one.finish == "eos").right
        total += len(one.steps)
        gains += sum(step.score == 0.0 and place < len(right) and right[place] for place, step in enumerate(one.steps))
    assert everything.point.wasted == pytest.approx(1.0 - gains / total)


def point(policy: str, rate: float, accuracy: float, right: tuple[bool, ...] = (True, False)) -> FrontierRun:
    return FrontierRun(FrontierPoint(policy, 0.5, accuracy, 0, 1, 0.5, rate, 10, 10, 0.5, 1.0), right, [])


def test_costs_at_an_accuracy_lie_on_lines_between_points(tmp_path) -> None:
    some = [point("rsd", 0.4, 0.6), point("draft_only", 0.0, 0.2), point("rsd", 0.2, 0.3)]
    assert escalation_at(some, 0.45) == pytest.approx(0.3)
    assert escalation_at(some, 0.25) == pytest.approx(0.1)
    assert escalation_at(some, 0.2) == 0.0 and escalation_at(some, 0.7) is None
    interval = difference(point("a", 0, 0, (True, False, False)), point("b", 0, 0, (True, True, False)))
    assert interval.estimate == pytest.approx(1 / 3) and interval.low < 0 < interval.high
    plot(some, tmp_path / "plots" / "frontier.png", "some")
    assert (tmp_path / "plots" / "frontier.png").stat().st_size > 1000


def test_contenders_run_at_the_lines_their_scores_promise() -> None:
    reward = ScoringModel(model(3, 1), steps.RewardModel(), tuple(np.linspace(0, 1, 101)))
    router = ScoringModel(model(4, 2), steps.AdvantageRouter(), tuple(np.linspace(-1, 0, 101)))
    models = arbitrage_demo.Models(model(1), model(2), reward, router)
    found = {each.policy.name: each for each in arbitrage_demo.contending(models, (0.1, 0.5))}
    assert tuple(found) == arbitrage_demo.POLICIES
    np.testing.assert_allclose(found["rsd"].thresholds, [0.1, 0.5, 0.7])
    np.testing.assert_allclose(found["arbitrage"].thresholds, [0.9, 0.5])
    unmeasured = dataclasses.replace(reward, quantiles=())
    assert by_reward(unmeasured, (0.1, 0.5)).thresholds == (0.7,)


def test_where_only_answers_are_known_policies_run_without_training(pair, tmp_path) -> None:
    prompts = [tokenizer().encode("1+1="), "2*3=", "7-2="]
    asked: list[tuple[str, str]] = []

    def grade(answer: str, text: str) -> bool:
        asked.append((answer, text))
        return answer == "b"

    contending = [*unscored((0.5,)), *by_likelihood((0.0, 0.5))]
    found = frontier(*pair, AnswerMarking(prompts, ["a", "b", "c"], grade), contending, SETTINGS)
    assert [run.point.policy for run in found] == ["draft_only", "target_only", "random", "likelihood", "likelihood"]
    assert all(run.right == (False, True, False) and run.point.wasted is None for run in found)
    assert asked[:3] == [(answer, one.text) for answer, one in zip("abc", found[0].solved, strict=True)]
    assert [one.ids for one in found[3].solved] == [one.ids for one in found[0].solved]
    assert found[3].point.escalation == 0.0 < found[4].point.escalation < 1.0
    plot(found, tmp_path / "frontier.png", "answers alone")


@pytest.mark.slow
def test_the_demo_reports_every_policy(pair, tmp_path, capsys, monkeypatch) -> None:
    folders = {}
    for name, lm in (("draft", pair[0]), ("target", pair[1]), ("reward", model(3, 1)), ("router", model(4, 2))):
        folders[name] = str(tmp_path / name)
        save_model(folders[name], lm.config, lm.params, tokenizer())
    for name, kind in (("reward", "reward"), ("router", "binary")):
        describe_scoring(
            folders[name], kind, *pair, np.linspace(0, 1, 9) if name == "reward" else np.linspace(-1, 0, 9)
        )
    monkeypatch.setattr(arbitrage_demo, "RATES", (0.5,))
    arguments = [item for name, folder in folders.items() for item in (f"--{name}", folder)]
    assert main(["demo", "arbitrage", "--json", "--problems", "3", "--seed", "5", *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["problems"] == 3 and tuple(printed["policies"]) == arbitrage_demo.POLICIES
    wanted = {"threshold", "accuracy", "escalation", "target_tokens", "target_calls", "wasted", "seconds"}
    assert all(wanted <= set(each) for points in printed["policies"].values() for each in points)
    with pytest.raises(ValueError, match="trained for another target"):
        load_scorer(folders["router"], pair[0], pair[0])


def test_the_picture_says_who_wrote_what_and_why(runs: list[FrontierRun]) -> None:
    shown = picture(PROBLEMS[0], runs[3].solved[0], 0.5).plain
    assert shown.count("escalated: ") == len(runs[3].solved[0].steps) and "against 0.50" in shown
    assert list(points_object(runs)) == ["draft_only", "target_only", "rsd"]


class Verifier:
    """Knows one equality."""

    failures = 1

    def equal(self, reference: str, answer: str) -> bool:
        return (reference, answer) == ("x+1", "1+x")


def test_a_verifier_is_asked_where_answers_are_neither_numbers_nor_alike(monkeypatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    questions = importlib.import_module("questions")
    for verifier in (None, Verifier()):
        is_right = grade_by(verifier)
        for reference, text, expected in (
            ("so \\boxed{x+1}", "then \\boxed{1+x}", verifier is not None),
            ("so \\boxed{x+1}", "then \\boxed{x+2}", False),
            ("so \\boxed{x+1}", "then \\boxed{x+1}", True),
            ("#### 12", "it is 12.0", True),
            ("#### 12", "it is 13", False),
            ("Paris", "Paris", True),
            ("12", "it is \\boxed{12}", True),
        ):
            assert is_right(reference, text) == expected, (reference, text)
        facts = questions.grader_facts(verifier)
        assert ("math-verify is not installed" in facts["grader"]) == (verifier is None)
        assert facts.get("no verdict of math-verify") == getattr(verifier, "failures", None)


def test_bad_settings(pair) -> None:
    with pytest.raises(ValueError, match="problems=0"):
        fresh_problems(0, 1)
    with pytest.raises(ValueError, match="no problems"):
        frontier(*pair, AnswerMarking([], []), [], SETTINGS)
