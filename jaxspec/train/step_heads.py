"""Heads that score steps: reward models and advantage routers, trained on paired step traces.

A reward model says whether a step is right. A router says, before the target has written anything, what its step
would gain on the draft's (ARBITRAGE, arXiv 2512.05033, section 4.2): the probability of a gain (`binary`), classes of
gains (`classes`), cumulative classes (`ordinal`), or the gain itself (`advantage`), which is what an optimal policy
needs. All read the last token of the step, on the backbone of a language model.

Shapes: N examples, B of a batch, T tokens of a text, O outputs, K classes.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Params
from jaxspec.steps.scorers import AdvantageRouter, RewardModel
from jaxspec.train.forward import hidden_states, init_params, project
from jaxspec.train.step_traces import StepTraces

KINDS = ("reward", "binary", "classes", "ordinal", "advantage")
MEASURED_AT_ONCE = 64


class HeadExamples(NamedTuple):
    """Steps in their texts; NumPy on the host, JAX inside jit.

    Attributes:
      ids: (N, T) int32, 0 behind the step.
      end: (N,) int32 place of the step's last token.
      value: (N,) float32 the step's score for a reward model, the target's gain for a router.
      problem: (N,) int32.
    """

    ids: Any
    end: Any
    value: Any
    problem: Any


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """What a head learns to say.

    Attributes:
      kind: one of `KINDS`.
      classes: K, even, of `classes` and `ordinal`: half of them of steps that gain.
      balance: leave out examples of the more frequent label, drawn at random, until both are as many.
      annotate: show the router which steps of the text the target wrote; see `jaxspec.steps.history`.
    """

    kind: str = "binary"
    classes: int = 4
    balance: bool = True
    annotate: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not one of {', '.join(KINDS)}")
        if self.classes < 2 or self.classes % 2:
            raise ValueError(f"classes={self.classes} is not an even number of at least 2")
        if self.annotate and self.kind == "reward":
            raise ValueError("annotate=True is for routers: a reward model must not care who wrote a step")

    @property
    def outputs(self) -> int:
        """O."""
        return {"binary": 2, "classes": self.classes, "ordinal": self.classes - 1}.get(self.kind, 1)

    def scorer(self) -> RewardModel | AdvantageRouter:
        """What reads such a head in the step loop."""
        return RewardModel() if self.kind == "reward" else AdvantageRouter(self.kind)


def reward_examples(traces: StepTraces) -> HeadExamples:
    """Every step of both models with its score; where both wrote the same, once."""
    of_draft = _examples(traces, traces.draft, traces.draft_length, np.nan_to_num(traces.draft_score))
    of_target = _examples(traces, traces.target, traces.target_length, np.nan_to_num(traces.target_score))
    differs = (traces.draft_length != traces.target_length) | np.any(traces.draft != traces.target, axis=1)
    return HeadExamples(*(np.concatenate(pair) for pair in zip(of_draft, take(of_target, differs), strict=True)))


def router_examples(traces: StepTraces, annotation: int = 0) -> HeadExamples:
    """Every step of the draft with what the target's would have gained.

    Args:
      traces: of the pair.
      annotation: added to the ids of what the target wrote before the step; see `jaxspec.steps.history`.
    """
    examples = _examples(traces, traces.draft, traces.draft_length, traces.advantage)
    if not annotation:
        return examples
    before = np.arange(examples.ids.shape[1]) < traces.start[:, None]
    by_target = _by_target(traces, examples.ids.shape[1])[traces.problem]
    return examples._replace(ids=np.where(before & by_target, examples.ids + annotation, examples.ids))


def split(examples: HeadExamples, held_out: int) -> tuple[HeadExamples, HeadExamples]:
    """Examples to train on, and those of the last `held_out` problems.

    Raises:
      ValueError: one of them would be empty.
    """
    last = int(examples.problem.max()) + 1 - held_out
    parts = tuple(
        take(examples, np.flatnonzero(where)) for where in (examples.problem < last, examples.problem >= last)
    )
    if not all(len(part.end) for part in parts):
        raise ValueError(f"held_out={held_out} of {int(examples.problem.max()) + 1} problems leaves one side empty")
    return parts[0], parts[1]


def take(examples: HeadExamples, index: np.ndarray) -> HeadExamples:
    """The examples at `index`."""
    return HeadExamples(*(np.asarray(field)[index] for field in examples))


def is_positive(settings: HeadSettings, value: np.ndarray) -> np.ndarray:
    """(N,) bool the label by which examples are balanced and measured: a right step, or a gain."""
    return np.asarray(value) > (0.5 if settings.kind == "reward" else 0.0)


def balanced(positive: np.ndarray, seed: int) -> np.ndarray:
    """Indices of all examples of the rarer label and of as many of the other, in order.

    Raises:
      ValueError: a label has no example.
    """
    groups = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    fewest = min(map(len, groups))
    if fewest == 0:
        raise ValueError("all examples have the same label: there is nothing to tell apart")
    random = np.random.default_rng([seed, 3])
    return np.sort(np.concatenate([random.choice(group, fewest, replace=False) for group in groups]))


def gain_classes(value: np.ndarray, classes: int) -> np.ndarray:
    """(K - 1,) float32 edges between classes of gains: 0 in the middle, quantiles of either side around it.

    Gains at an edge belong below. Where gains repeat, edges coincide and some class stays empty.
    """
    inner = np.arange(1, classes // 2) / (classes // 2)
    sides = [value[value <= 0], value[value > 0]]
    low, high = (np.quantile(side, inner) if len(side) else np.zeros(len(inner)) for side in sides)
    return np.concatenate([np.minimum(low, 0.0), [0.0], high]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class HeadObjective:
    """An `Objective` on `HeadExamples`: binary cross-entropy of right or wrong, cross-entropy of classes, the sum over
    thresholds of binary cross-entropies, or squared error.

    Attributes:
      config: of the scoring model.
      settings: what it says.
      edges: between classes, see `gain_classes`.
    """

    config: ModelConfig
    settings: HeadSettings
    edges: tuple[float, ...] = ()

    def __call__(self, params: Params, batch: HeadExamples, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        outputs, value = step_outputs(params, self.config, batch), jnp.asarray(batch.value)
        kind = self.settings.kind
        level = jnp.sum(value[:, None] > jnp.asarray(self.edges, jnp.float32), axis=1, dtype=jnp.int32)
        if kind == "reward":
            losses = _binary(outputs[:, 0], value)
        elif kind == "advantage":
            losses = jnp.square(outputs[:, 0] - value)
        elif kind == "ordinal":
            above = (level[:, None] > jnp.arange(len(self.edges))).astype(jnp.float32)
            losses = jnp.sum(_binary(outputs, above), axis=1)
        else:
            chosen = (value > 0).astype(jnp.int32) if kind == "binary" else level
            losses = -jnp.take_along_axis(jax.nn.log_softmax(outputs), chosen[:, None], axis=1)[:, 0]
        positive = value > (0.5 if kind == "reward" else 0.0)
        said = predictions(outputs, self.settings) > (0.0 if kind == "advantage" else 0.5)
        return jnp.mean(losses), {"accuracy": jnp.mean((said == positive).astype(jnp.float32))}


def step_outputs(params: Params, config: ModelConfig, batch: HeadExamples) -> jax.Array:
    """(B, O) float32 what a scoring model puts out at the last tokens."""
    hidden = hidden_states(params, config, jnp.asarray(batch.ids))
    at_end = jnp.take_along_axis(hidden, jnp.asarray(batch.end)[:, None, None], axis=1)[:, 0]
    return project(params, config, at_end)


def predictions(outputs: jax.Array, settings: HeadSettings) -> jax.Array:
    """(B,) the probability of a right step or of a gain, or the expected gain, of `outputs` (B, O)."""
    scorer = settings.scorer()
    value = scorer.value(outputs[:, None])[:, 0]
    return value if settings.kind == "reward" else -value


@functools.partial(jax.jit, static_argnames=("config", "settings"))
def _predict(params: Params, config: ModelConfig, settings: HeadSettings, batch: HeadExamples) -> jax.Array:
    return predictions(step_outputs(params, config, batch), settings)


def predict(params: Params, config: ModelConfig, settings: HeadSettings, examples: HeadExamples) -> np.ndarray:
    """(N,) `predictions` of all examples."""
    count = len(examples.end)
    found = []
    for start in range(0, count, MEASURED_AT_ONCE):
        rows = np.minimum(np.arange(start, start + MEASURED_AT_ONCE), count - 1)
        found.append(np.asarray(_predict(params, config, settings, take(examples, rows))))
    return np.concatenate(found)[:count]


def scoring_config(backbone: ModelConfig, settings: HeadSettings) -> ModelConfig:
    """The scoring model on a language model's backbone."""
    vocabulary = backbone.vocabulary * (2 if settings.annotate else 1)
    return dataclasses.replace(
        backbone, vocabulary=vocabulary, tied=False, final_softcap=None, outputs=settings.outputs
    )


