"""How often proposals of each class come true: learned as they are verified, fading with time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

PRIOR_TRIALS = 4.0  # what a guess made before any trial is worth


class Rates(NamedTuple):
    """Attributes:
    trials, successes: (...) float32, an entry a class.
    """

    trials: jax.Array
    successes: jax.Array

    @property
    def mean(self) -> jax.Array:
        """(...) float32 share of proposals that came true."""
        return self.successes / self.trials


def prior_rates(rate: jax.typing.ArrayLike, trials: float = PRIOR_TRIALS) -> Rates:
    """Rates before any trial, with a guess `rate` (...) for each class that is worth so many `trials`."""
    rate = jnp.asarray(rate, jnp.float32)
    return Rates(jnp.full(rate.shape, trials, jnp.float32), trials * rate)


def learned(
    rates: Rates, prior: Rates, kind: tuple[jax.Array, ...], trial: jax.Array, success: jax.Array, memory: float
) -> Rates:
    """The rates after the proposals of a block were verified.

    Args:
      rates: before.
      prior: what fades returns to it, so that what was found useless is tried again.
      kind: class of every proposal, an index an axis of the rates.
      trial, success: bool of the shape of these indices.
      memory: share of old trials that still counts a block later.
    """

    def count(before: jax.Array, start: jax.Array, new: jax.Array) -> jax.Array:
        return (start + (before - start) * memory).at[kind].add(new.astype(jnp.float32))

    return Rates(count(rates.trials, prior.trials, trial), count(rates.successes, prior.successes, success))
