"""Exact scores of the arithmetic task's steps, from token ids alone, and exact scores with noise laid over.

A step scores 1 if it is right given the steps before it, else 0. The problem is read off the prompt, inside the
compiled loop, so that a scorer needs no table of problems.

With noise, a step scores sigmoid(sharpness (2 c - 1) + bias d + noise e) for its correctness c, its difficulty d and
a standard normal e. A large sharpness is a perfect verifier; a small one with a negative bias is a reward model that
knows hard steps from easy ones better than right steps from wrong ones, the failure ARBITRAGE (arXiv 2512.05033,
section 3.2) holds against reward-guided decoding.

Shapes: B lanes, L tokens, K most operations of a problem, V vocabulary.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.hashing import prompt_mark
from jaxspec.steps.draws import turn_draw
from jaxspec.steps.scorers import TextScore
from jaxspec.steps.types import StepContext
from jaxspec.tasks.arithmetic import MAX_STEPS, tokenizer
from jaxspec.tasks.arithmetic_check import (
    LINE,
    MINUS,
    OTHER,
    PLUS,
    REMAINDER,
    TIMES,
    Chain,
    CheckState,
    check_tokens,
    start_check,
    token_kinds,
)

NOISE = 9  # random stream, apart from those of `decode.sampling` and of the other scorers
WINDOW = 16  # tokens checked at a time
DIFFICULTY = {PLUS: 0.0, MINUS: 0.0, TIMES: 1.0, REMAINDER: 2.0}


class ScoreTables(NamedTuple):
    """Attributes:
    kinds: (V,) int32 see `arithmetic_check.token_kinds`.
    sharpness, bias, noise: () float32, see the module; unused by the exact score.
    """

    kinds: jax.Array
    sharpness: jax.Array
    bias: jax.Array
    noise: jax.Array


class Judgement(NamedTuple):
    """Attributes:
    right: (B,) bool.
    difficulty: (B,) float32 of the operation the step should work out: 0 for sums, differences and the answer, 1 for
      products, 2 for remainders.
    """

    right: jax.Array
    difficulty: jax.Array


@dataclasses.dataclass(frozen=True)
class _Build:
    """Makes the tables; a dataclass, so that equal scorers share a program."""

    sharpness: float = 0.0
    bias: float = 0.0
    noise: float = 0.0

    def __call__(self) -> ScoreTables:
        numbers = (jnp.float32(value) for value in (self.sharpness, self.bias, self.noise))
        return ScoreTables(jnp.asarray(token_kinds(tokenizer())), *numbers)


def exact_score() -> TextScore:
    """1 for a right step, 0 for a wrong one."""
    return TextScore(_exact, _Build())


def noisy_score(sharpness: float, bias: float = 0.0, noise: float = 1.0) -> TextScore:
    """Between 0 and 1, higher for right steps, disturbed by difficulty and by noise keyed by (seed, problem, turn).

    Both authors' steps of a turn get the same noise if they are both right or both wrong.

    Args:
      sharpness: of the distinction; 0 for a score that does not see correctness.
      bias: of a step's difficulty; negative for scores that are low where steps are hard.
      noise: standard deviation.

    Raises:
      ValueError: a number is not finite, or the noise is negative.
    """
    for name, value in {"sharpness": sharpness, "bias": bias, "noise": noise}.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}={value} is not finite")
    if noise < 0:
        raise ValueError(f"noise={noise} is negative; it is a standard deviation")
    return TextScore(_noisy, _Build(sharpness, bias, noise))


def judge(kinds: jax.Array, context: StepContext) -> Judgement:
    """Whether every lane's step is right, given the steps before.

    A step is right if it completes the response's next line, or ends it, and all of that line is as it should be.

    Args:
      kinds: (V,) int32.
      context: of the steps.
    """
    chain = read_prompts(kinds, context.tokens, context.prompt_length)
    kind = kinds.at[context.tokens].get(mode="fill", fill_value=OTHER)
    slot = jnp.arange(kind.shape[1], dtype=jnp.int32)
    before = (slot >= context.prompt_length[:, None]) & (slot < context.start[:, None])
    lines = jnp.sum(before & (kind == LINE), axis=1, dtype=jnp.int32)
    at_end = _check_response(kinds, chain, context)
    place = jnp.minimum(at_end.lines - 1, at_end.correct.shape[1] - 1)
    last_right = jnp.take_along_axis(at_end.correct, jnp.maximum(place, 0)[:, None], axis=1)[:, 0]
    right = (at_end.lines == lines + 1) & last_right
    step = jnp.minimum(lines, chain.operation.shape[1] - 1)[:, None]
    operation = jnp.take_along_axis(jnp.asarray(chain.operation), step, axis=1)[:, 0]
    operation = jnp.where(lines < chain.count, operation, PLUS)
    difficulty = sum(jnp.where(operation == kind, jnp.float32(value), 0.0) for kind, value in DIFFICULTY.items())
    return Judgement(right, jnp.asarray(difficulty))


def read_prompts(kinds: jax.Array, tokens: jax.Array, prompt_length: jax.Array, most: int = MAX_STEPS) -> Chain:
    """The problems that prompts state, as the checker takes them, with K = `most`.

    What is not a prompt of the task becomes some problem all the same, which its steps will hardly solve.

    Args:
      kinds: (V,) int32.
      tokens: (B, L) int32.
      prompt_length: (B,) int32.
    """
    lanes, length = tokens.shape
    kind = kinds.at[tokens].get(mode="fill", fill_value=OTHER)
    inside = jnp.arange(length, dtype=jnp.int32) < prompt_length[:, None]
    is_mark = inside & (kind >= PLUS) & (kind <= REMAINDER)
    part = jnp.cumsum(is_mark, axis=1, dtype=jnp.int32)  # 0 in the first number, k in the k-th operation
    is_digit = inside & (kind < PLUS)
    lane = jnp.arange(lanes)[:, None]
    # The digits of a part in front of its last one count a power of ten each for those behind them.
    total = jnp.zeros((lanes, most + 1), jnp.int32).at[lane, jnp.where(is_digit, part, most + 1)].add(1, mode="drop")
    before = jnp.cumsum(is_digit, axis=1, dtype=jnp.int32)
    first = jnp.cumsum(total, axis=1, dtype=jnp.int32) - total
    rank = before - jnp.take_along_axis(first, jnp.minimum(part, most), axis=1)
    behind = jnp.take_along_axis(total, jnp.minimum(part, most), axis=1) - rank
    worth = jnp.asarray([10**power for power in range(9)], jnp.int32)[jnp.clip(behind, 0, 8)]
    column = jnp.where(is_digit, part, most + 1)
    numbers = jnp.zeros((lanes, most + 1), jnp.int32).at[lane, column].add(kind * worth, mode="drop")
    column = jnp.where(is_mark, part - 1, most)
    operation = jnp.zeros((lanes, most), jnp.int32).at[lane, column].set(kind, mode="drop")
    count = jnp.minimum(jnp.max(part, axis=1), most)

    def work_out(value: jax.Array, step: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        index, mark, operand = step
        rest = value % jnp.maximum(operand, 1)
        chosen = [value + operand, value - operand, value * operand, rest]
        new = jnp.select([mark == PLUS, mark == MINUS, mark == TIMES, mark == REMAINDER], chosen, value)
        return jnp.where(index < count, new, value), None

    steps = (jnp.arange(most, dtype=jnp.int32), operation.T, numbers[:, 1:].T)
    answer = jax.lax.scan(work_out, numbers[:, 0], steps)[0]
    return Chain(numbers[:, 0], answer, count, operation, numbers[:, 1:])


def _check_response(kinds: jax.Array, chain: Chain, context: StepContext) -> CheckState:
    """The checker's state behind every response as far as the step's end."""
    length, end = context.tokens.shape[1], context.end
    begin = jnp.minimum(context.prompt_length, end)
    longest = jnp.max(jnp.where(context.live, end - begin, 0))

    def more(carry: tuple[jax.Array, CheckState]) -> jax.Array:
        return carry[0] < longest

    def window(carry: tuple[jax.Array, CheckState]) -> tuple[jax.Array, CheckState]:
        done, state = carry
        place = begin[:, None] + done + jnp.arange(WINDOW, dtype=jnp.int32)
        ids = jnp.take_along_axis(context.tokens, jnp.minimum(place, length - 1), axis=1)
        return done + WINDOW, check_tokens(kinds, chain, state, ids, jnp.clip(end - begin - done, 0, WINDOW))

    return jax.lax.while_loop(more, window, (jnp.int32(0), start_check(chain)))[1]


def _exact(tables: ScoreTables, context: StepContext) -> jax.Array:
    return judge(tables.kinds, context).right.astype(jnp.float32)


def _noisy(tables: ScoreTables, context: StepContext) -> jax.Array:
    right, difficulty = judge(tables.kinds, context)
    mark = prompt_mark(context.tokens, context.prompt_length)
    noise = turn_draw(context.seed, NOISE, context.turn, mark, lambda key: jax.random.normal(key, (), jnp.float32))
    signed = 2.0 * right.astype(jnp.float32) - 1.0
    return jax.nn.sigmoid(tables.sharpness * signed + tables.bias * difficulty + tables.noise * noise)
