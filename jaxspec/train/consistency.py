"""The consistency loss: every state of a trajectory is taught to say at once what the model says on the answer itself.

CLLM (arXiv 2403.00835, section 3.2). Global: the teacher is the same model, without gradient, on the clean answer.
Local: it is the same model on the next state of the trajectory. Both teachers stand in the same packed pass as the
student, so a step costs one forward pass. The autoregressive loss on the model's own answer keeps it from collapse.

Shapes: B lanes, L tokens, R noisy streams, T blocks, n tokens a block, V vocabulary.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.models.model_fn import Params
from jaxspec.train.packing import (
    Forward,
    Packed,
    answer_blocks,
    pack,
    shared_blocks,
    supervised,
    take_clean,
    take_noisy,
)
from jaxspec.train.trajectories import jacobi_step

TEACHERS = ("global", "local")
DIVERGENCES = ("forward", "reverse")
MEANS = ("tokens", "blocks")


class ConsistencyBatch(NamedTuple):
    """One batch; NumPy on the host, JAX inside jit.

    Attributes:
      tokens: (B, L) int32 prompt and answer.
      prompt_length: (B,) int32, at least 1.
      length: (B,) int32 of prompt and answer.
      start: (B,) int32 where the first block begins.
      noisy: (B, R, T, n) int32 a state of every block; R is 2 for the local loss, whose second stream holds the
        states after those of the first.
    """

    tokens: Any
    prompt_length: Any
    length: Any
    start: Any
    noisy: Any


@dataclasses.dataclass(frozen=True)
class ConsistencySettings:
    """Attributes:
    teacher: `global` or `local`.
    consistency_weight, ar_weight: of the two losses; the papers take 1 and 10.
    divergence: `forward` is KL(teacher, student), which the papers take, `reverse` KL(student, teacher).
    temperature: divides the logits of teacher and student.
    context: what a noisy block sees of the blocks before it; see `packing`.
    window: blocks a window, for `noise_window` alone.
    mean: over all trained `tokens`, or over the means of the `blocks` that have any.
    label_smoothing: of the autoregressive loss.
    include_prompt: whether the autoregressive loss covers the prompt.
    refinements: most Jacobi steps of the model being trained between a batch's blocks and what the student sees;
      every block draws its own number of them. Global teacher alone.
    """

    teacher: str = "global"
    consistency_weight: float = 1.0
    ar_weight: float = 10.0
    divergence: str = "forward"
    temperature: float = 1.0
    context: str = "clean"
    window: int = 1
    mean: str = "tokens"
    label_smoothing: float = 0.0
    include_prompt: bool = False
    refinements: int = 0

    def __post_init__(self) -> None:
        choices = {"teacher": TEACHERS, "divergence": DIVERGENCES, "mean": MEANS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(allowed)}")
        shared_blocks(self.context, 1, self.window)  # raises
        for name in ("consistency_weight", "ar_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more, and finite")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be above 0, and finite")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must be at least 0 and below 1")
        if self.refinements < 0:
            raise ValueError(f"refinements={self.refinements} is below 0")
        if self.refinements and self.teacher == "local":
            raise ValueError(
                f"refinements={self.refinements} needs teacher='global': the local loss takes both states from data"
            )


@dataclasses.dataclass(frozen=True)
class Consistency:
    """The objective `(params, batch, key) -> (loss, metrics)`; see `consistency`."""

    forward: Forward
    settings: ConsistencySettings

    def __call__(
        self, params: Params, batch: ConsistencyBatch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        settings = self.settings
        streams, blocks, block = batch.noisy.shape[1:]
        if streams != (2 if settings.teacher == "local" else 1):
            raise ValueError(
                f"a batch of {streams} noisy streams does not suit teacher={settings.teacher!r}: the global loss takes "
                "one, the local loss two; choose the states accordingly"
            )
        sequence = batch.tokens.shape[1]
        fixed = answer_blocks(batch.tokens, batch.start, batch.length, blocks, block)
        noise = batch.noisy
        if settings.refinements:
            decoding = pack(batch.tokens, batch.start, noise, shared=1)  # sees no noise before its block
            noise = refine(self.forward, params, decoding, fixed, noise[:, 0], settings.refinements, key)[:, None]
        noisy = noise[:, 0]
        packed = pack(batch.tokens, batch.start, noise, shared_blocks(settings.context, blocks, settings.window))
        logits = forward_logits(self.forward, params, *packed)
        student = take_noisy(logits, sequence, 0, blocks, block)
        if settings.teacher == "local":
            teacher = take_noisy(logits, sequence, 1, blocks, block)
        else:
            teacher = take_clean(logits, batch.start, blocks, block)
        trained = supervised(noisy, fixed, batch.start, batch.length)
        distance = kl_divergence(jax.lax.stop_gradient(teacher), student, settings.divergence, settings.temperature)
        consistency = masked_mean(distance, trained, settings.mean)
        ar, ar_metrics = autoregressive_loss(logits[:, :sequence], batch, settings)
        loss = settings.consistency_weight * consistency + settings.ar_weight * ar
        following = answer_blocks(batch.tokens, batch.start + 1, batch.length, blocks, block)
        right = (jnp.argmax(student, axis=-1) == following).astype(jnp.float32)
        metrics = {
            "consistency_loss": consistency,
            "ar_loss": ar,
            "noisy_accuracy": masked_mean(right, trained, "tokens"),
            "trained_share": jnp.mean(trained.astype(jnp.float32)),
            **ar_metrics,
        }
        return loss, metrics


def consistency(forward: Forward, settings: ConsistencySettings | None = None) -> Consistency:
    """The consistency objective.

    Its metrics: `consistency_loss` (0 where noise changes nothing), `ar_loss`, `ar_accuracy` (share of answer tokens
    said on the clean text), `noisy_accuracy` (share of right tokens said from noisy ones), `trained_share` of the
    noisy tokens, `repetition` and `data_repetition` (share of neighbouring tokens that are equal, as said and as in
    the answers).

    Args:
      forward: see `packing.Forward`.
      settings: None for the published ones.
    """
    return Consistency(forward, ConsistencySettings() if settings is None else settings)


def refine(
    forward: Forward,
    params: Params,
    packed: Packed,
    fixed: jax.Array,
    noisy: jax.Array,
    most: int,
    key: jax.Array,
) -> jax.Array:
    """(B, T, n) every block after a random number of Jacobi steps of the model as it is, without gradient.

    Args:
      forward, params: the model.
      packed: the clean text and one noisy stream.
      fixed: (B, T, n) int32 the answer in blocks.
      noisy: (B, T, n) int32 where the steps begin.
      most: steps; a block takes 0 to so many, each number as often.
      key: of the draw.
    """
    params = jax.lax.stop_gradient(params)
    steps = jax.random.randint(key, noisy.shape[:2], 0, most + 1)[:, :, None]

    def advance(step: jax.Array, noisy: jax.Array) -> jax.Array:
        return jnp.where(step < steps, jacobi_step(forward, params, packed, fixed, noisy), noisy)

    return jax.lax.fori_loop(0, most, advance, noisy)


def forward_logits(
    forward: Forward, params: Params, ids: jax.Array, positions: jax.Array, visible: jax.Array
) -> jax.Array:
    """(B, W, V) float32 logits of a packed pass: losses are computed in float32 whatever the model computes in."""
    return forward(params, ids, positions, visible).astype(jnp.float32)


def kl_divergence(teacher: jax.Array, student: jax.Array, direction: str, temperature: float) -> jax.Array:
    """Kullback-Leibler divergence over the last axis, at least 0.

    `forward`: sum_v p_v (log p_v - log q_v) of teacher p and student q, which differs from the cross-entropy by the
    teacher's entropy alone. `reverse` exchanges them.

    Args:
      teacher, student: (..., V) logits.
      direction: `forward` or `reverse`.
      temperature: divides both.
    """
    p = jax.nn.log_softmax(teacher / temperature)
    q = jax.nn.log_softmax(student / temperature)
    if direction == "reverse":
        p, q = q, p
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


def masked_mean(values: jax.Array, mask: jax.Array, over: str) -> jax.Array:
    """() mean of the `values` (B, T, n) where `mask`, over tokens or over blocks' own means; 0 where there are none."""
    # `where` and not a product: what is masked may be undefined.
    kept = jnp.where(mask, values, 0.0)
    weight = mask.astype(jnp.float32)
    if over == "blocks":
        tokens = jnp.sum(weight, axis=-1)
        kept = jnp.sum(kept, axis=-1) / jnp.maximum(tokens, 1.0)
        weight = (tokens > 0).astype(jnp.float32)
    return jnp.sum(kept) / jnp.maximum(jnp.sum(weight), 1.0)


