"""How likely a draft step with a score is to stay: the five weight functions of RSD (arXiv 2501.19324, Table 1).

A step with reward r stays with probability w(r) and is else written by the target, so that its law is the mixture
w(r) P_draft + (1 - E[w]) P_target. `keep` draws that choice: a step of weight 1 always stays, one of weight 0 never.

At equality, RSD keeps: its step function is 1 for r >= threshold. ARBITRAGE's router works on the other side and is
strict there: it escalates for a prediction > threshold. So in both the draft's step stays when the number it is
compared with is met exactly.

Parameters are leaves of a pytree: another threshold compiles nothing anew. A score that is not finite counts as the
worst there is: a step function gives 0, a constant its constant.

Shapes: B lanes.
"""

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxspec.decode.sampling import Leaf


class Weight(Protocol):
    """A non-decreasing function of the score."""

    def __call__(self, score: jax.Array) -> jax.Array:
        """(B,) float32 weights in [0, 1] of `score` (B,)."""
        ...


class Constant(NamedTuple):
    """w(r) = probability, whatever the score."""

    probability: Leaf

    def __call__(self, score: jax.Array) -> jax.Array:
        return jnp.full_like(score, self.probability, jnp.float32)


class Step(NamedTuple):
    """w(r) = 1 if r >= threshold, else 0."""

    threshold: Leaf

    def __call__(self, score: jax.Array) -> jax.Array:
        score = jnp.asarray(score, jnp.float32)
        return (jnp.isfinite(score) & (score >= self.threshold)).astype(jnp.float32)


class Clipped(NamedTuple):
    """w(r) = min(1, max(0, r))."""

    def __call__(self, score: jax.Array) -> jax.Array:
        score = jnp.asarray(score, jnp.float32)
        return jnp.where(jnp.isfinite(score), jnp.clip(score, 0.0, 1.0), 0.0)


class Ratio(NamedTuple):
    """w(r) = max(0, r / (1 + r)), and 0 for every r <= 0: below -1 the paper's fraction turns positive again."""

    def __call__(self, score: jax.Array) -> jax.Array:
        score = jnp.asarray(score, jnp.float32)
        positive = jnp.where(jnp.isfinite(score) & (score > 0.0), score, 0.0)
        return positive / (1.0 + positive)


class Logistic(NamedTuple):
    """w(r) = 1 / (1 + exp(-sharpness (r - threshold))); 1/2 at the threshold."""

    threshold: Leaf
    sharpness: Leaf

    def __call__(self, score: jax.Array) -> jax.Array:
        score = jnp.asarray(score, jnp.float32)
        weight = jax.nn.sigmoid(self.sharpness * (jnp.where(jnp.isfinite(score), score, 0.0) - self.threshold))
        return jnp.where(jnp.isfinite(score), weight, 0.0)


def constant(probability: float) -> Constant:
    """Raises ValueError unless `probability` is in [0, 1]."""
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability={probability} is outside [0, 1]")
    return Constant(jnp.float32(probability))


def step(threshold: float = 0.7) -> Step:
    """Default: RSD's. Infinite thresholds keep every finite score, or none. Raises ValueError for NaN."""
    return Step(_number("threshold", threshold))


def clipped() -> Clipped:
    return Clipped()


def ratio() -> Ratio:
    return Ratio()


def logistic(threshold: float = 0.7, sharpness: float = 10.0) -> Logistic:
    """Raises ValueError unless `threshold` is finite and `sharpness` finite and positive."""
    if not math.isfinite(threshold):
        raise ValueError(f"threshold={threshold} is not finite")
    if not (math.isfinite(sharpness) and sharpness > 0.0):
        raise ValueError(f"sharpness={sharpness} is not a positive number; weights must not fall with the score")
    return Logistic(_number("threshold", threshold), _number("sharpness", sharpness))


def keep(weight: jax.Array, uniform: jax.Array) -> jax.Array:
    """(B,) bool whether the draft's step stays, with probability `weight` (B,), by `uniform` (B,) in [0, 1)."""
    return uniform < weight


def _number(name: str, value: float) -> jax.Array:
    if math.isnan(value):
        raise ValueError(f"{name} is not a number")
    return jnp.float32(value)
