"""Conformal p-values of scores against calibration scores."""

import jax
import jax.numpy as jnp

from jaxspec.conformal.lanes import usable
from jaxspec.conformal.standing import Standing, p_value


def p_values(
    calibration: jax.Array, score: jax.Array, tail: str = "better", uniform: jax.Array | None = None
) -> jax.Array:
    """How unusual scores are among calibration scores, higher being better.

    If a score is exchangeable with the calibration scores then P(p <= u) <= u for every u, and with `uniform` p is
    uniform, ties or not.

    Args:
      calibration: (N,) scores; non-finite ones are worst.
      score: (T,) scores; non-finite ones are worst.
      tail: "better" counts the scores at least as good, so that bad drafts are near 1 (A1, arXiv 2509.15148,
        Eq. 13); "worse" those at most as good, so that bad drafts are near 0.
      uniform: (T,) draws from [0, 1) for smoothed p-values, or None for conservative ones.

    Returns:
      (T,) float32 in [0, 1].

    Raises:
      ValueError: another tail; arrays with more or fewer axes, or `uniform` of another shape than `score`.
    """
    calibration, score = jnp.asarray(calibration), jnp.asarray(score)
    if calibration.ndim != 1 or score.ndim != 1:
        raise ValueError(
            f"calibration of shape {calibration.shape} and score of shape {score.shape}: both have one axis"
        )
    ordered = jnp.sort(usable(calibration))
    score = usable(score)
    worse = jnp.searchsorted(ordered, score, side="left").astype(jnp.int32)
    reached = jnp.searchsorted(ordered, score, side="right").astype(jnp.int32)
    standing = Standing(worse, reached - worse, jnp.full_like(worse, ordered.shape[0]), 1)
    if uniform is not None:
        uniform = jnp.asarray(uniform, jnp.float32)
        if uniform.shape != score.shape:
            raise ValueError(f"uniform of shape {uniform.shape} for scores of shape {score.shape}; give one a score")
    return p_value(standing, tail, uniform)
