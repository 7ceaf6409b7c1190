"""Accuracy against escalations of RSD, ARBITRAGE, its oracle and chance on the arithmetic task.

    python benchmarks/arbitrage.py --config configs/arbitrage.yaml [--lanes 1] [--seed 101 ...] [--results results]

Two measurements. Rollouts: every policy at several thresholds solves the same fresh problems, for every seed; final
answers, waste and wall clock are those of real runs. Replay: both models' steps from the same stored contexts, so that
the curves of any score have as many points as wanted and differences are paired step by step.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from jaxspec.evaluate import arbitrage_demo
from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.frontier import FrontierRun, difference, escalation_at, plot
from jaxspec.evaluate.report import markdown_table, write_report
from jaxspec.evaluate.step_replay import break_even, gain_over, outcomes_of, replay_curve
from jaxspec.steps.exact_score import exact_score
from jaxspec.tasks.arithmetic import prompt_text
from jaxspec.train.run_step_head import MAX_STEPS, NEW_TOKENS, step_segmentation
from jaxspec.train.step_heads import HeadSettings, predict, router_examples
from jaxspec.train.step_traces import collect_traces

REPLAYED = tuple(round(0.05 * index, 2) for index in range(0, 21))
COSTS = ("escalation", "target_tokens", "seconds")


@dataclasses.dataclass(frozen=True)
class ArbitrageBenchmark:
    """Settings of this benchmark; see configs/arbitrage.yaml."""

    draft: str
    target: str
    reward: str
    router: str
    problems: int
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    lanes: int
    traces: int


def rollouts(config: ArbitrageBenchmark, models: arbitrage_demo.Models, seed: int) -> list[FrontierRun]:
    """Every policy at every threshold."""
    problems = arbitrage_demo.fresh_problems(config.problems, seed)
    runs = arbitrage_demo.run_demo(
        models,
        problems,
        seed=seed,
        lanes=config.lanes,
        rates=config.rates,
        advance=lambda: print(".", end="", flush=True),
    )
    print(f" seed {seed}", flush=True)
    return runs


def write_rollouts(found: dict[int, list[FrontierRun]], folder: Path, settings: dict[str, Any]) -> None:
    """All points, costs at matched accuracy, paired differences and a plot a seed."""
    write_report(folder, "arbitrage", rows_of(found), settings)
    matched = [
        {"seed": seed, **at_matched_accuracy(runs, share)}
        for seed, runs in found.items()
        for share in (0.25, 0.5, 0.75, 1.0)
    ]
    (folder / "arbitrage-matched.md").write_text(markdown_table(matched))
    for seed, runs in found.items():
        plot(runs, folder / f"arbitrage-{seed}.png", f"arithmetic, {len(runs[0].right)} problems, seed {seed}")
        (folder / f"arbitrage-paired-{seed}.md").write_text(markdown_table(over_chance(runs)))


def rows_of(found: dict[int, list[FrontierRun]]) -> list[dict[str, Any]]:
    """A row a seed, policy and threshold."""
    return [{"seed": seed, **run.point._asdict()} for seed, runs in found.items() for run in runs]


def at_matched_accuracy(runs: list[FrontierRun], share: float) -> dict[str, Any]:
    """Every policy's least costs at the accuracy a share of the way from the draft's to the target's."""
    alone = {run.point.policy: run for run in runs if run.point.policy in ("draft_only", "target_only")}
    ends = [alone[name].point.accuracy for name in ("draft_only", "target_only")]
    wanted = ends[0] + share * (ends[1] - ends[0])
    row: dict[str, Any] = {"share": share, "accuracy": wanted}
    for name in ("random", "rsd", "arbitrage", "oracle"):
        mine = [run for run in runs if run.point.policy == name]
        for cost in COSTS:
            # The target alone is every policy's limit, but its clock is not theirs.
            limits = [alone["draft_only"], *([alone["target_only"]] if name != "oracle" else [])]
            limits = [] if cost == "seconds" else limits
            row[f"{name} {cost}"] = escalation_at([*mine, *limits], wanted, cost)
    row["target alone, tokens"] = alone["target_only"].point.target_tokens
    row["target alone, seconds"] = alone["target_only"].point.seconds
    return row


