"""A reward model or router from a config: trace the pair's steps, train a head on the target's backbone, measure it."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxspec.engine.load import load_pair
from jaxspec.engine.score_model import ScoringModel, describe_scoring, load_scorer, weights_hash
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps.exact_score import exact_score
from jaxspec.steps.segmentation import Segmentation
from jaxspec.tasks.task import find_task
from jaxspec.train.card import write_card
from jaxspec.train.ranking_metrics import auc, calibration, label_accuracy, spearman
from jaxspec.train.run import MODEL, RUN, RunReport
from jaxspec.train.step_heads import (
    HeadBatches,
    HeadExamples,
    HeadObjective,
    HeadSettings,
    balanced,
    gain_classes,
    init_from,
    is_positive,
    predict,
    reward_examples,
    router_examples,
    scoring_config,
    split,
    take,
)
from jaxspec.train.step_shards import describe, read_traces, write_missing
from jaxspec.train.step_traces import StepTraces, collect_traces, first_problems
from jaxspec.train.trainer import Monitor, TrainSettings, check_run, describe_config, train
from jaxspec.train.whole_folder import whole_folder
from jaxspec.weights.save import save_model

STEP_TOKENS, MAX_STEPS, NEW_TOKENS = 40, 10, 96  # longer than any step, chain and solution of the task


@dataclasses.dataclass(frozen=True)
class StepHeadConfig:
    """A training run of a reward model or router.

    Attributes:
      draft, target: the pair, as `load_pair` takes them.
      folder: gets the run (`run/`) and the finished checkpoint (`model/`).
      traces: folder of the paired step traces; those that are missing are collected. Runs may share it.
      head: what to learn.
      training: steps and optimiser; its seed also draws the problems, the order and the first head.
      task: with an exact checker of steps: `arithmetic`.
      labels: `exact`, or the folder of a reward model whose scores are taken for the steps' worth.
      problems: to use; as many shards are traced as hold them. The last `held_out` of them are measured on.
      held_out: see there.
      first_problem: number of the first, beyond what the pair was trained on.
      shard: problems a file of traces.
      lanes: problems traced at once.
      rows: steps a batch.
    """

    draft: str
    target: str
    folder: str
    traces: str
    head: HeadSettings
    training: TrainSettings
    task: str = "arithmetic"
    labels: str = "exact"
    problems: int = 2000
    held_out: int = 400
    first_problem: int = 1_000_000
    shard: int = 500
    lanes: int = 32
    rows: int = 32

    def __post_init__(self) -> None:
        for name in ("problems", "held_out", "shard", "lanes", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")
        if self.held_out >= self.problems:
            raise ValueError(f"held_out={self.held_out} leaves none of problems={self.problems} to train on")
        if self.task != "arithmetic":
            raise ValueError(f"task={self.task!r} has no exact checker of steps; choose arithmetic")


def run_step_head(
    config: StepHeadConfig, *, resume: bool = False, command: str = "", monitors: Sequence[Monitor] = ()
) -> RunReport:
    """Traces, trains, measures and writes the checkpoint with its card and the hashes of its pair.

    Args:
      config: of the run.
      resume: go on from the latest checkpoint of the run in `config.folder`; traces always go on.
      command: for the card.
      monitors: see `trainer.train`.

    Raises:
      FileExistsError: the folder holds a finished checkpoint, or a run and `resume` is not set.
      ValueError: models or traces do not fit each other, or another run's folder.
      DivergedError, KeyboardInterrupt: see `trainer.train`.
    """
    folder = Path(config.folder)
    if (folder / MODEL).exists():
        raise FileExistsError(f"{folder / MODEL} exists already; choose another folder")
    draft, target = load_pair(config.draft, config.target, dtype="float32")
    labels = _label_model(config, draft, target)
    description = _description(config, draft, target, labels)
    check_run(folder / RUN, config.training, description, resume=resume)
    traces = _traces(config, draft, target, labels)
    settings, seed = config.head, config.training.seed
    annotation = target.config.vocabulary if settings.annotate else 0
    examples = reward_examples(traces) if settings.kind == "reward" else router_examples(traces, annotation)
    training, held_out = split(examples, config.held_out)
    edges = tuple(float(edge) for edge in gain_classes(np.asarray(training.value), settings.classes))
    if settings.balance:
        training = take(training, balanced(is_positive(settings, training.value), seed))
    scoring = scoring_config(target.config, settings)
    begun = time.perf_counter()
    result = train(
        init_from(target.config, target.params, settings, seed),
        HeadObjective(scoring, settings, edges),
        HeadBatches(training, config.rows, seed),
        config.training,
        folder / RUN,
        description=description,
        monitors=monitors,
        probe=lambda params: {
            "held_out_auc": auc(predict(params, scoring, settings, held_out), is_positive(settings, held_out.value))
        },
        resume=resume,
    )
    seconds = time.perf_counter() - begun
    quality = head_quality(predict(result.params, scoring, settings, held_out), settings, held_out)
    count = sum(leaf.size for leaf in jax.tree.leaves(result.params))
    if result.stopped is not None:
        return RunReport(None, count, result.step, seconds, quality, result.stopped)
    with whole_folder(folder / MODEL) as written:
        save_model(written, scoring, result.params, target.tokenizer)
        of_draft = predict(
            result.params, scoring, settings, split(router_examples(traces, annotation), config.held_out)[1]
        )
        scores = of_draft if settings.kind == "reward" else -of_draft
        describe_scoring(written, settings.kind, draft, target, scores)
        what = "reward model: the probability that a step is right"
        if settings.kind != "reward":
            what = f"router ({settings.kind}): what the target's step would gain on the draft's, before it is written"
        serves = (
            "; it serves any pair of its vocabulary" if settings.kind == "reward" else ", which refuses another pair"
        )
        write_card(
            written,
            title=f"A step {'reward model' if settings.kind == 'reward' else 'router'} of {config.task}",
            summary=f"A {what}. {count:,} parameters, on the backbone of the target. Open it with "
            f"`jaxspec.load_scorer(folder, draft, target)`{serves}.\n\n"
            f"- draft, SHA-256 of its weights: `{weights_hash(draft)}`\n"
            f"- target, SHA-256 of its weights: `{weights_hash(target)}`",
            command=command or "jaxspec.train.run_step_head.run_step_head(config)",
            config=config,
            data=f"{len(traces.problem):,} paired steps of {config.problems:,} generated problems, number "
            f"{config.first_problem:,} and on of seed {seed}, both models writing from the text of the greedy oracle; "
            f"labels: {config.labels}. {len(training.end):,} examples trained on"
            f"{', as many of each label' if settings.balance else ''}; {len(held_out.end):,} of the last "
            f"{config.held_out} problems measured on.",
            quality={"steps": result.step, **quality, "minutes of the last training call": seconds / 60},
        )
    return RunReport(folder / MODEL, count, result.step, seconds, quality, None)


def pair_traces(config: StepHeadConfig, draft: LanguageModel, target: LanguageModel) -> StepTraces:
    """The traces a config asks for, collected where they are missing."""
    return _traces(config, draft, target, _label_model(config, draft, target))


def _label_model(config: StepHeadConfig, draft: LanguageModel, target: LanguageModel) -> ScoringModel | None:
    """The reward model whose scores are the labels, or None for exact ones."""
    return None if config.labels == "exact" else load_scorer(config.labels, draft, target, dtype="float32")


def _labels_of(labels: ScoringModel | None) -> str:
    return "exact" if labels is None else weights_hash(labels.model)


def _description(
    config: StepHeadConfig, draft: LanguageModel, target: LanguageModel, labels: ScoringModel | None
) -> dict[str, Any]:
    """What decides a run, besides `config.training`."""
    pair = {"draft": weights_hash(draft), "target": weights_hash(target), "labels": _labels_of(labels)}
    return describe_config(config, ("folder", "traces", "training", "shard", "lanes")) | pair


def _traces(
    config: StepHeadConfig, draft: LanguageModel, target: LanguageModel, labels: ScoringModel | None
) -> StepTraces:
    task, seed = find_task(config.task), config.training.seed
    shards = -(-config.problems // config.shard)

    def make(index: int) -> StepTraces:
        first = index * config.shard
        numbers = range(first, first + config.shard)  # whole, so that a longer run goes on from it
        return collect_traces(
            draft,
            target,
            [task.example(seed, config.first_problem + number)[0] for number in numbers],
            exact_score() if labels is None else labels.score,
            scorer=None if labels is None else labels.model,
            segmentation=step_segmentation(),
            max_new_tokens=NEW_TOKENS,
            max_steps=MAX_STEPS,
            lanes=config.lanes,
            seed=seed,
        )

    description = describe(
        draft,
        target,
        task=config.task,
        labels=_labels_of(labels),
        seed=seed,
        first_problem=config.first_problem,
        shard=config.shard,
    )
    write_missing(config.traces, description, shards, make)
    return first_problems(read_traces(config.traces)[1], config.problems)


@functools.cache
def step_segmentation() -> Segmentation:
    """Steps of the arithmetic task: lines."""
    return Segmentation.custom(["\n"], STEP_TOKENS)


def head_quality(predicted: np.ndarray, settings: HeadSettings, examples: HeadExamples) -> dict[str, float]:
    """Metrics of predictions (N,) on examples: per label at the natural threshold, ranks, and calibration.

    Calibration is against the natural rate of the label; a head trained on balanced data is expected to overstate.
    """
    value = np.asarray(examples.value)
    positive = is_positive(settings, value)
    accuracy = label_accuracy(predicted, positive, 0.0 if settings.kind == "advantage" else 0.5)
    found = {
        "share of positive labels": float(positive.mean()),
        "accuracy on negative labels": accuracy.negative,
        "accuracy on positive labels": accuracy.positive,
        "Spearman": spearman(predicted, value),
        "AUC": auc(predicted, positive),
    }
    if settings.kind in ("reward", "binary", "classes"):
        found["mean prediction"] = float(predicted.mean())
        found["calibration error"] = calibration(np.clip(predicted, 0.0, 1.0), positive).error
    return found
