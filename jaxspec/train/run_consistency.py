"""Consistency training from a config to a checkpoint: collect, train, perhaps collect again, measure, write the card.

CLLM (arXiv 2403.00835) is one round; Jacobi Forcing (arXiv 2512.14681) collects again with the trained model.
"""

import dataclasses
import functools
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jaxspec.drafters.initial_tokens import Initial
from jaxspec.drafters.jacobi import jacobi
from jaxspec.drafters.model_tables import fingerprint
from jaxspec.engine.generate import generate
from jaxspec.engine.load import load
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import Params
from jaxspec.tasks.question_file import Question, is_question_file, question_task, read_questions
from jaxspec.tasks.task import Ids, Task, find_task
from jaxspec.train.card import write_card
from jaxspec.train.checkpoints import checkpoint_params
from jaxspec.train.consistency import ConsistencySettings, consistency
from jaxspec.train.given_answers import GivenAnswerBatches
from jaxspec.train.jacobi_quality import JacobiQuality, jacobi_quality
from jaxspec.train.lora import LoRA
from jaxspec.train.monitors import CollapseLimits, CollapseMonitor, repetition_rate
from jaxspec.train.on_policy import RoundSettings, on_policy_round
from jaxspec.train.packing import PackedForward
from jaxspec.train.run import DTYPES, MODEL, RUN
from jaxspec.train.shards import read_shards
from jaxspec.train.trainer import Monitor, Probe, TrainSettings, check_run, describe_config, finished_steps, train
from jaxspec.train.trajectory_batches import StateChoice, TrajectoryBatches, trajectory_batches
from jaxspec.train.whole_folder import whole_folder
from jaxspec.train.widen import WiderShape, widened
from jaxspec.weights.save import save_model

SHARDS = "trajectories"
ANSWERS = ("own", "given")
# Settings no weight depends on, and `weights`, which the fingerprint of the base tells.
NO_WEIGHT = ("folder", "weights", "rounds", "held_out", "probed", "sizes", "max_new_tokens", "watch")


