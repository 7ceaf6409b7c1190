"""A language model from scratch on a task: from a config to a checkpoint with its card."""

import dataclasses
import functools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Params
from jaxspec.tasks.task import Task, find_task
from jaxspec.train.answers import AnswerBatches, answer_quality, encode_answers
from jaxspec.train.card import write_card
from jaxspec.train.forward import init_params
from jaxspec.train.language_model_loss import LanguageModelObjective, TextBatch
from jaxspec.train.trainer import Monitor, TrainSettings, describe_config, train
from jaxspec.train.whole_folder import whole_folder
from jaxspec.weights.save import save_model

MODEL, RUN = "model", "run"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MEASURED_AT_ONCE = 64  # held-out examples a forward pass


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """Size of a model from scratch, of the Llama family.

    Attributes:
      width: of the residual stream.
      mlp_width: of the gated hidden layer.
      layers: number of blocks.
      heads: of queries, keys and values alike.
      context: longest text it is meant for, in tokens.
      tied: the head is the embedding.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    context: int = 512
    tied: bool = False

    def config(self, vocabulary: int) -> ModelConfig:
        """The full description.

        Raises:
          ValueError: `heads` does not divide `width`.
        """
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}")
        return ModelConfig(
            family="llama",
            vocabulary=vocabulary,
            width=self.width,
            mlp_width=self.mlp_width,
            layers=self.layers,
            query_heads=self.heads,
            key_heads=self.heads,
            head_width=self.width // self.heads,
            context=self.context,
            tied=self.tied,
        )


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """A training run of a language model on a task's answers.

    Attributes:
      task: a name in `jaxspec.tasks.task`.
      folder: gets the run (`run/`) and the finished checkpoint (`model/`).
      model: its size.
      training: steps and optimiser; its seed also draws data and first parameters.
      rows: texts a step.
      tokens: ids a text, prompt, answer and end; shorter ones are filled up.
      held_out: examples of the other split to measure on.
      label_smoothing: share of the target's mass spread over the vocabulary.
      dtype: of activations, `float32` or `bfloat16`; parameters and loss are float32.
      checkpoint_layers: compute layers again in the backward pass instead of keeping them.
    """

    task: str
    folder: str
    model: ModelShape
    training: TrainSettings
    rows: int = 24
    tokens: int = 160
    held_out: int = 256
    label_smoothing: float = 0.0
    dtype: str = "float32"
    checkpoint_layers: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not one of {', '.join(DTYPES)}")
        for name in ("rows", "tokens", "held_out"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")


class RunReport(NamedTuple):
    """Attributes:
    folder: of the finished checkpoint, or None when a monitor ended the run.
    parameters: their number.
    steps: done.
    seconds: of training in this call, compilation included.
    quality: on held-out examples; see `answer_quality`.
    stopped: why a monitor ended the run, or None.
    """

    folder: Path | None
    parameters: int
    steps: int
    seconds: float
    quality: dict[str, float]
    stopped: str | None


def run(
    config: LanguageModelConfig, *, resume: bool = False, command: str = "", monitors: Sequence[Monitor] = ()
) -> RunReport:
    """Trains a model from scratch, measures it on held-out examples and writes the checkpoint.

    Args:
      config: of the run.
      resume: go on from the latest checkpoint of the run in `config.folder`.
      command: for the card.
      monitors: see `trainer.train`.

    Raises:
      FileExistsError: the folder holds a finished checkpoint, or a run and `resume` is not set.
      ValueError: an unknown task, a heads or token count that does not fit, or another run's folder.
      DivergedError, KeyboardInterrupt: see `trainer.train`.
    """
    task = find_task(config.task)
    tokenizer = task.tokenizer()
    model = config.model.config(tokenizer.vocabulary_size)
    folder = Path(config.folder)
    if (folder / MODEL).exists():
        raise FileExistsError(f"{folder / MODEL} exists already; choose another folder")
    seed = config.training.seed
    held_out = _held_out(task, config, range(config.held_out))
    params = init_params(model, jax.random.key(seed))
    begun = time.perf_counter()
    result = train(
        params,
        LanguageModelObjective(model, config.label_smoothing, DTYPES[config.dtype], config.checkpoint_layers),
        AnswerBatches(functools.partial(task.example, seed), tokenizer, config.rows, config.tokens),
        config.training,
        folder / RUN,
        description=describe_config(config, ("folder", "training", "held_out")),
        monitors=monitors,
        probe=lambda params: answer_quality(params, model, held_out[0]),
        resume=resume,
    )
    seconds = time.perf_counter() - begun
    quality = _mean_quality(result.params, model, held_out)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    if result.stopped is not None:
        return RunReport(None, count, result.step, seconds, quality, result.stopped)
    with whole_folder(folder / MODEL) as written:
        save_model(written, model, result.params, tokenizer)
        write_card(
            written,
            title=f"A small language model of {config.task}",
            summary=f"A Llama of {count:,} parameters, trained from scratch by jaxspec on generated examples.",
            command=command or "jaxspec.train.run.run(config)",
            config=config,
            data=f"Generated by `jaxspec.tasks.{config.task}` from seed {seed}: {result.step * config.rows:,} examples "
            f"of the split `train`, each seen once; measured on {config.held_out} of the split `held_out`.",
            quality={
                "steps": result.step,
                "exact match (held out, greedy)": quality["exact_match"],
                "cross-entropy (nats an answer token)": quality["nats"],
                "entropy (nats an answer token)": quality["entropy"],
                "minutes of the last training call": seconds / 60,
                "device": jax.devices()[0].device_kind,
            },
        )
    return RunReport(folder / MODEL, count, result.step, seconds, quality, None)


def _held_out(task: Task, config: LanguageModelConfig, indices: Iterable[int]) -> list[TextBatch]:
    """Held-out examples in equal batches, the last one shorter."""
    examples = [task.example(config.training.seed, index, "held_out") for index in indices]
    tokenizer = task.tokenizer()
    return [
        encode_answers(examples[start : start + MEASURED_AT_ONCE], tokenizer, config.tokens)
        for start in range(0, len(examples), MEASURED_AT_ONCE)
    ]


def _mean_quality(params: Params, model: ModelConfig, batches: Sequence[TextBatch]) -> dict[str, float]:
    """`answer_quality` over several batches: exact match a text, the others a token."""
    measured = [answer_quality(params, model, batch) for batch in batches]
    texts = [len(batch.ids) for batch in batches]
    tokens = [int(np.sum(batch.counted)) for batch in batches]
    return {
        name: float(np.average([part[name] for part in measured], weights=texts if name == "exact_match" else tokens))
        for name in measured[0]
    }
