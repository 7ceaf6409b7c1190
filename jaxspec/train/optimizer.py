"""AdamW or Muon with warm-up, cosine decay and clipping, as the trainer uses them."""

import dataclasses
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from jaxspec.models.model_fn import Params

Algorithm = Literal["adamw", "muon"]

# Table rows belong to one id each, so an update that mixes rows, as Muon's does, has no meaning there.
TABLES = ("embedding", "head")


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
    algorithm: `adamw`; or `muon` for the layers' matrices, with AdamW of Nesterov momentum for everything else.
      Muon's updates are scaled to the size of AdamW's; it bears higher rates.
    """

    learning_rate: float = 1e-3
    warmup: int = 100
    final_fraction: float = 0.05
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    clip: float = 1.0
    algorithm: Algorithm = "adamw"

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if self.warmup < 0:
            raise ValueError(f"warmup={self.warmup} is negative; use 0 for none")
        for name in ("final_fraction", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not between 0 and 1")
        if self.algorithm not in get_args(Algorithm):
            raise ValueError(f"algorithm={self.algorithm!r} is unknown; choose one of {', '.join(get_args(Algorithm))}")


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


def build_optimizer(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Clipping, then AdamW (Loshchilov and Hutter, arXiv 1711.05101) or Muon (Jordan et al., 2024; with the update
    size of Liu et al., arXiv 2502.16982) along `schedule`."""
    return optax.chain(optax.clip_by_global_norm(settings.clip), _descent(settings, schedule(settings, steps)))


def _descent(settings: OptimizerSettings, rate: optax.Schedule) -> optax.GradientTransformation:
    if settings.algorithm == "adamw":
        return optax.adamw(
            rate, b1=settings.beta1, b2=settings.beta2, weight_decay=settings.weight_decay, mask=_matrices
        )
    return optax.contrib.muon(
        rate,
        weight_decay=settings.weight_decay,
        weight_decay_mask=_matrices,
        adam_b1=settings.beta1,
        adam_b2=settings.beta2,
        adam_weight_decay=settings.weight_decay,
        muon_weight_dimension_numbers=_within_layers,
        consistent_rms=0.2,  # root mean square of AdamW's updates, as measured by Liu et al.
    )


def _matrices(params: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _within_layers(params: Params) -> Params:
    """What Muon updates: matrices other than the tables of ids."""

    def numbers(path: jax.tree_util.KeyPath, leaf: jax.Array) -> MuonDimensionNumbers | None:
        tables = any(getattr(key, "key", None) in TABLES for key in path)
        return MuonDimensionNumbers() if leaf.ndim == 2 and not tables else None

    return jax.tree_util.tree_map_with_path(numbers, params)