def init_from(backbone: ModelConfig, params: Params, settings: HeadSettings, seed: int) -> Params:
    """Parameters of `scoring_config`: the language model's own below a fresh head.

    An annotated model begins with one meaning for both ids of a token.
    """
    fresh = init_params(scoring_config(backbone, settings), jax.random.key(seed))
    initial = {name: fresh["head"] if name == "head" else params[name] for name in fresh}
    if settings.annotate:
        kernel = initial["embedding"]["kernel"]
        initial["embedding"] = {"kernel": jnp.concatenate([kernel, kernel], axis=1)}
    return initial


@dataclasses.dataclass(frozen=True, eq=False)
class HeadBatches:
    """`Batches` of examples: every one once an epoch, in an order of the epoch's own."""

    examples: HeadExamples
    rows: int
    seed: int

    def batch(self, step: int) -> HeadExamples:
        place = np.arange(step * self.rows, (step + 1) * self.rows)
        epochs, places = np.divmod(place, len(self.examples.end))
        order = {int(e): np.random.default_rng([self.seed, int(e)]).permutation(len(self.examples.end)) for e in epochs}
        return take(self.examples, np.array([order[int(e)][at] for e, at in zip(epochs, places, strict=True)]))


def _examples(traces: StepTraces, steps: np.ndarray, length: np.ndarray, value: np.ndarray) -> HeadExamples:
    total = int((traces.start + np.maximum(traces.draft_length, traces.target_length)).max())
    place = np.arange(total)
    context = traces.tokens[traces.problem]
    context = np.pad(context, ((0, 0), (0, max(0, total - context.shape[1]))))[:, :total]
    inside = place - traces.start[:, None]
    of_step = np.take_along_axis(steps, np.clip(inside, 0, steps.shape[1] - 1), axis=1)
    ids = np.where(inside < 0, context, np.where(inside < length[:, None], of_step, 0))
    end = (traces.start + length - 1).astype(np.int32)
    return HeadExamples(ids.astype(np.int32), end, np.asarray(value, np.float32), traces.problem)


def _by_target(traces: StepTraces, tokens: int) -> np.ndarray:
    """(P, tokens) bool whether the target wrote each token that was kept."""
    length = np.where(traces.by_target, traces.target_length, traces.draft_length)
    place = np.arange(tokens)
    inside = (place >= traces.start[:, None]) & (place < (traces.start + length)[:, None]) & traces.by_target[:, None]
    found = np.zeros((len(traces.tokens), tokens), bool)
    np.logical_or.at(found, traces.problem, inside)
    return found


def _binary(logit: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy, in nats."""
    return jax.nn.softplus(logit) - target * logit