def autoregressive_loss(
    logits: jax.Array, batch: ConsistencyBatch, settings: ConsistencySettings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross-entropy of the next token on the clean text, and what it says of the model's health.

    Args:
      logits: (B, L, V) float32 of the clean stream.
      batch: its tokens are the labels.
      settings: label smoothing, and whether prompts count.
    """
    said, labels = logits[:, :-1], batch.tokens[:, 1:]
    target = jnp.arange(1, batch.tokens.shape[1], dtype=jnp.int32)
    answer = (target >= batch.prompt_length[:, None]) & (target < batch.length[:, None])
    counted = (target < batch.length[:, None]) if settings.include_prompt else answer
    log_probability = jax.nn.log_softmax(said)
    loss = -jnp.take_along_axis(log_probability, labels[:, :, None], axis=-1)[..., 0]
    if settings.label_smoothing > 0:
        uniform = -jnp.mean(log_probability, axis=-1)
        loss = (1 - settings.label_smoothing) * loss + settings.label_smoothing * uniform
    top = jnp.argmax(said, axis=-1)
    pairs = answer[:, 1:] & answer[:, :-1]

    def repetition(ids: jax.Array) -> jax.Array:
        return masked_mean((ids[:, 1:] == ids[:, :-1]).astype(jnp.float32), pairs, "tokens")

    return masked_mean(loss, counted, "tokens"), {
        "ar_accuracy": masked_mean((top == labels).astype(jnp.float32), answer, "tokens"),
        "repetition": repetition(top),
        "data_repetition": repetition(labels),
    }
