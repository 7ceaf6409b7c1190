"""Next-token cross-entropy on the marked tokens of a batch.

Shapes: B lanes, T tokens, V vocabulary.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Params
from jaxspec.train.forward import forward


class TextBatch(NamedTuple):
    """Attributes:
    ids: (B, T) int32, filled up behind the end of a text.
    counted: (B, T) bool, the tokens to be predicted; the first of a text never is.
    """

    ids: np.ndarray | jax.Array
    counted: np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True)
class LanguageModelObjective:
    """An `Objective`: mean cross-entropy of the counted tokens of a `TextBatch`, each given all tokens before it.

    Attributes:
      config: the model.
      label_smoothing: share of the target's mass spread evenly over the vocabulary.
      dtype: of activations; the loss is float32.
      checkpoint: compute layers again in the backward pass instead of keeping them.
    """

    config: ModelConfig
    label_smoothing: float = 0.0
    dtype: jax.typing.DTypeLike = jnp.float32
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} is not between 0 and 1")

    def __call__(self, params: Params, batch: TextBatch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss, and of the counted tokens: `accuracy` and predictive `entropy` (nats a token)."""
        ids, counted = jnp.asarray(batch.ids), jnp.asarray(batch.counted)
        logits = forward(params, self.config, ids[:, :-1], dtype=self.dtype, checkpoint=self.checkpoint)
        targets, weights = ids[:, 1:], counted[:, 1:].astype(jnp.float32)
        losses = cross_entropy(logits, targets, self.label_smoothing)
        right = (jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets).astype(jnp.float32)
        mean = _weighted(losses, weights)
        return mean, {"accuracy": _weighted(right, weights), "entropy": _weighted(entropy(logits), weights)}


def cross_entropy(logits: jax.Array, targets: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """-log p(target), (...) in nats, of `logits` (..., V) and `targets` (...); with smoothing, also of all ids."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    of_target = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    if label_smoothing == 0.0:
        return -of_target
    return -(1.0 - label_smoothing) * of_target - label_smoothing * jnp.mean(log_p, axis=-1)


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy (...) in nats of softmax(`logits` (..., V))."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def _weighted(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of `values` by `weights`, zero when all weights are."""
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)
