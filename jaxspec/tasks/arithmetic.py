"""A synthetic reasoning task: a chain of arithmetic operations, one step a line, every result carried into the next.

    47 +86 *13 %29:          the prompt: a number, then what is done to it, from left to right
    47+86=133                a step
    133*13=133*10+133*3=1330+399=1729    a step with scratch work, where the factor has two digits
    1729%29=18
    answer 18

Steps differ in length (numbers are not padded, products by two digits carry scratch work) and in kind: sums are within
a small network's reach, products within a larger one's, remainders often beyond both. A router can tell those kinds
apart where a score of correctness alone cannot, which is what makes escalation worth deciding (ARBITRAGE, section 3).

A step is right, given the steps before it, if its line begins with the number the line before ended in, the operation
and the operand that the problem asks for, and all its expressions joined by "=" have the same value, the last being a
plain number. So scratch work is free in form but may not be wrong. Every number and intermediate value must stay
within `LIMIT`. `check_text` is the plain reference of `arithmetic_check`, which does the same on token ids in a
compiled loop.
"""

import dataclasses
import functools
import re
from typing import Literal, NamedTuple

import numpy as np

from jaxspec.tasks.symbol_tokenizer import symbol_tokenizer
from jaxspec.weights.tokenizer import Tokenizer

OPERATIONS = "+-*%"
ANSWER = "answer "
LIMIT = 10**8 - 1  # of any value met while a line is checked; int32 holds twice as much
PROMPT_END = ":\n"
MOST_DRAWS = 1000
SPLITS = {"train": 1, "held_out": 2}  # streams of their own; the problems of `make_problems` are a third

