"""Accuracy against escalations of a pair of published models on questions whose answers are known.

    python benchmarks/questions.py --config configs/questions.yaml --data gsm8k_test.jsonl [--results results]

Each model alone, chance, and steps kept by the target's likelihood, which needs no training; RSD and ARBITRAGE beside
them where the config names a reward model and a router. Answers that are no numbers are compared by math-verify, where
it is installed; the report says so.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxspec.engine.load import load_pair
from jaxspec.engine.score_model import load_scorer
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.frontier import RolloutSettings, by_likelihood, by_reward, by_router, frontier, plot, unscored
from jaxspec.evaluate.marking import AnswerMarking, grade_by
from jaxspec.evaluate.report import write_report
from jaxspec.steps import Segmentation
from jaxspec.tasks.math_verifier import MathVerifier
from jaxspec.tasks.question_file import prompt_ids, read_questions


@dataclasses.dataclass(frozen=True)
class QuestionBenchmark:
    """Settings of this benchmark; see configs/questions.yaml."""

    draft: str
    target: str
    dtype: str
    problems: int
    rates: tuple[float, ...]
    max_new_tokens: int
    max_steps: int
    lanes: int
    cache: int
    reward: str | None = None
    router: str | None = None


@contextlib.contextmanager
def installed_verifier() -> Iterator[MathVerifier | None]:
    """math-verify as long as the context lasts, or None where it is not installed."""
    try:
        verifier = MathVerifier()
    except ModuleNotFoundError:
        yield None
        return
    with verifier:
        yield verifier


def grader_facts(verifier: MathVerifier | None) -> dict[str, Any]:
    """Who compared answers, for the report."""
    if verifier is None:
        return {"grader": "numbers and equal texts; math-verify is not installed"}
    return {"grader": "numbers and equal texts, else math-verify", "no verdict of math-verify": verifier.failures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/questions.yaml")
    parser.add_argument("--data", required=True, type=Path, help="questions with answers, JSON lines")
    parser.add_argument("--draft", help="overrides the config's")
    parser.add_argument("--target", help="overrides the config's")
    parser.add_argument("--problems", type=int, help="overrides the config's")
    parser.add_argument("--results", default="results", type=Path)
    arguments = parser.parse_args()
    config = read_config(arguments.config, QuestionBenchmark)
    chosen = {name: getattr(arguments, name) for name in ("draft", "target", "problems") if getattr(arguments, name)}
    config = dataclasses.replace(config, **chosen)

    questions = read_questions(arguments.data)[: config.problems]
    draft, target = load_pair(config.draft, config.target, dtype=config.dtype)
    settings = RolloutSettings(
        Segmentation.reasoning(),
        max_new_tokens=config.max_new_tokens,
        max_steps=config.max_steps,
        lanes=config.lanes,
        cache=config.cache,
    )
    contending = [*unscored(config.rates), *by_likelihood(config.rates)]
    for folder, make in ((config.reward, by_reward), (config.router, by_router)):
        if folder is not None:
            contending.append(make(load_scorer(folder, draft, target, dtype=config.dtype), config.rates))
    prompts = [prompt_ids(question, target.tokenizer) for question in questions]
    answers = [question.answer for question in questions]
    with installed_verifier() as verifier:
        marking = AnswerMarking(prompts, answers, grade_by(verifier))
        runs = frontier(draft, target, marking, contending, settings, lambda: print(".", end="", flush=True))
        facts = grader_facts(verifier)
    rows = [run.point._asdict() for run in runs]
    names = {"draft": Path(config.draft).stem, "target": Path(config.target).stem, "data": arguments.data.name}
    path = write_report(arguments.results, "questions", rows, dataclasses.asdict(config) | names | facts)
    with path.open("a") as report:
        report.write("\n" + "".join(f"- {name}: {fact}\n" for name, fact in facts.items()))
    plot(runs, arguments.results / "questions.png", f"{arguments.data.stem}, {len(questions)} questions")
    print(path.read_text())


if __name__ == "__main__":
    main()
