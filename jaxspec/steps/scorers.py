"""Scorers: how good a draft step is, higher for better.

B lanes, W tokens a pass, O outputs of a scoring model, V vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.hashing import prompt_mark
from jaxspec.steps.draws import turn_uniform
from jaxspec.steps.types import StepContext

EXPECTATIONS = ("binary", "classes", "ordinal", "advantage")
RANDOM = 8  # random stream, apart from those of `decode.sampling`


@dataclasses.dataclass(frozen=True)
class RandomScore:
    """A number in [0, 1) that knows nothing of the step: the baseline every score must beat.

    It is a function of the seed, the prompt and the turn, so the problems of a job are decided apart.
    """

    def prepare(self) -> tuple[()]:
        return ()

    def score(self, params: Any, context: StepContext) -> jax.Array:
        mark = prompt_mark(context.tokens, context.prompt_length)
        return turn_uniform(context.seed, RANDOM, context.turn, mark)


@dataclasses.dataclass(frozen=True)
class TextScore:
    """What a function of the text says of a step, as the exact checkers of synthetic tasks do.

    Attributes:
      function: `(params, context) -> (B,)`, pure and built once, because it is a static argument.
      build: makes `params`, on the host.
    """

    function: Callable[[Any, StepContext], jax.Array]
    build: Callable[[], Any] = tuple

    def prepare(self) -> Any:
        return self.build()

    def score(self, params: Any, context: StepContext) -> jax.Array:
        return self.function(params, context)


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Mean log-probability of a step's tokens under the target: the score of A1 (arXiv 2509.15148, section 2).

    Reading for it fills the target's cache, so that a target which writes on has nothing more to read.
    """

    reads = "target"

    def first(self, start: jax.Array) -> jax.Array:
        return start - 1  # the token before a step says its first one

    def last(self, end: jax.Array) -> jax.Array:
        return end - 1

    def contribution(
        self, outputs: jax.Array, following: jax.Array, position: jax.Array, start: jax.Array, end: jax.Array
    ) -> jax.Array:
        chosen = jnp.take_along_axis(outputs, following[:, :, None], axis=2)[:, :, 0]
        log_p = chosen - jax.nn.logsumexp(outputs, axis=2)
        counts = (position >= start[:, None] - 1) & (position < end[:, None] - 1)
        return jnp.sum(jnp.where(counts, log_p, 0.0), axis=1)

    def finish(self, partial: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
        tokens = (end - start).astype(jnp.float32)
        return jnp.where(end > start, partial / jnp.maximum(tokens, 1.0), jnp.nan)


@dataclasses.dataclass(frozen=True)
class _Head:
    """Reads a scoring model to the end of a step, where one value counts."""

    reads = "scorer"

    def first(self, start: jax.Array) -> jax.Array:
        return jnp.zeros_like(start)

    def last(self, end: jax.Array) -> jax.Array:
        return end

    def finish(self, partial: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
        return partial


def at_last_token(value: jax.Array, position: jax.Array, end: jax.Array) -> jax.Array:
    """(b,) the `value` (b, W) of the token before `end` (b,), 0 where it is not among those at `position` (b, W)."""
    return jnp.sum(jnp.where(position == end[:, None] - 1, value, 0.0), axis=1)


@dataclasses.dataclass(frozen=True)
class RewardModel(_Head):
    """Sigmoid of a process reward model's one output at a step's last token: the score of RSD (arXiv 2501.19324)."""

    def contribution(
        self, outputs: jax.Array, following: jax.Array, position: jax.Array, start: jax.Array, end: jax.Array
    ) -> jax.Array:
        return at_last_token(self.value(outputs), position, end)

    def check_outputs(self, outputs: int) -> None:
        """Raises ValueError unless a model of so many `outputs` a token can be read."""
        if outputs != 1:
            raise ValueError(f"a reward model has one output a token, and this one has {outputs}; is it a router?")

    def value(self, outputs: jax.Array) -> jax.Array:
        """(b, W) float32 the reward at every token."""
        return jax.nn.sigmoid(outputs[:, :, 0])


@dataclasses.dataclass(frozen=True)
class AdvantageRouter(_Head):
    """Minus what a router expects the target to gain on a step (ARBITRAGE, arXiv 2512.05033, section 4.2).

    Attributes:
      expects: `binary`, the probability that the target's step scores higher, from two outputs; `classes`, the
        probability mass of the upper half of any even number of outputs, quantile classes of the gain; `ordinal`,
        the mean of cumulative probabilities, one output a threshold; `advantage`, the gain itself, one output.
    """

    expects: str = "binary"

    def __post_init__(self) -> None:
        if self.expects not in EXPECTATIONS:
            raise ValueError(f"expects={self.expects!r} is not one of {', '.join(EXPECTATIONS)}")

    def check_outputs(self, outputs: int) -> None:
        """Raises ValueError unless a model of so many `outputs` a token can be read."""
        fits = {
            "binary": outputs == 2,
            "classes": outputs % 2 == 0,
            "ordinal": True,
            "advantage": outputs == 1,
        }
        if not fits[self.expects]:
            raise ValueError(
                f"a router that expects {self.expects!r} cannot be read from {outputs} outputs a token; is it another "
                "kind of router, or a reward model? load_scorer(...).score fits its model"
            )

    def contribution(
        self, outputs: jax.Array, following: jax.Array, position: jax.Array, start: jax.Array, end: jax.Array
    ) -> jax.Array:
        return at_last_token(self.value(outputs), position, end)

    def value(self, outputs: jax.Array) -> jax.Array:
        """(b, W) float32 minus the expected gain, at every token."""
        if self.expects == "advantage":
            return -outputs[:, :, 0]
        if self.expects == "ordinal":
            return -jnp.mean(jax.nn.sigmoid(outputs), axis=2)
        upper = outputs.shape[2] // 2
        return -jnp.sum(jax.nn.softmax(outputs, axis=2)[:, :, upper:], axis=2)
