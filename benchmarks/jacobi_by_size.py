"""What Jacobi decoding gains by the clock as the net outgrows the processor's cache.

    python benchmarks/jacobi_by_size.py --config configs/jacobi_by_size.yaml [--results results]

A consistency-trained model is set into larger and larger nets that compute the same function: what is added is read,
multiplied and summed like the rest, and adds nothing. Tokens a forward and texts are then the same at every size, and
what differs is what a pass over n tokens costs beside a pass over one. Each size is compared with its own plain
decoding, prompt by prompt on one lane.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import Any, cast

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import jaxspec
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.initial_tokens import Initial
from jaxspec.drafters.jacobi import jacobi
from jaxspec.engine.request import encode_prompts
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.report import write_report
from jaxspec.evaluate.timing import in_turns
from jaxspec.tasks.task import find_task
from jaxspec.train.widen import WiderShape, widened


@dataclasses.dataclass(frozen=True)
class JacobiBySizeBenchmark:
    """Settings of this benchmark; see configs/jacobi_by_size.yaml.

    Attributes:
      model: a consistency-trained one.
      task: that it was trained on.
      sizes: nets to set it into, besides its own.
      n: tokens iterated on at once.
      initial: what stands where the model has not guessed yet.
      prompts: fresh ones.
      seed: of these.
      rounds: timed runs of every prompt.
    """

    model: str
    task: str
    sizes: tuple[WiderShape, ...]
    n: tuple[int, ...]
    initial: str
    prompts: int
    seed: int
    rounds: int


def rows_of(lm: jaxspec.LanguageModel, config: JacobiBySizeBenchmark) -> list[dict[str, Any]]:
    """A row for every n: tokens a forward and the speed beside the same net's plain decoding."""
    task = find_task(config.task)
    prompts = [task.example(config.seed, index, "held_out")[0] for index in range(config.prompts)]
    encoded = encode_prompts(lm, prompts, chat=False)
    initial = cast(Initial, config.initial)
    drafters = {0: autoregressive(), **{n: jacobi(n, "rolling", initial) for n in config.n}}
    room = max(map(len, encoded)) + 128
    outs: dict[int, list[Any]] = {}

    def answer_all(n: int) -> float:
        found = [jaxspec.generate(lm, ids, drafter=drafters[n], max_new_tokens=128, cache=room) for ids in encoded]
        outs[n] = found
        return sum(out.decode_seconds for out in found)

    clocks = {n: (lambda n=n: answer_all(n)) for n in drafters}
    seconds = {n: statistics.median(readings) for n, readings in in_turns(clocks, rounds=config.rounds).items()}
    weights = sum(leaf.size for leaf in jax.tree.leaves(lm.params))
    bytes_held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(lm.params))
    passes = {n: sum(out.statistics.target_calls for out in found) for n, found in outs.items()}
    same = {n: all(mine.ids == plain.ids for mine, plain in zip(outs[n], outs[0], strict=True)) for n in config.n}
    return [
        {
            "weights (millions)": weights / 1e6,
            "MB": bytes_held / 1e6,
            "n": n,
            "tokens a forward": sum(out.statistics.tokens for out in outs[n]) / passes[n],
            "a pass, in plain ones": (seconds[n] / passes[n]) / (seconds[0] / passes[0]),
            "speed": seconds[0] / seconds[n] if same[n] else None,
            "identical": same[n],
        }
        for n in config.n
    ]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Speed by the net's size, a line for every n."""
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for n in dict.fromkeys(row["n"] for row in rows):
        mine = [row for row in rows if row["n"] == n and row["identical"]]
        axes.plot([row["MB"] for row in mine], [row["speed"] for row in mine], marker="o", label=f"n = {n}")
    axes.set(xlabel="weights, MB", ylabel="times plain decoding's speed", xscale="log")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    config = read_config(arguments.config, JacobiBySizeBenchmark)
    lm = jaxspec.load(config.model, dtype="float32")
    rows: list[dict[str, Any]] = []
    for size in (None, *config.sizes):
        rows += rows_of(lm if size is None else widened(lm, size), config)
        print(rows[-len(config.n) :], flush=True)
        write_report(arguments.results, "jacobi_by_size", rows, dataclasses.asdict(config))
    plot(rows, arguments.results / "jacobi_by_size.png")


if __name__ == "__main__":
    main()