@dataclasses.dataclass(frozen=True)
class ConsistencyConfig:
    """A run of consistency training.

    Attributes:
      task: a name in `jaxspec.tasks.task`, or the path of questions and answers as JSON lines; see
        `jaxspec.tasks.question_file`.
      base: the model to start from, as `jaxspec.load` takes it.
      weights: a checkpoint of another run, `.../run/checkpoints/step_...`, to take the weights from instead: to go
        back before a collapse, or on from a round that was finished. A LoRA run's hold adapters alone and will not
        do. None starts from the base's own.
      widen: a wider net to set the model into before it is trained, of the same function; see `jaxspec.train.widen`.
        `weights` are then of the wider net. None trains the model as it is.
      folder: gets trajectories and the run of every round, and the finished checkpoint (`model/`).
      training: steps and optimiser of every round.
      answers: `own`: the model answers `prompts` prompts and is trained on the trajectories of its answers, as
        published; `given`: every step takes fresh prompts with the task's own answers, and nothing is collected.
      prompts: prompts answered a round, none of them twice; for own answers.
      first_prompt: number of the first, beyond what the base has seen.
      collection: of trajectories; given answers know its `block` and `blocks` alone.
      tokens: ids a text of given answers, prompt, answer and end. Rows of a file that take more are left out; where
        the model answers itself, all blocks of the collection count as the answer.
      rounds: times the model, as it is then, answers and is trained.
      batch_size: answers a step.
      states: which state of every block a step trains; given answers know the `initial` one alone, of tokens of
        `random_source`, and `loss.refinements` leads on from there.
      loss: the objective.
      lora: low-rank adapters, which are trained instead of the weights and added to them after every round; None
        trains all weights.
      held_out: prompts to measure on.
      probed: of these, at most, answered before training and every `training.probe_every` steps, so that the log tells
        how the run goes; 0 for none. With a handful a monitor knows little of repetition.
      sizes: block sizes to measure.
      max_new_tokens: of a measured answer.
      dtype: of activations in training.
      checkpoint_layers: compute layers again in the backward pass instead of keeping them.
      watch: whether a monitor stops a run that collapses.
    """

    task: str
    base: str
    folder: str
    training: TrainSettings
    answers: str = "own"
    prompts: int = 2048
    first_prompt: int = 10_000_000
    collection: RoundSettings = RoundSettings()
    tokens: int = 160
    rounds: int = 1
    batch_size: int = 16
    states: StateChoice = StateChoice()
    loss: ConsistencySettings = ConsistencySettings()
    lora: LoRA | None = None
    weights: str | None = None
    widen: WiderShape | None = None
    held_out: int = 192
    probed: int = 16
    sizes: tuple[int, ...] = (16,)
    max_new_tokens: int = 128
    dtype: str = "float32"
    checkpoint_layers: bool = False
    watch: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not one of {', '.join(DTYPES)}")
        for name in ("prompts", "tokens", "rounds", "batch_size", "held_out", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")
        if self.probed < 0:
            raise ValueError(f"probed={self.probed} is negative; use 0 for no probes")
        if self.answers not in ANSWERS:
            raise ValueError(f"answers={self.answers!r} is not one of {', '.join(ANSWERS)}")
        if self.answers == "given" and (self.states.kind != "initial" or self.loss.teacher != "global"):
            raise ValueError(
                f"answers='given' has no trajectories for states.kind={self.states.kind!r} and "
                f"loss.teacher={self.loss.teacher!r}; set them to initial and global"
            )
        if self.loss.teacher == "local" and self.states.random_share > 0:
            raise ValueError(
                f"states.random_share={self.states.random_share} needs loss.teacher='global': no state is known after "
                "fresh random tokens"
            )
        if self.answers == "given":
            unused = _changed("states", self.states, ("kind", "random_source"))
            unused += _changed("collection", self.collection, ("block", "blocks"))
            if unused:
                raise ValueError(f"answers='given' does not use {', '.join(unused)}; leave them out")

    @property
    def initial(self) -> Initial:
        """What stands where the model has not guessed yet, in training and when it is measured."""
        initial = self.states.random_source if self.answers == "given" else self.collection.initial
        return cast(Initial, initial)


def _changed(section: str, settings: StateChoice | RoundSettings, used: Sequence[str]) -> list[str]:
    """The settings of a section that are neither `used` nor at their defaults, with their values."""
    defaults = dataclasses.asdict(type(settings)())
    return [
        f"{section}.{name}={value!r}"
        for name, value in dataclasses.asdict(settings).items()
        if name not in used and value != defaults[name]
    ]


class ConsistencyReport(NamedTuple):
    """Attributes:
    folder: of the finished checkpoint, or None when a monitor ended the run.
    before, after: quality on held-out prompts, of the base and of the trained model.
    seconds: of collecting and training in this call.
    stopped: why a monitor ended the run, or None.
    """

    folder: Path | None
    before: list[JacobiQuality]
    after: list[JacobiQuality]
    seconds: float
    stopped: str | None


def run_consistency(
    config: ConsistencyConfig, *, resume: bool = False, command: str = "", monitors: Sequence[Monitor] = ()
) -> ConsistencyReport:
    """Collects, trains, measures and writes the checkpoint.

    Args:
      config: of the run.
      resume: go on where an interrupted run in `config.folder` stopped, collecting or training.
      command: for the card.
      monitors: see `trainer.train`; a collapse monitor is added if `config.watch`.

    Raises:
      FileExistsError: the folder holds a finished checkpoint, or a run and `resume` is not set.
      FileNotFoundError: `config.task` is a path, or `config.weights`, and there is no such file.
      ValueError: an unknown task, a base whose vocabulary is not the task's or that cannot be widened so, a file whose
        rows cannot be used, or another run's folder, or `config.weights` of another model.
      DivergedError, KeyboardInterrupt: see `trainer.train`.
    """
    folder = Path(config.folder)
    if (folder / MODEL).exists():
        raise FileExistsError(f"{folder / MODEL} exists already; choose another folder")
    rows = read_questions(config.task) if is_question_file(config.task) else None
    if rows is None:
        find_task(config.task)  # raises before a base is read
    base = load(config.base, dtype="float32")
    if config.widen is not None:
        base = widened(base, config.widen, seed=config.training.seed)
    if config.weights is not None:
        base = dataclasses.replace(base, params=checkpoint_params(Path(config.weights), base.params))
    task = _generated(config, base) if rows is None else _questions(config, base, rows)
    check_run(_run_folder(folder, 0), _training(config, 0), _description(config, base), resume=resume)
    measured = [task.example(config.training.seed, index, "held_out") for index in range(config.held_out)]
    before = _quality(base, config, task, measured)
    params, stopped = base.params, None
    begun = time.perf_counter()
    for number in range(config.rounds):
        params, stopped = _round(config, task, base, params, folder, number, resume, monitors, measured)
        if stopped is not None:
            break
    seconds = time.perf_counter() - begun
    trained = dataclasses.replace(base, params=params)
    after = _quality(trained, config, task, measured)
    if stopped is not None:
        return ConsistencyReport(None, before, after, seconds, stopped)
    with whole_folder(folder / MODEL) as written:
        save_model(written, base.config, params, task.tokenizer())
        write_card(
            written,
            title=f"A consistency-trained model of {Path(config.task).stem}",
            summary=_summary(config, sum(leaf.size for leaf in jax.tree.leaves(params))),
            command=command or "jaxspec.train.run_consistency.run_consistency(config)",
            config=config,
            data=_data(config, task),
            quality=_rows("base", before) | _rows("trained", after) | {"minutes of the last call": seconds / 60},
            usage=_usage(config, asked=bool(rows) and rows[0].asked and task.tokenizer().has_chat_template),
        )
    return ConsistencyReport(folder / MODEL, before, after, seconds, None)


def _generated(config: ConsistencyConfig, base: LanguageModel) -> Task:
    """The task of that name.

    Raises:
      ValueError: the base was not trained on it.
    """
    task = find_task(config.task)
    wanted = task.tokenizer().vocabulary_size
    if base.config.vocabulary != wanted:
        raise ValueError(
            f"{config.base} has {base.config.vocabulary} ids and the task {config.task!r} has {wanted}; "
            "take a base that was trained on the task"
        )
    return task


def _questions(config: ConsistencyConfig, base: LanguageModel, rows: Sequence[Question]) -> Task:
    """The questions of a file in the tokens of the base.

    Raises:
      ValueError: the base has no tokenizer, or too few rows are short enough.
    """
    tokenizer = base.tokenizer
    if tokenizer is None:
        raise ValueError(f"{config.base} has no tokenizer to read {config.task} with; take a base that has one")

    def fits(prompt: Ids, answer: str) -> bool:
        if config.answers == "own":
            room = config.collection.blocks * config.collection.block
        else:
            room = len(tokenizer.encode(answer, add_special=False)) + 1
        return len(prompt) + room <= config.tokens

    task = question_task(rows, tokenizer, config.held_out, fits)
    assert task.rows is not None
    if config.answers == "own" and config.prompts > task.rows:
        raise ValueError(
            f"prompts={config.prompts} are more than the {task.rows} rows of {config.task} to train on; lower it"
        )
    return task


def _summary(config: ConsistencyConfig, weights: int) -> str:
    base = f"`{config.base}`"
    if config.weights is not None:
        base += f", from the weights of `{config.weights}`,"
    if config.widen is not None:
        base += f" set into a net of {weights:,} weights,"
    return f"{base} after consistency training by jaxspec, so that it says several tokens a pass."


def _data(config: ConsistencyConfig, task: Task) -> str:
    if task.rows is not None:
        given = config.answers == "given"
        asked = config.rounds * (config.training.steps * config.batch_size if given else config.prompts)
        return (
            f"{'Answers of' if given else 'Own answers to'} {min(asked, task.rows):,} of {task.rows:,} rows of "
            f"`{Path(config.task).name}`, {config.rounds} round(s); measured on its last {config.held_out} rows of at "
            f"most {config.tokens} tokens."
        )
    if config.answers == "given":
        what = f"{config.training.steps * config.batch_size:,} generated examples, each seen once,"
    else:
        what = f"Answers of the model itself to {config.prompts:,} generated prompts"
    measured = f"measured on {config.held_out} prompts of the split `held_out`"
    return f"{what} of `jaxspec.tasks.{config.task}` a round, {config.rounds} round(s); {measured}."


def _round(
    config: ConsistencyConfig,
    task: Task,
    base: LanguageModel,
    params: Params,
    folder: Path,
    number: int,
    resume: bool,
    monitors: Sequence[Monitor],
    measured: Sequence[tuple[Any, str]],
) -> tuple[Params, str | None]:
    """Trained parameters, and why training was stopped, or None."""
    run = _run_folder(folder, number)
    lm = dataclasses.replace(base, params=params)
    if config.answers == "given":
        batches = _given_answers(config, task, number)
    else:
        batches = _own_answers(config, lm, task, run.with_name(SHARDS), number)
    forward = PackedForward(base.config, DTYPES[config.dtype], config.checkpoint_layers)
    watching = [CollapseMonitor(CollapseLimits(), finished_steps(run))] if config.watch else []
    settings, lora = _training(config, number), config.lora
    probe = _probe(base, config, task, measured[: config.probed]) if config.probed else None
    if probe is not None:
        probe(params)  # what cannot be decoded fails here, not after hours
    result = train(
        params if lora is None else lora.init(params, jax.random.key(settings.seed)),
        consistency(forward, config.loss),
        batches,
        settings,
        run,
        description=_description(config, lm),
        frozen=None if lora is None else params,
        combine=None if lora is None else lora.combine,
        monitors=[*watching, *monitors],
        probe=probe,
        resume=resume,
    )
    return result.params if lora is None else lora.combine(result.params, params), result.stopped


def _run_folder(folder: Path, number: int) -> Path:
    return folder / f"round-{number}" / RUN


def _training(config: ConsistencyConfig, number: int) -> TrainSettings:
    """Of one round."""
    return dataclasses.replace(config.training, seed=config.training.seed + number)


def _description(config: ConsistencyConfig, lm: LanguageModel) -> dict[str, Any]:
    """What decides a round that begins with `lm`, besides `_training`."""
    settings = describe_config(config, ("training", *NO_WEIGHT))
    del settings["collection"]["lanes"]
    if is_question_file(config.task):
        settings["task"] = hashlib.sha256(Path(config.task).read_bytes()).hexdigest()
        settings["held_out"] = config.held_out  # these rows are not among those to train on
    return settings | {"base": fingerprint(lm)}


def _own_answers(
    config: ConsistencyConfig, lm: LanguageModel, task: Task, folder: Path, number: int
) -> TrajectoryBatches:
    """Batches of the trajectories of the model's own answers, which are collected first unless they are there."""
    seed = config.training.seed
    first = config.first_prompt + number * config.prompts
    prompts = [task.example(seed, index, "train")[0] for index in range(first, first + config.prompts)]
    collection = dataclasses.replace(config.collection, seed=config.collection.seed + number)

    def say(shards: int, of: int) -> None:
        if config.training.progress_every:
            print(f"{shards} of {of} shards of trajectories", file=sys.stderr, flush=True)

    on_policy_round(lm, PackedForward(lm.config), prompts, folder, collection, say)
    _, trajectories = read_shards(folder, lm.config.vocabulary)
    return trajectory_batches(
        trajectories,
        lm.config.vocabulary,
        config.batch_size,
        choice=config.states,
        teacher=config.loss.teacher,
        seed=seed,
    )


def _given_answers(config: ConsistencyConfig, task: Task, number: int) -> GivenAnswerBatches:
    """Batches of the task's answers, from `first_prompt` on, none twice in any round but where a file has no more."""
    seed, tokenizer = config.training.seed, task.tokenizer()
    first = config.first_prompt + number * config.training.steps * config.batch_size
    return GivenAnswerBatches(
        lambda index: task.example(seed, first + index, "train"),
        tokenizer,
        config.batch_size,
        config.tokens,
        config.collection.blocks,
        config.collection.block,
        tokenizer.vocabulary_size,
        config.states.random_source,
        seed=seed,
    )


def _probe(base: LanguageModel, config: ConsistencyConfig, task: Task, examples: Sequence[tuple[Any, str]]) -> Probe:
    """How the model answers held-out prompts as it is: tokens a forward, right answers, repetition."""
    prompts = [prompt for prompt, _ in examples]
    drafter = jacobi(_shown_size(config), "rolling", config.initial)

    @functools.cache
    def base_repetition() -> float:
        return repetition_rate(generate(base, prompts, max_new_tokens=config.max_new_tokens).ids)

    def probe(params: Params) -> dict[str, float]:
        lm = dataclasses.replace(base, params=params)
        said = generate(lm, prompts, drafter=drafter, max_new_tokens=config.max_new_tokens)
        right = [task.grade(answer, text) for (_, answer), text in zip(examples, said.texts, strict=True)]
        return {
            "held_out_exact_match": sum(right) / len(right),
            "held_out_repetition": repetition_rate(said.ids),
            "base_repetition": base_repetition(),
            "held_out_tokens_per_forward": said.statistics.tokens_per_call,
        }

    return probe


def _quality(
    lm: LanguageModel, config: ConsistencyConfig, task: Task, examples: Sequence[tuple[Any, str]]
) -> list[JacobiQuality]:
    return jacobi_quality(
        lm,
        [prompt for prompt, _ in examples],
        lambda index, text: task.grade(examples[index][1], text),
        sizes=config.sizes,
        initial=config.initial,
        max_new_tokens=config.max_new_tokens,
    )


def _usage(config: ConsistencyConfig, *, asked: bool) -> str:
    """Python that decodes as was measured; questions are `asked` in the chat template."""
    chat = ", chat=True" if asked else ""
    return (
        "import jaxspec\nfrom jaxspec.drafters import jacobi\n\n"
        'lm = jaxspec.load("path/of/this/folder", dtype="float32")\n'
        f'drafter = jacobi({_shown_size(config)}, "rolling", init="{config.initial}")\n'
        f"jaxspec.generate(lm, prompt, drafter=drafter{chat})"
    )


def _shown_size(config: ConsistencyConfig) -> int:
    """Tokens iterated on at once where one number has to do."""
    block = max(config.collection.block, 2)
    return block if block in config.sizes or not config.sizes else config.sizes[0]


def _rows(who: str, found: Sequence[JacobiQuality]) -> dict[str, object]:
    """What the card says; a speed that changed the text is none."""
    rows: dict[str, object] = {}
    for quality in found:
        name = quality.mode if quality.mode == "plain" else f"{quality.mode}, n = {quality.n}"
        fast = (
            float(np.round(quality.tokens_per_forward, 3)) if quality.identical else "void: ids differ from plain ones"
        )
        rows[f"{who}, {name}: tokens a forward"] = fast
        rows[f"{who}, {name}: exact match"] = float(np.round(quality.exact_match, 4))
    return rows | {f"{who}: device": jax.devices()[0].device_kind}
