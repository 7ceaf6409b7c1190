"""Where a score stands among those of a bank, and what follows: p-values and decisions.

A bank gives every entry an integer weight; the candidate itself weighs `unit`, as much as a cluster of entries. In a
bank without clusters every weight is 1 and all sums are counts.

B lanes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.rate import Rate

SIDES = ("at_most", "at_least", "exact", "released")
TAILS = ("better", "worse")


class Standing(NamedTuple):
    """Attributes:
    worse: (B,) int32 weight of the entries with a lower score.
    equal: (B,) int32 weight of the entries with the same score.
    total: (B,) int32 weight of all entries compared with.
    unit: weight of the candidate.
    """

    worse: jax.Array
    equal: jax.Array
    total: jax.Array
    unit: int


def escalates(side: str, rate: Rate, standing: Standing, uniform: jax.Array) -> jax.Array:
    """(B,) bool whether a score is low enough to be handed to the target.

    With N entries exchangeable with the candidate, the probability of True is, for `side`:
      "at_most": at most the rate, and without ties above it by less than 1 / (N + 1) too little: split conformal;
      "at_least": at least the rate: the rule p > 1 - rate of A1 (arXiv 2509.15148, Eq. 13);
      "exact": the rate, ties broken and ranks interpolated by `uniform` (B,), in [0, 1);
      "released": what the code published with A1 does, a rank among N without the candidate; no guarantee.
    Rates 0 and 1 never and always escalate.
    """
    worse, equal, total, unit = standing
    if side == "at_most":
        return worse + equal + unit <= rate.floor_of(total + unit)
    if side == "at_least":
        return worse < rate.ceil_of(total + unit)
    if side == "exact":
        room = (rate.floor_of(total + unit) - worse).astype(jnp.float32) + rate.fraction_of(total + unit)
        return uniform < room / (equal + unit).astype(jnp.float32)
    return (worse + equal <= rate.floor_of(total)) & (rate.numerator > 0)


def upper_p_value(standing: Standing) -> jax.Array:
    """(B,) float32 share of scores at least as good, the candidate's among them: near 1 for a bad draft (Eq. 13)."""
    return _share(standing.total - standing.worse + standing.unit, standing)


def lower_p_value(standing: Standing) -> jax.Array:
    """(B,) float32 share of scores at most as good, the candidate's among them: near 0 for a bad draft."""
    return _share(standing.worse + standing.equal + standing.unit, standing)


def smoothed_p_value(standing: Standing, uniform: jax.Array) -> jax.Array:
    """(B,) float32 like `lower_p_value`, ties and the candidate counted by `uniform` (B,): uniform on [0, 1)."""
    total = (standing.total + standing.unit).astype(jnp.float32)
    ties = (standing.equal + standing.unit).astype(jnp.float32)
    return (standing.worse.astype(jnp.float32) + uniform * ties) / total


def p_value(standing: Standing, tail: str, uniform: jax.Array | None) -> jax.Array:
    """(B,) float32 share of scores that are "better", so that bad drafts are near 1, or "worse", for near 0.

    Conservative, or smoothed by `uniform` (B,) if given.

    Raises:
      ValueError: another tail.
    """
    if tail not in TAILS:
        raise ValueError(f"tail={tail!r} is not one of {TAILS}")
    if uniform is None:
        return upper_p_value(standing) if tail == "better" else lower_p_value(standing)
    smoothed = smoothed_p_value(standing, uniform)
    return 1.0 - smoothed if tail == "better" else smoothed


def _share(weight: jax.Array, standing: Standing) -> jax.Array:
    return weight.astype(jnp.float32) / (standing.total + standing.unit).astype(jnp.float32)
