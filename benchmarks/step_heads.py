"""What a router should learn, and from what: heads, balance and history, on the same paired traces.

    python benchmarks/step_heads.py --config configs/step_heads.yaml [--results results]

The ablations of ARBITRAGE (arXiv 2512.05033, tables 1 to 3) on a pair of one's own. Every variant is trained anew and
measured on steps of problems it has not seen; the accuracy of steps is replayed from the traces, in which both models'
steps are known.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jaxspec
from jaxspec.engine.load import load_pair
from jaxspec.evaluate.config import read_config, read_yaml
from jaxspec.evaluate.report import write_report
from jaxspec.evaluate.step_replay import StepOutcomes, outcomes_of, replay_curve
from jaxspec.train.run_step_head import StepHeadConfig, pair_traces, run_step_head
from jaxspec.train.step_heads import predict, router_examples, split

METRICS = ("accuracy on negative labels", "accuracy on positive labels", "Spearman", "AUC")


@dataclasses.dataclass(frozen=True)
class StepHeadsBenchmark:
    """Settings of this benchmark; see configs/step_heads.yaml.

    Attributes:
      base: config of a router's training.
      problems, steps: to trace and to train for, instead of the base's.
      variants: by name, what of its `head` they change.
      rates: of steps handed over.
    """

    base: str
    problems: int
    steps: int
    variants: dict[str, dict[str, Any]]
    rates: tuple[float, ...]


def measure(config: StepHeadConfig, rates: tuple[float, ...]) -> dict[str, Any]:
    """Trains one variant and gives its row."""
    report = run_step_head(config)
    assert report.folder is not None
    draft, target = load_pair(config.draft, config.target, dtype="float32")
    router = jaxspec.load(report.folder, dtype="float32")
    traces = pair_traces(config, draft, target)
    annotation = router.config.vocabulary - target.config.vocabulary
    held_out = split(router_examples(traces, annotation), config.held_out)[1]
    score = -predict(router.params, router.config, config.head, held_out)
    steps = traces.problem >= int(traces.problem.max()) + 1 - config.held_out
    outcomes = StepOutcomes(*(field[steps] for field in outcomes_of(traces)))
    points = replay_curve(outcomes, score, rates)
    return {
        **{name: report.quality[name] for name in METRICS},
        **{f"step accuracy at {point.rate}": point.accuracy.estimate for point in points},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    config = read_config(arguments.config, StepHeadsBenchmark)
    raw = read_yaml(Path(config.base))
    raw.pop("kind")
    base = read_config(config.base, StepHeadConfig, raw)
    training = dataclasses.replace(base.training, steps=config.steps)
    base = dataclasses.replace(base, problems=config.problems, training=training)
    rows = []
    for name, changes in config.variants.items():
        head = dataclasses.replace(base.head, **changes)
        with tempfile.TemporaryDirectory() as folder:
            row = measure(dataclasses.replace(base, head=head, folder=folder), config.rates)
        rows.append({"router": name, **row})
        print(rows[-1], flush=True)
        write_report(arguments.results, "step_heads", rows, dataclasses.asdict(config))


if __name__ == "__main__":
    main()
