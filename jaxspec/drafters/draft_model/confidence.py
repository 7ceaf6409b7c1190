"""How often a draft model is right, by how sure it is.

B lanes, D depth, R branches, E classes of confidence.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.types import Verdict
from jaxspec.drafters.rates import Rates, learned, prior_rates

CLASSES = 16  # E
OWN_RATE = 0.8  # acceptance expected of a draw before any was judged
MEMORY = 0.99  # share of old trials that still counts a block later


def class_of(probability: jax.Array, classes: int) -> jax.Array:
    """(B,) int32 class of a confidence (B,): two for every halving of the doubt, or all in one."""
    if classes == 1:
        return jnp.zeros(probability.shape, jnp.int32)
    halvings = -2.0 * jnp.log2(jnp.maximum(1.0 - probability, 2.0**-CLASSES))
    return jnp.clip(halvings, 0, CLASSES - 1).astype(jnp.int32)


def first_rates(branches: int, classes: int) -> Rates:
    """(R, E) before any trial: a token is as good as the draft model thinks, a branch half of the doubt that leaves."""
    confident = 1.0 - 2.0 ** (-0.5 * (np.arange(CLASSES) + 0.5))
    row = np.array([OWN_RATE]) if classes == 1 else confident
    return prior_rates(np.stack([row] + [(1 - row) / 2] * (branches - 1)))


def rate_ahead(rates: Rates, depth: int) -> jax.Array:
    """(D, R) float32 probability of nodes below a sure one, as far as is known before they are drafted."""
    mean = jnp.sum(rates.successes, axis=1) / jnp.sum(rates.trials, axis=1)
    return mean[0] ** jnp.arange(depth, dtype=jnp.float32)[:, None] * mean


def row_came_true(ids: jax.Array, verdict: Verdict) -> jax.Array:
    """(B, D) bool whether the row of `ids` (B, D, R), its first branch, is the target's own text down to each level."""
    truth = verdict.ids[:, : ids.shape[1]]
    return jnp.cumprod(ids[:, :, 0] == truth, axis=1, dtype=jnp.int32) > 0


def learned_rates(
    rates: Rates, ids: jax.Array, offered: jax.Array, kind: jax.Array, verdict: Verdict, live: jax.Array
) -> Rates:
    """The rates after a draft was verified.

    Args:
      rates: (R, E).
      ids: (B, D, R) int32 the draft.
      offered: (B, D, R) bool nodes that may be judged.
      kind: (B, D) int32 class of every level.
      verdict: on it.
      live: (B,) bool.
    """
    branches = ids.shape[2]
    depth = jnp.arange(ids.shape[1], dtype=jnp.int32)
    # A node is a trial if the row came true above it, and the truth about it is known.
    above = jnp.pad(row_came_true(ids, verdict)[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    known = above & (depth <= verdict.accepted[:, None]) & live[:, None]
    trial = known[:, :, None] & offered
    success = trial & (ids == verdict.ids[:, : ids.shape[1], None])
    branch = jnp.broadcast_to(jnp.arange(branches), trial.shape)
    kind = jnp.broadcast_to(kind[:, :, None], trial.shape)
    return learned(rates, first_rates(branches, rates.trials.shape[1]), (branch, kind), trial, success, MEMORY)
