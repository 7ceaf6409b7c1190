"""How often what `best` proposes is right, counted on recorded texts of several models: what it begins with.

    python benchmarks/best_rates.py --config configs/best_rates.yaml --data FILE.jsonl [--data ...] [--model PATH ...]

Writes the rates as JSON; `jaxspec/drafters/best_rates.json` is a copy. The data should be other than what is measured
on. Nothing is timed.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jaxspec
from jaxspec.drafters.best import sources
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.measured_rates import measured_rates
from jaxspec.evaluate.recording import record
from jaxspec.tasks.benchmark_prompts import read_benchmark


@dataclasses.dataclass(frozen=True)
class BestRates:
    """Settings of this count; see configs/best_rates.yaml.

    Attributes:
      models: what `jaxspec.load` takes.
      chat: of every model, whether texts that are to be continued go through its chat template too.
      dtype: of all.
      prompts: of each category.
      max_new_tokens: of every answer.
      budget, start: of `best`.
    """

    models: tuple[str, ...]
    chat: tuple[bool, ...]
    dtype: str
    prompts: int
    max_new_tokens: int
    budget: int
    start: str

    def __post_init__(self) -> None:
        if self.start == "empty":
            raise ValueError("start='empty' leaves out the bigram's tree, and every source is to be counted")
        if len(self.chat) != len(self.models):
            raise ValueError(f"chat has {len(self.chat)} entries for {len(self.models)} models")


def table_text(source: str, tables: Sequence[Sequence[Sequence[float]]]) -> str:
    """One source in JSON: a table for each degree of agreement, in it a line for each class of evidence."""
    texts = ("    [\n      " + ",\n      ".join(json.dumps(row) for row in table) + "\n    ]" for table in tables)
    return f'  "{source}": [\n' + ",\n".join(texts) + "\n  ]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/best_rates.yaml")
    parser.add_argument("--data", action="append", required=True, type=Path, help="a JSON lines file; repeatable")
    parser.add_argument("--model", action="append", help="instead of the config's; repeatable")
    parser.add_argument("--results", default="results", type=Path)
    arguments = parser.parse_args()
    config = read_config(arguments.config, BestRates)
    if arguments.model:
        config = dataclasses.replace(config, models=tuple(arguments.model))
    mix = jaxspec.drafters.mix(*sources(config.budget, config.start), budget=config.budget)
    texts = []
    for name, chat in zip(config.models, config.chat, strict=True):
        lm = jaxspec.load(name, dtype=config.dtype)
        for file in arguments.data:
            for category, (prompts, asked) in read_benchmark(file, config.prompts).items():
                print(Path(name).stem, category, len(prompts), flush=True)
                texts.append((lm, record(lm, prompts, config.max_new_tokens, top=mix.top, chat=asked or chat)))
    rates = dict(zip(mix.sources, measured_rates(mix, texts), strict=True))
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / "best_rates.json"
    path.write_text("{\n" + ",\n".join(table_text(source, table) for source, table in rates.items()) + "\n}\n")
    print(path)


if __name__ == "__main__":
    main()
