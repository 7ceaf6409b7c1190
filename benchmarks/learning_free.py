"""Drafts that need no training: tokens a call and speed, on prompts of public data sets.

    python benchmarks/learning_free.py --config configs/learning_free.yaml --data FILE.jsonl [--data ...]
        [--model PATH] [--drafter TEXT ...] [--results results]

Every category of every file is decoded plainly and with every drafter, in the same run, prompt by prompt; beside them
Hugging Face `generate` with prompt lookup on the same weights, where PyTorch is installed. Files are local
copies of HumanEval, GSM8K, MATH, MBPP, MT-bench or Spec-Bench.
"""

import argparse
import dataclasses
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from huggingface import HuggingFacePeer, huggingface_model

import jaxspec
from jaxspec.drafters.spec import parse_drafter
from jaxspec.evaluate.bench import BenchRow, Peer, bench
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.report import write_report
from jaxspec.tasks.benchmark_prompts import read_benchmark


@dataclasses.dataclass(frozen=True)
class LearningFreeBenchmark:
    """Settings of this benchmark; see configs/learning_free.yaml."""

    model: str
    dtypes: tuple[str, ...]
    max_new_tokens: int
    prompts: int
    rounds: int
    drafters: tuple[str, ...]
    lookup: int


def peers_of(lm: jaxspec.LanguageModel, config: LearningFreeBenchmark) -> dict[str, Peer]:
    """Hugging Face with prompt lookup; nothing where it cannot run."""
    theirs = huggingface_model(lm) if config.lookup else None
    if theirs is None:
        return {}
    eos_ids = () if lm.tokenizer is None else lm.tokenizer.eos_ids
    return {f"Hugging Face prompt lookup, {config.lookup}": HuggingFacePeer(theirs, eos_ids, config.lookup)}


def measure(config: LearningFreeBenchmark, files: list[Path]) -> list[dict]:
    """One row a category and drafter."""
    lm, *also = (jaxspec.load(config.model, dtype=dtype) for dtype in config.dtypes)
    drafters = {text: parse_drafter(text) for text in config.drafters}
    peers = peers_of(lm, config)
    can_chat = lm.tokenizer is not None and lm.tokenizer.has_chat_template
    rows = []
    for file in files:
        for category, (prompts, asked) in read_benchmark(file, config.prompts).items():
            found = bench(
                lm,
                prompts,
                drafters,
                max_new_tokens=config.max_new_tokens,
                chat=asked and can_chat,
                rounds=config.rounds,
                peers=peers,
                also=also,
            )
            rows += [_line(file.stem, category, row) for row in found]
            for line in rows[-len(found) :]:
                print(line, flush=True)
    return rows


def _line(file: str, category: str, row: BenchRow) -> dict:
    return {
        "data": category if category == file else f"{file}: {category}",
        "drafter": row.drafter,
        "tokens / call": row.tokens_per_call,
        "speed / plain": "-" if row.speed_ratio is None else row.speed_ratio,
        "identical": "yes" if row.identical else f"{row.same:.0%}",
        "prompts": row.prompts,
        "accepted by source": ", ".join(f"{name} {share:.1%}" for name, share in row.sources.items()) or "-",
    }


def plot(rows: list[dict], path: Path) -> None:
    """Tokens a call of every drafter, category by category."""
    categories = list(dict.fromkeys(row["data"] for row in rows))
    names = [name for name in dict.fromkeys(row["drafter"] for row in rows) if not name.startswith("Hugging")]
    figure, axes = plt.subplots(figsize=(2 + 1.2 * len(categories), 3.6), constrained_layout=True)
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        mine = {row["data"]: row["tokens / call"] for row in rows if row["drafter"] == name}
        axes.bar(np.arange(len(categories)) + place * width, [mine[c] for c in categories], width, label=name)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(np.arange(len(categories)) + 0.4 - width / 2, categories, rotation=20, ha="right")
    axes.set_ylabel("tokens a call")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/learning_free.yaml")
    parser.add_argument("--data", action="append", required=True, type=Path, help="a JSON lines file; repeatable")
    parser.add_argument("--model", help="overrides the config's")
    parser.add_argument("--rounds", type=int, help="overrides the config's")
    parser.add_argument("--prompts", type=int, help="overrides the config's")
    parser.add_argument("--drafter", action="append", help="instead of the config's; repeatable")
    parser.add_argument("--results", default="results", type=Path)
    arguments = parser.parse_args()
    config = read_config(arguments.config, LearningFreeBenchmark)
    chosen = {name: getattr(arguments, name) for name in ("model", "rounds", "prompts") if getattr(arguments, name)}
    if arguments.drafter:
        chosen["drafters"] = tuple(arguments.drafter)
    config = dataclasses.replace(config, **chosen)
    rows = measure(config, arguments.data)
    model = Path(config.model).stem
    name = f"learning_free_{model}"
    path = write_report(arguments.results, name, rows, dataclasses.asdict(config) | {"model": model})
    plot(rows, arguments.results / f"{name}.png")
    print(path.read_text())


if __name__ == "__main__":
    main()
