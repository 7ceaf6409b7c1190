"""A draft model at every length: tokens a call, and speed as predicted from a recording and as measured.

    python benchmarks/draft_model.py --config configs/draft_model.yaml --data FILE.jsonl [--target PATH] [--draft PATH]

The prediction knows the target's answers, runs the draft model alone on them, and prices what that counts by what
passes of both models cost, each timed by itself. The measurement decodes, plainly and drafted, in interleaved rounds.
Cheaper versions of the target drafting for it are replayed: their acceptance needs no clock.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jaxspec
from jaxspec.drafters import draft_model
from jaxspec.evaluate.bench import bench
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.replay import replay
from jaxspec.evaluate.report import write_report
from jaxspec.evaluate.tune import TuneRow, tune
from jaxspec.tasks.benchmark_prompts import read_benchmark


@dataclasses.dataclass(frozen=True)
class DraftModelBenchmark:
    """Settings of this benchmark; see configs/draft_model.yaml.

    Attributes:
      target, draft: what `jaxspec.load` takes.
      dtype: of both.
      prompts: of each category.
      max_new_tokens: of every answer.
      lengths: tokens a draft.
      itself: after `self:`, cheaper versions of the target.
      itself_length: tokens they draft.
      rounds: timed; 0 predicts alone.
      chat: whether texts that are to be continued go through the chat template too.
    """

    target: str
    draft: str
    dtype: str
    prompts: int
    max_new_tokens: int
    lengths: tuple[int, ...]
    itself: tuple[str, ...]
    itself_length: int
    rounds: int
    chat: bool


class Tables(NamedTuple):
    """Rows by category: of the draft model at every length, and of cheaper versions of the target."""

    lengths: list[dict[str, Any]]
    itself: list[dict[str, Any]]


def measure(config: DraftModelBenchmark, file: Path) -> Tables:
    """Both tables."""
    target, draft = (jaxspec.load(where, dtype=config.dtype) for where in (config.target, config.draft))
    tables = Tables([], [])
    for category, (prompts, asked) in read_benchmark(file, config.prompts).items():
        recording = record(target, prompts, config.max_new_tokens, top=0, chat=asked or config.chat)
        tables.lengths.extend({"data": category, **row} for row in by_length(config, target, draft, recording))
        tables.itself.extend({"data": category, **by_itself(config, target, v, recording)} for v in config.itself)
    return tables


def by_length(
    config: DraftModelBenchmark, target: jaxspec.LanguageModel, draft: jaxspec.LanguageModel, recording: Recording
) -> list[dict[str, Any]]:
    """Drafts of every length: counted and priced, then timed."""
    drafters = {f"draft model, {length}": draft_model(draft, length) for length in config.lengths}
    report = tune(target, (), drafters, recording=recording, progress=print)
    predicted = {row.drafter: row for row in report.rows}
    for row in report.rows:
        print(row, flush=True)
    measured = {}
    if config.rounds:
        prompts: Any = recording.prompts()
        rounds = bench(target, prompts, drafters, max_new_tokens=config.max_new_tokens, rounds=config.rounds)
        measured = {row.drafter: row for row in rounds}
    return [_row(name, predicted[name], measured.get(name)) for name in drafters]


def _row(name: str, predicted: TuneRow, measured: Any) -> dict[str, Any]:
    row = {"drafter": name, "tokens / call, replayed": predicted.tokens_per_call}
    if measured is None:
        return row | {"speed / plain, predicted": predicted.predicted}
    speed = measured.speed_ratio
    return row | {
        "tokens / call": measured.tokens_per_call,
        "identical": measured.identical,
        "speed / plain, predicted": predicted.predicted,
        "speed / plain": "-" if speed is None else speed,
        "predicted / measured": "-" if speed is None else predicted.predicted / speed,
    }


def by_itself(
    config: DraftModelBenchmark, target: jaxspec.LanguageModel, version: str, recording: Recording
) -> dict[str, Any]:
    """Acceptance of drafts by a cheaper version of the target."""
    found = replay(recording, draft_model(f"self:{version}", config.itself_length), target).statistics
    return {
        "drafter": f"self:{version}, {config.itself_length}",
        "tokens / call, replayed": found.tokens_per_call,
        "accepted of drafted": found.acceptance_rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/draft_model.yaml")
    parser.add_argument("--data", required=True, type=Path, help="a JSON lines file")
    parser.add_argument("--target", help="overrides the config's")
    parser.add_argument("--draft", help="overrides the config's")
    parser.add_argument("--prompts", type=int, help="overrides the config's")
    parser.add_argument("--rounds", type=int, help="overrides the config's")
    parser.add_argument("--results", default="results", type=Path)
    arguments = parser.parse_args()
    config = read_config(arguments.config, DraftModelBenchmark)
    given = {name: getattr(arguments, name) for name in ("target", "draft", "prompts", "rounds")}
    config = dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None})
    tables = measure(config, arguments.data)
    settings = dataclasses.asdict(config) | {name: Path(getattr(config, name)).name for name in ("target", "draft")}
    for name, rows in (("draft_model", tables.lengths), ("self_draft", tables.itself)):
        print(write_report(arguments.results, name, rows, settings).read_text())


if __name__ == "__main__":
    main()