Split = Literal["train", "held_out"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Attributes:
    start: the number the chain begins with.
    steps: (operation, operand) in order.
    """

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def values(self) -> tuple[int, ...]:
        """The result of every step."""
        found, value = [], self.start
        for operation, operand in self.steps:
            value = evaluate(operation, value, operand)
            found.append(value)
        return tuple(found)

    @property
    def answer(self) -> int:
        return self.values[-1]


@dataclasses.dataclass(frozen=True)
class Band:
    """A difficulty.

    Attributes:
      steps: least and most operations of a chain.
      digits: every result has at most so many.
      weights: relative frequency of each of `OPERATIONS`.
      factor: largest factor and largest modulus.
      longest: characters of prompt and solution together; a longer problem is drawn again. None for any.
    """

    steps: tuple[int, int]
    digits: int
    weights: tuple[float, float, float, float]
    factor: int
    longest: int | None = None

    def __post_init__(self) -> None:
        least, most = self.steps
        if not 1 <= least <= most:
            raise ValueError(f"steps={self.steps} must be two counts, at least 1 and in order")
        if not 1 <= self.digits <= 6:
            raise ValueError(f"digits={self.digits} must lie between 1 and 6")
        if len(self.weights) != len(OPERATIONS) or min(self.weights) < 0:
            raise ValueError(f"weights={self.weights} must be {len(OPERATIONS)} numbers of at least 0")
        if self.weights[0] <= 0 or self.weights[1] <= 0:
            raise ValueError(f"weights={self.weights}: sums and differences, always possible, need some weight")
        if not 2 <= self.factor <= 99:
            raise ValueError(f"factor={self.factor} must lie between 2 and 99")


BANDS = {
    "easy": Band(steps=(2, 4), digits=2, weights=(0.5, 0.5, 0.0, 0.0), factor=9),
    "medium": Band(steps=(3, 5), digits=2, weights=(0.35, 0.3, 0.2, 0.15), factor=9),
    "hard": Band(steps=(3, 5), digits=3, weights=(0.2, 0.15, 0.25, 0.4), factor=99, longest=104),
}
MAX_STEPS = max(band.steps[1] for band in BANDS.values())


def evaluate(operation: str, left: int, right: int) -> int:
    """One operation; a remainder by 0 is -1, which no line can state."""
    if operation == "%":
        return left % right if right else -1
    return {"+": left + right, "-": left - right, "*": left * right}[operation]


def make_problems(count: int, seed: int, band: str | Band = "mixed") -> list[Problem]:
    """Problems 0 to `count - 1` of a seed: problem i is the same however many are made.

    Args:
      band: a name in `BANDS`, "mixed" for each of them in turn, or one of your own.

    Raises:
      ValueError: another name, or a band whose problems are nearly all too long.
    """
    if isinstance(band, str) and band != "mixed" and band not in BANDS:
        raise ValueError(f"band={band!r} is unknown; choose from {', '.join([*BANDS, 'mixed'])}")
    chosen = list(BANDS.values()) if band == "mixed" else [BANDS[band] if isinstance(band, str) else band]
    return [_make_problem(chosen[index % len(chosen)], np.random.default_rng([seed, index])) for index in range(count)]


def example(seed: int, index: int, split: Split = "train") -> tuple[str, str]:
    """Prompt and solution of problem number `index` of a split, the bands in turn.

    The text ends right behind the answer, so that an end of sequence belongs to the answer's step.
    Short chains of small numbers are so few that a split repeats some of another by chance; long ones are not.
    """
    problem = example_problem(seed, index, split)
    return prompt_text(problem), "".join(solution_steps(problem)).removesuffix("\n")


def example_problem(seed: int, index: int, split: Split = "train") -> Problem:
    """The problem of `example`."""
    band = list(BANDS.values())[index % len(BANDS)]
    return _make_problem(band, np.random.default_rng([seed, index, SPLITS[split]]))


def grade(answer: str, text: str) -> bool:
    """Whether the answer line of a model's `text` states what that of the solution `answer` does."""
    stated, expected = (_stated_answer(each) for each in (text, answer))
    return stated is not None and stated == expected


def _stated_answer(text: str) -> int | None:
    line = next((line for line in text.split("\n") if line.startswith(ANSWER)), None)
    return None if line is None else _number(line.removeprefix(ANSWER))


def _make_problem(band: Band, random: np.random.Generator) -> Problem:
    for _ in range(MOST_DRAWS):
        problem = _draw_problem(band, random)
        if band.longest is None or len(prompt_text(problem) + "".join(solution_steps(problem))) <= band.longest:
            return problem
    raise ValueError(f"no problem of {MOST_DRAWS} has at most longest={band.longest} characters; raise it")


def _draw_problem(band: Band, random: np.random.Generator) -> Problem:
    top = 10**band.digits - 1
    start = value = _draw(random, 1, top)
    steps = []
    for _ in range(int(random.integers(band.steps[0], band.steps[1] + 1))):
        ranges = {  # operands with which the result stays between 0 and `top`
            "+": (1, top - value),
            "-": (1, value),
            "*": (2, min(band.factor, top // max(value, 1))),
            "%": (2, min(band.factor, value - 1)),
        }
        weight = np.array([band.weights[i] * (ranges[name][0] <= ranges[name][1]) for i, name in enumerate(OPERATIONS)])
        operation = OPERATIONS[int(random.choice(len(OPERATIONS), p=weight / weight.sum()))]
        operand = _draw(random, *ranges[operation])
        steps.append((operation, operand))
        value = evaluate(operation, value, operand)
    return Problem(start, tuple(steps))


def _draw(random: np.random.Generator, low: int, high: int) -> int:
    """A number in [low, high]: first how many digits, then which, so that short numbers are as frequent as long."""
    digits = int(random.integers(len(str(low)), len(str(high)) + 1))
    return int(random.integers(max(low, 10 ** (digits - 1)), min(high, 10**digits - 1) + 1))


def prompt_text(problem: Problem) -> str:
    """What the model is given."""
    return " ".join([str(problem.start), *(f"{name}{operand}" for name, operand in problem.steps)]) + PROMPT_END


def step_text(operation: str, left: int, right: int) -> str:
    """The line that works out one operation, with scratch work for a factor of two digits."""
    result = evaluate(operation, left, right)
    tens, ones = right - right % 10, right % 10
    if operation == "*" and tens and ones:
        return f"{left}*{right}={left}*{tens}+{left}*{ones}={left * tens}+{left * ones}={result}\n"
    return f"{left}{operation}{right}={result}\n"


def solution_steps(problem: Problem) -> list[str]:
    """The lines of the solution, the answer's last; they join to the text a model is trained to write."""
    lefts = (problem.start, *problem.values)
    lines = [step_text(name, left, operand) for (name, operand), left in zip(problem.steps, lefts, strict=False)]
    return [*lines, f"{ANSWER}{problem.answer}\n"]


@functools.cache
def tokenizer() -> Tokenizer:
    """Characters, and the word that opens the answer."""
    return symbol_tokenizer([*"0123456789", *OPERATIONS, "=", " ", ":", "\n", ANSWER])


class Check(NamedTuple):
    """What a response got right.

    Attributes:
      right: for each complete line, the answer's included, whether it is right given the lines before.
      answered: whether there is an answer line; nothing behind it counts.
      answer_right: whether the first answer line states the problem's answer, however it was come by.
    """

    right: tuple[bool, ...]
    answered: bool
    answer_right: bool


def check_text(problem: Problem, text: str, *, ended: bool = False) -> Check:
    """Checks a response. A last line without its line break counts only if the text has `ended`."""
    *lines, rest = text.split("\n")
    if ended and rest:
        lines.append(rest)
    right: list[bool] = []
    carried: int | None = problem.start
    for index, line in enumerate(lines):
        if line.startswith(ANSWER):
            stated = _number(line.removeprefix(ANSWER))
            right.append(stated is not None and stated == carried and index == len(problem.steps))
            return Check(tuple(right), True, stated == problem.answer)
        step = problem.steps[index] if index < len(problem.steps) else None
        asked = None if carried is None or step is None else f"{carried}{step[0]}{step[1]}"
        *work, last = line.split("=")
        stated = _number(last)
        values = {_expression(part) for part in [*work, last]}
        right.append(bool(work) and work[0] == asked and values == {stated} and stated is not None)
        carried = stated if work else None
    return Check(tuple(right), False, False)


def _number(text: str) -> int | None:
    """The number that a text is: digits without a leading zero."""
    if not re.fullmatch("0|[1-9][0-9]*", text) or len(text) > len(str(LIMIT)):
        return None
    return int(text)


def _expression(text: str) -> int | None:
    """The value of a sum of products, or None where it is malformed or leaves the limit.

    `*` and `%` bind tighter than `+` and `-`; each group is worked out from the left.
    """
    parts = re.split("([-+*%])", text)
    numbers = [_number(part) for part in parts[::2]]
    if any(number is None for number in numbers):
        return None
    total, term, sign = 0, int(numbers[0] or 0), 1
    for operation, number in zip(parts[1::2], numbers[1:], strict=True):
        value = int(number or 0)
        if operation in "*%":
            term = evaluate(operation, term, value)
            if not 0 <= term <= LIMIT:
                return None
            continue
        total += sign * term
        if abs(total) > LIMIT:
            return None
        sign, term = (1 if operation == "+" else -1), value
    total += sign * term
    return total if abs(total) <= LIMIT else None