def over_chance(runs: list[FrontierRun]) -> list[dict[str, Any]]:
    """Paired differences of final accuracy, ARBITRAGE minus the RSD point and the random point of nearest rate."""
    rows = []
    for run in runs:
        if run.point.policy != "arbitrage":
            continue
        for name in ("rsd", "random"):
            others = [other for other in runs if other.point.policy == name]
            nearest = min(others, key=lambda other: abs(other.point.escalation - run.point.escalation))
            interval = difference(nearest, run)
            rows.append(
                {
                    "rate": run.point.escalation,
                    "against": name,
                    "its rate": nearest.point.escalation,
                    "difference": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return rows


def replayed(config: ArbitrageBenchmark, models: arbitrage_demo.Models) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Curves of step accuracy from paired traces on fresh problems, and paired differences at a few rates."""
    problems = arbitrage_demo.fresh_problems(config.traces, config.seeds[0] + 1000)
    traces = collect_traces(
        models.draft,
        models.target,
        [prompt_text(problem) for problem in problems],
        exact_score(),
        segmentation=step_segmentation(),
        max_new_tokens=NEW_TOKENS,
        max_steps=MAX_STEPS,
        lanes=32,
    )
    outcomes = outcomes_of(traces)
    kinds = {
        "rsd": ("reward", models.reward),
        "arbitrage": (getattr(models.router.score, "expects", ""), models.router),
    }
    scores = {
        "random": np.zeros(len(outcomes.problem)),
        "rsd, perfect verifier": outcomes.draft_right.astype(float),
        "oracle": outcomes.draft_right.astype(float) - outcomes.target_right,
    }
    for name, (kind, scoring) in kinds.items():
        annotation = scoring.model.config.vocabulary - models.target.config.vocabulary
        examples = router_examples(traces, annotation)
        said = predict(scoring.model.params, scoring.model.config, HeadSettings(kind), examples)
        scores[name] = said if kind == "reward" else -said
    rows = [
        {
            "policy": name,
            "rate": point.rate,
            "step accuracy": point.accuracy.estimate,
            "low": point.accuracy.low,
            "high": point.accuracy.high,
            "target token share": point.target_share,
            "wasted": point.wasted,
        }
        for name, score in scores.items()
        for point in replay_curve(outcomes, score, REPLAYED)
    ]
    gains = {
        f"{second} over {first} at {rate}": tuple(gain_over(outcomes, scores[first], scores[second], rate))
        for first, second in (("rsd", "arbitrage"), ("random", "arbitrage"), ("random", "rsd"))
        for rate in (0.1, 0.2, 0.3)
    }
    return rows, gains


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--lanes", type=int, help="overrides the config's")
    parser.add_argument("--seed", type=int, action="append", help="instead of the config's; repeatable")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    config = read_config(arguments.config, ArbitrageBenchmark)
    config = dataclasses.replace(
        config, lanes=arguments.lanes or config.lanes, seeds=tuple(arguments.seed or config.seeds)
    )
    models = arbitrage_demo.load_models(config.draft, config.target, config.reward, config.router)
    settings = dataclasses.asdict(config)

    found: dict[int, list[FrontierRun]] = {}
    for seed in config.seeds:
        found[seed] = rollouts(config, models, seed)
        write_rollouts(found, arguments.results, settings)

    alone = {
        name: [r.point for runs in found.values() for r in runs if r.point.policy == name]
        for name in ("draft_only", "target_only")
    }
    clock = [statistics.mean(point.seconds for point in points) for points in alone.values()]
    ratio = clock[0] / clock[1]
    print(
        f"draft alone: {ratio:.2f} of the target's time; with a free scorer, break-even at {break_even(ratio, 0.0):.2f}"
    )

    rows, gains = replayed(config, models)
    write_report(arguments.results, "arbitrage-replay", rows, settings | {"paired differences": gains})
    for name, interval in gains.items():
        print(f"{name}: {interval[0]:+.3f} [{interval[1]:+.3f}, {interval[2]:+.3f}]")


if __name__ == "__main__":
    main()
