"""AdamW with warm-up, cosine decay and clipping, as the trainer uses it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from jaxspec.models.model_fn import Params


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How parameters are changed.

    Attributes:
      learning_rate: at its highest, after the warm-up.
      warmup: steps over which the rate rises from zero.
      final_fraction: of `learning_rate` that the cosine ends at, at the last step.
      weight_decay: of matrices; norms and biases do not decay.
      beta1, beta2: of the running means of gradients and of their squares.
      clip: longest norm of a whole gradient; longer ones are scaled down.
    """

    learning_rate: float = 1e-3
    warmup: int = 100
    final_fraction: float = 0.05
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if self.warmup < 0:
            raise ValueError(f"warmup={self.warmup} is negative; use 0 for none")
        for name in ("final_fraction", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not between 0 and 1")


def schedule(settings: OptimizerSettings, steps: int) -> optax.Schedule:
    """The learning rate of every step of a run of `steps`: a line up, then half a cosine down."""
    warmup = min(settings.warmup, steps - 1)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        count = jnp.asarray(step, jnp.float32)
        risen = jnp.minimum((count + 1.0) / (warmup + 1.0), 1.0)
        way = jnp.clip((count - warmup) / (steps - warmup), 0.0, 1.0)
        fallen = 0.5 * (1.0 + jnp.cos(math.pi * way)) * (1.0 - settings.final_fraction) + settings.final_fraction
        return settings.learning_rate * risen * fallen

    return rate


def adamw(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Clipping, then AdamW (Loshchilov and Hutter, arXiv 1711.05101) along `schedule`."""
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(
            schedule(settings, steps),
            b1=settings.beta1,
            b2=settings.beta2,
            weight_decay=settings.weight_decay,
            mask=_matrices,
        ),
    )


def _matrices(params: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
