"""Rates as fractions, so that ranks are found in integers.

In float32 the rank ceil(5 * (1 - 0.4)) is 4, since 1 - 0.4 comes out above 0.6; as 5 * 3 / 5 it is 3.
"""

import fractions
from typing import NamedTuple

import jax
import jax.numpy as jnp

LARGEST_DENOMINATOR = 32768  # squares fit 32 bits


class Rate(NamedTuple):
    """The rate `numerator / denominator`, between 0 and 1."""

    numerator: int
    denominator: int

    def floor_of(self, total: jax.Array) -> jax.Array:
        """Largest integer not above rate * total, for int32 totals of 0 or more, without overflow."""
        whole, rest = self._parts(total)
        return whole + rest // self.denominator

    def ceil_of(self, total: jax.Array) -> jax.Array:
        """Smallest integer not below rate * total."""
        whole, rest = self._parts(total)
        return whole + (rest + self.denominator - 1) // self.denominator

    def fraction_of(self, total: jax.Array) -> jax.Array:
        """rate * total less its floor, float32 in [0, 1)."""
        _, rest = self._parts(total)
        return (rest % self.denominator).astype(jnp.float32) / self.denominator

    def _parts(self, total: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.numerator * (total // self.denominator), self.numerator * (total % self.denominator)


def exact_rate(reject_rate: float, largest: int = LARGEST_DENOMINATOR) -> Rate:
    """The fraction a decimal number stands for: 0.4 is 2/5, and 1 / 3 is 1/3.

    Args:
      reject_rate: between 0 and 1.
      largest: largest denominator; of longer decimals the nearest such fraction is taken.

    Raises:
      ValueError: the rate is outside [0, 1] or not a number.
    """
    value = float(reject_rate)
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"reject_rate={reject_rate} is outside [0, 1]; it is the share of drafts handed to the target, 0.4 for 40 %"
        )
    fraction = fractions.Fraction(str(value)).limit_denominator(largest)
    return Rate(fraction.numerator, fraction.denominator)
