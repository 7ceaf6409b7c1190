"""Tokens a call of N-Grammys over its two sizes, and of other drafters, from one recording of every data set.

    python benchmarks/sweep.py [--config configs/sweep.yaml] --data FILE.jsonl [--data ...] [--model PATH]

Figures 3 and 5 to 9 of N-Grammys (arXiv 2411.03786) for a model of your own. The model decodes every prompt once;
drafters are then replayed without it. Nothing is timed, so a busy machine changes no number.
"""

import argparse
import dataclasses
import itertools
import re
from pathlib import Path

import jaxspec
from jaxspec.decode.types import Drafter
from jaxspec.drafters.spec import parse_drafter
from jaxspec.engine.generate import generate
from jaxspec.engine.result import total
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.replay import replay
from jaxspec.evaluate.report import write_report
from jaxspec.evaluate.sweep import sweep, table, write_sweep
from jaxspec.models.language_model import LanguageModel
from jaxspec.tasks.benchmark_prompts import read_benchmark


@dataclasses.dataclass(frozen=True)
class SweepBenchmark:
    """Settings of this benchmark; see configs/sweep.yaml.

    Attributes:
      model, dtype: what `jaxspec.load` takes.
      max_new_tokens: of every prompt.
      prompts: of every category.
      rows, widths: the grid; without them there is none.
      drafters: replayed beside it.
      chat: whether texts that are to be continued, as HumanEval's, go through the chat template too.
      lanes: None replays every prompt on its own; a number, all prompts of a category as one job of so many lanes, in
        which drafters may learn from other prompts.
      jobs: whether the drafters beside the grid are replayed as one job of one lane as well.
      decode: whether drafters whose replay is not exact, for they learn from rejected nodes, decode the prompts too.
    """

    model: str
    dtype: str
    max_new_tokens: int
    prompts: int
    rows: tuple[int, ...]
    widths: tuple[int, ...]
    drafters: tuple[str, ...]
    chat: bool = False
    lanes: int | None = None
    jobs: bool = False
    decode: bool = False

    def __post_init__(self) -> None:
        if self.lanes is not None and self.lanes < 1:
            raise ValueError(f"lanes={self.lanes} is below 1; leave it out to replay every prompt on its own")

    @property
    def all_lanes(self) -> tuple[int | None, ...]:
        """Every way the drafters beside the grid are replayed, the grid's first."""
        return (self.lanes, 1) if self.jobs and self.lanes != 1 else (self.lanes,)


def in_words(lanes: int | None) -> str:
    """How prompts are replayed."""
    return "each on its own" if lanes is None else f"one job, lanes={lanes}"


def label_of(file: Path, category: str, several: bool) -> str:
    """What the prompts of a category are called: with their file, where `several` may have the same categories."""
    return f"{file.stem}: {category}" if several and category != file.stem else category


def decoded(
    lm: LanguageModel, recording: Recording, drafter: Drafter, new: int, lanes: int | None
) -> dict[str, float | str]:
    """Columns about decoding the recorded prompts, as one job of so many lanes or each on its own."""
    prompts = recording.prompts()
    jobs = [[prompt] for prompt in prompts] if lanes is None else [prompts]
    outs = [generate(lm, job, drafter=drafter, max_new_tokens=new, lanes=lanes) for job in jobs]
    ids = [answer for out in outs for answer in out.ids]
    same = sum(mine == recorded for mine, recorded in zip(ids, recording.answers(), strict=True))
    return {
        "decoded": total([out.statistics for out in outs]).tokens_per_call,
        "same texts": f"{same} of {len(ids)}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/sweep.yaml")
    parser.add_argument("--data", action="append", required=True, type=Path, help="a JSON lines file; repeatable")
    parser.add_argument("--model", help="overrides the config's")
    parser.add_argument("--prompts", type=int, help="overrides the config's")
    parser.add_argument("--results", default="results", type=Path)
    arguments = parser.parse_args()
    names = [file.stem for file in arguments.data]
    if len(set(names)) < len(names):
        parser.error(f"--data names {max(names, key=names.count)} more than once; results are told apart by file name")
    config = read_config(arguments.config, SweepBenchmark)
    chosen = {name: getattr(arguments, name) for name in ("model", "prompts") if getattr(arguments, name)}
    config = dataclasses.replace(config, **chosen)
    lm = jaxspec.load(config.model, dtype=config.dtype)
    drafters = {text: parse_drafter(text) for text in config.drafters}
    model = Path(config.model).stem
    top = max(drafter.top for drafter in drafters.values())
    can_chat = lm.tokenizer is not None and lm.tokenizer.has_chat_template
    rows = []
    for file in arguments.data:
        for category, (prompts, asked) in read_benchmark(file, config.prompts).items():
            recording = record(lm, prompts, config.max_new_tokens, top=top, chat=(asked or config.chat) and can_chat)
            label = label_of(file, category, several=len(arguments.data) > 1)
            for (name, drafter), lanes in itertools.product(drafters.items(), config.all_lanes):
                found = replay(recording, drafter, lm, lanes=lanes)
                row = {
                    "data": label,
                    "prompts": in_words(lanes),
                    "drafter": name,
                    "draft nodes": drafter.nodes,
                    "tokens / call": found.statistics.tokens_per_call,
                    "exact": "yes" if found.exact else "nearly",
                    "decoded": None,
                    "same texts": None,
                }
                if config.decode and not found.exact:
                    row |= decoded(lm, recording, drafter, config.max_new_tokens, lanes)
                rows.append(row)
                print(row, flush=True)
            if config.rows and config.widths:
                points = sweep(recording, lm, config.rows, config.widths, lanes=config.lanes)
                title = f"{model}, {label}, prompts {in_words(config.lanes)}"
                facts = dataclasses.asdict(config) | {"model": model, "title": title}
                named = re.sub(r"[^\w.-]+", "_", label)
                write_sweep(points, arguments.results, f"sweep_{model}_{named}", facts)
                print(label, table(points), sep="\n", flush=True)
    write_report(arguments.results, f"replay_{model}", rows, dataclasses.asdict(config) | {"model": model})


if __name__ == "__main__":
    main()
