"""What consistency training owes to its parts: the same short run, changed in what each variant names.

    python benchmarks/consistency_ablations.py --config configs/consistency_ablations.yaml [--results results]

Every variant starts from the same base and takes as many steps; all are measured on the same fresh prompts, in blocks
of the trained size and of others.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any, cast

import jaxspec
from jaxspec.drafters.initial_tokens import Initial
from jaxspec.evaluate.config import read_config, read_yaml
from jaxspec.evaluate.report import write_report
from jaxspec.tasks.task import find_task
from jaxspec.train.jacobi_quality import jacobi_quality
from jaxspec.train.run_consistency import ConsistencyConfig, run_consistency


@dataclasses.dataclass(frozen=True)
class AblationBenchmark:
    """Settings of this benchmark; see configs/consistency_ablations.yaml.

    Attributes:
      base: config of a run of consistency training.
      changes: what all variants change of it.
      variants: by name, what each changes besides.
      prompts: fresh ones to measure on.
      seed: of these prompts.
      sizes: tokens iterated on at once, when measuring.
      initial: what stands where a model has not guessed yet, when measuring.
    """

    base: str
    changes: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    prompts: int
    seed: int
    sizes: tuple[int, ...]
    initial: str


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them changed."""
    result = dict(settings)
    for name, value in changes.items():
        inner = result.get(name)
        result[name] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def quality(config: AblationBenchmark, model: str | Path, task_name: str) -> dict[str, Any]:
    """Tokens a forward at every size, and exact match."""
    task, lm = find_task(task_name), jaxspec.load(model, dtype="float32")
    examples = [task.example(config.seed, index, "held_out") for index in range(config.prompts)]
    found = jacobi_quality(
        lm,
        [prompt for prompt, _ in examples],
        lambda index, text: task.grade(examples[index][1], text),
        sizes=config.sizes,
        initial=cast(Initial, config.initial),
    )
    row = {f"{each.mode} {each.n}": each.tokens_per_forward for each in found if each.mode != "plain"}
    return {"exact match": found[0].exact_match, "identical": all(each.identical for each in found), **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--variant", action="append", help="one of the config's, instead of all; repeatable")
    arguments = parser.parse_args()
    config = read_config(arguments.config, AblationBenchmark)
    if arguments.variant:
        unknown = set(arguments.variant) - set(config.variants)
        if unknown:
            parser.error(f"--variant {unknown.pop()!r} is not one of {', '.join(config.variants)}")
        config = dataclasses.replace(config, variants={name: config.variants[name] for name in arguments.variant})
    raw = read_yaml(Path(config.base))
    raw.pop("kind")
    raw = merged(raw, config.changes)
    runs = {
        name: read_config(config.base, ConsistencyConfig, merged(raw, changes))
        for name, changes in config.variants.items()
    }
    whole = next(iter(runs.values()))
    rows = [{"variant": "base", **quality(config, whole.base, whole.task)}]
    for name, run in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            report = run_consistency(dataclasses.replace(run, folder=folder, watch=False))
            assert report.folder is not None  # no monitor could end it
            rows.append({"variant": name, **quality(config, report.folder, run.task)})
        print(rows[-1], flush=True)
        write_report(arguments.results, "consistency_ablations", rows, dataclasses.asdict(config))


if __name__ == "__main__":
    main()
