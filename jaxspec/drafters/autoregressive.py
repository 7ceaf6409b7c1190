"""Plain decoding, as the drafter that proposes nothing."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.chain import OneChain, chain
from jaxspec.drafters.stateless import Stateless


@dataclasses.dataclass(frozen=True)
class Autoregressive(OneChain, Stateless):
    """One token a pass; the baseline of every comparison.

    Attributes:
      padding: nodes of every block that are never valid. With as many as another drafter has, both run the same
        executable, which is what strict comparisons need.
    """

    padding: int = 0

    sources = ()

    @property
    def width(self) -> int:
        return self.padding

    def propose(self, params: Any, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        lanes = context.length.shape[0]
        empty = jnp.zeros((lanes, self.padding), jnp.int32)
        return chain(empty, jnp.zeros((lanes,), jnp.int32)), state


def autoregressive(padding: int = 0) -> Autoregressive:
    """The drafter of plain decoding.

    Args:
      padding: unused nodes a block, to run plain decoding through a wider executable.

    Raises:
      ValueError: `padding` is negative.
    """
    if padding < 0:
        raise ValueError(f"padding={padding} is negative; use 0 for blocks of one token")
    return Autoregressive(padding)
