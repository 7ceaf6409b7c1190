"""Test-time scaling: accuracy, the target's tokens, realised rates, busy lanes and seconds as samples grow.

    python benchmarks/a1.py --config configs/a1.yaml [--results results]

A1 in both its modes and by its released rule, its synchronous forerunner, the target alone and the draft alone answer
the same arithmetic questions on one engine. Beside the table come pictures of utilisation over ticks, rates by turn,
and accuracy against target tokens.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from jaxspec.engine.load import load_pair
from jaxspec.evaluate import a1_demo, a1_plots
from jaxspec.evaluate.a1_report import Run, row_object, table_row
from jaxspec.evaluate.a1_systems import ALL_SYSTEMS, Scaling
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.report import write_report


@dataclasses.dataclass(frozen=True)
class A1Benchmark:
    """Settings of this benchmark; see configs/a1.yaml."""

    draft: str
    target: str
    counts: "tuple[Counts, ...]"
    lanes_a_sample: int
    rounds: int
    slice_ticks: int
    scaling: Scaling


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many samples of how many questions."""

    samples: int
    questions: int


def measure(config: A1Benchmark) -> dict[int, dict[str, Run]]:
    """All systems, by sample count."""
    draft, target = load_pair(config.draft, config.target, dtype="float32")
    found = {}
    for each in config.counts:
        lanes = each.samples * config.lanes_a_sample
        scaling = dataclasses.replace(
            config.scaling, samples=each.samples, lanes=lanes, target_lanes=max(1, lanes // 2)
        )
        found[each.samples] = a1_demo.run(
            draft,
            target,
            each.questions,
            scaling,
            systems=ALL_SYSTEMS,
            rounds=config.rounds,
            slice_ticks=config.slice_ticks,
            advance=print,
        )
        for run in found[each.samples].values():
            print(table_row(run.row), flush=True)
    return found


def lines(found: dict[int, dict[str, Run]]) -> list[dict[str, Any]]:
    """Rows of the table, with seconds and samples a second as ratios to other systems' at the same sample count."""
    return [
        {name: value for name, value in table_row(each.row).items() if not name.startswith("pass@")}
        | {"pass@n": each.row.pass_at[each.row.samples]}
        | {"seconds / A1's": each.row.seconds / runs["a1"].row.seconds}
        | {
            f"throughput / {name}": each.row.throughput / runs[name].row.throughput
            for name in ("synchronous", "target_only")
        }
        for runs in found.values()
        for each in runs.values()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    config = read_config(arguments.config, A1Benchmark)
    found = measure(config)
    largest = found[max(found)]
    lanes = max(found) * config.lanes_a_sample
    usages = {name: each.usages for name, each in largest.items()}
    rows = [each.row for runs in found.values() for each in runs.values()]
    a1_plots.plot_utilisation(usages, lanes, arguments.results / "a1-utilisation.png")
    a1_plots.plot_rates([each.row for each in largest.values()], arguments.results / "a1-rates.png")
    a1_plots.plot_accuracy(rows, arguments.results / "a1-accuracy.png")
    settings = dataclasses.asdict(config) | {"rows in full": [row_object(row) for row in rows]}
    print(write_report(arguments.results, "a1", lines(found), settings).read_text())


if __name__ == "__main__":
    main()
