"""The step checker of `arithmetic` on token ids, one token at a time, inside a compiled loop.

A lane's state is a small parser: the sum, product and number being read, the value the line's expressions must share,
and the number the line before ended in. Keep the state before a step to take the step back.

Shapes: B lanes, D tokens offered at once, K most operations of a problem, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.sampling import Leaf
from jaxspec.tasks.arithmetic import ANSWER, LIMIT, MAX_STEPS, OPERATIONS, Problem
from jaxspec.weights.tokenizer import Tokenizer

PLUS, MINUS, TIMES, REMAINDER, EQUALS, LINE, SAYS, STOP, SILENT, OTHER = range(10, 20)  # digits are 0 to 9
SIGNS = dict(zip(OPERATIONS, (PLUS, MINUS, TIMES, REMAINDER), strict=True)) | {"=": EQUALS, "\n": LINE, ANSWER: SAYS}
NONE = -1  # no such value: numbers of a line are never negative
MOST_DIGITS = len(str(LIMIT))


class Chain(NamedTuple):
    """Problems as arrays.

    Attributes:
      start, answer, count: (B,) int32 first number, answer, and operations.
      operation: (B, K) int32 `PLUS` to `REMAINDER`; 0 beyond the count.
      operand: (B, K) int32.
    """

    start: Leaf
    answer: Leaf
    count: Leaf
    operation: Leaf
    operand: Leaf


class CheckState(NamedTuple):
    """The parser of every lane, and what it found. All (B,), int32 unless said.

    Attributes:
      total, term, sign, number, digits: of the expression being read; `term` is the product before `number`.
      modulo: bool, `number` divides `term` with remainder instead of multiplying it.
      fine: bool, nothing in the line is wrong so far.
      readable: bool, the line may end in a number to carry: what stands behind its last "=" is digits alone.
      equations: "=" signs read in the line.
      marks: operators read in the expression.
      shared: value of the line's first expression.
      left, asked, right: first number, operator and second number of the line.
      says: bool, the line opened with the word for the answer.
      begun: bool, the line has a token.
      carried: number the line before ended in, or `NONE`.
      finished, answered, answer_right: bool.
      lines: complete lines so far.
      correct: (B, K + 1) bool whether each of the first lines is right; lines beyond are never right.
    """

    total: jax.Array
    term: jax.Array
    sign: jax.Array
    number: jax.Array
    digits: jax.Array
    modulo: jax.Array
    fine: jax.Array
    readable: jax.Array
    equations: jax.Array
    marks: jax.Array
    shared: jax.Array
    left: jax.Array
    asked: jax.Array
    right: jax.Array
    says: jax.Array
    begun: jax.Array
    carried: jax.Array
    finished: jax.Array
    answered: jax.Array
    answer_right: jax.Array
    lines: jax.Array
    correct: jax.Array


def chain_arrays(problems: Sequence[Problem], most: int = MAX_STEPS) -> Chain:
    """Problems for the checker, in NumPy arrays with K = `most`.

    Raises:
      ValueError: a problem has more operations.
    """
    longest = max((len(problem.steps) for problem in problems), default=0)
    if longest > most:
        raise ValueError(f"a problem has {longest} operations, more than most={most}; raise it")
    operation, operand = np.zeros((2, len(problems), most), np.int32)
    for row, problem in enumerate(problems):
        for column, (name, number) in enumerate(problem.steps):
            operation[row, column], operand[row, column] = SIGNS[name], number
    return Chain(
        start=np.array([problem.start for problem in problems], np.int32),
        answer=np.array([problem.answer for problem in problems], np.int32),
        count=np.array([len(problem.steps) for problem in problems], np.int32),
        operation=operation,
        operand=operand,
    )


def token_kinds(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) int32 what the parser makes of every id of `arithmetic.tokenizer()`, or of one that spells likewise.

    Raises:
      ValueError: a symbol of the task has no token of its own.
    """
    pieces = tokenizer.token_bytes()
    symbols = {str(digit): digit for digit in range(10)} | SIGNS
    missing = [symbol for symbol in symbols if tokenizer.encode(symbol, add_special=False) != [_id(pieces, symbol)]]
    if missing:
        raise ValueError(f"{missing[0]!r} is not one token of this tokenizer; use jaxspec.tasks.arithmetic.tokenizer()")
    kinds = [symbols.get(piece.decode(errors="replace"), OTHER) if piece else SILENT for piece in pieces]
    for index in tokenizer.eos_ids:
        kinds[index] = STOP
    return np.array(kinds, np.int32)


def _id(pieces: Sequence[bytes], symbol: str) -> int:
    return pieces.index(symbol.encode()) if symbol.encode() in pieces else -1


def start_check(chain: Chain) -> CheckState:
    """The state before a response."""
    zeros = jnp.zeros_like(jnp.asarray(chain.start))
    none, no = zeros + NONE, zeros.astype(bool)
    return CheckState(
        **_fresh_line(zeros),
        **dict.fromkeys(("left", "asked", "right", "shared"), none),
        **dict.fromkeys(("finished", "answered", "answer_right"), no),
        carried=jnp.asarray(chain.start),
        lines=zeros,
        correct=jnp.zeros((len(zeros), chain.operand.shape[1] + 1), bool),
    )


def check_tokens(kinds: Leaf, chain: Chain, state: CheckState, ids: jax.Array, count: jax.Array) -> CheckState:
    """The state behind the first `count` (B,) of `ids` (B, D). An EOS ends the line it stands in.

    Args:
      kinds: (V,) int32, see `token_kinds`.
    """
    kind = jnp.asarray(kinds).at[ids].get(mode="fill", fill_value=OTHER)
    offered = jnp.arange(ids.shape[1], dtype=jnp.int32) < count[:, None]
    kind = jnp.where(offered, kind, SILENT)

    def step(state: CheckState, kind: jax.Array) -> tuple[CheckState, None]:
        return _read(chain, state, kind), None

    return jax.lax.scan(step, state, kind.T)[0]


def _fresh_line(zeros: jax.Array) -> dict[str, jax.Array]:
    no = zeros.astype(bool)
    return {
        "total": zeros, "term": zeros + 1, "sign": zeros + 1, "number": zeros, "digits": zeros, "modulo": no,
        "fine": ~no, "readable": ~no, "equations": zeros, "marks": zeros, "says": no, "begun": no,
    }  # fmt: skip


def _read(chain: Chain, state: CheckState, kind: jax.Array) -> CheckState:
    """One token in every lane; finished lanes and silent tokens change nothing."""
    is_digit, is_mark = kind < PLUS, (kind >= PLUS) & (kind <= REMAINDER)
    is_equals, ends_line = kind == EQUALS, (kind == LINE) | ((kind == STOP) & state.begun)
    opens = (kind == SAYS) & ~state.begun
    ends_number = is_mark | is_equals | ends_line

    # A digit extends the number; leading zeros and numbers beyond the limit spoil the line.
    spoilt = is_digit & (((state.digits == 1) & (state.number == 0)) | (state.digits >= MOST_DIGITS))
    number = jnp.where(is_digit & ~spoilt, 10 * state.number + kind, state.number)
    digits = state.digits + is_digit.astype(jnp.int32)

    # An operator, "=" or the end of the line ends the number and multiplies it in.
    divisor = jnp.maximum(number, 1)
    outgrown = ~state.modulo & (state.term > LIMIT // divisor) & (number > 0)
    product = jnp.where(state.modulo, state.term % divisor, jnp.where(outgrown, 0, state.term * number))
    broken = (digits == 0) | outgrown | (state.modulo & (number == 0))
    total = state.total + state.sign * product
    groups = ends_number & (kind != TIMES) & (kind != REMAINDER)  # the product is complete: add it
    broken |= groups & (jnp.abs(total) > LIMIT)

    # The line's first three parts are what the problem must have asked for.
    first = ends_number & (state.equations == 0)
    left = jnp.where(first & (state.marks == 0), number, state.left)
    asked = jnp.where(is_mark & first, kind, state.asked)
    right = jnp.where(first & (state.marks == 1), number, state.right)
    asks_wrongly = is_equals & first & ~_asked_for(chain, state, left, asked, right)

    closes = is_equals | ends_line
    shared = jnp.where(is_equals & first, total, state.shared)
    differs = closes & (state.equations > 0) & (total != state.shared)
    wrong = spoilt | (ends_number & broken) | asks_wrongly | differs
    wrong |= (kind == OTHER) | ((kind == SAYS) & state.begun) | (state.says & (is_mark | is_equals))
    readable = jnp.where(
        is_equals, True, state.readable & ~(spoilt | is_mark | (kind == OTHER) | (kind == SAYS) & ~opens)
    )

    within = state._replace(
        total=jnp.where(closes, 0, jnp.where(groups, total, state.total)),
        term=jnp.where(groups, 1, jnp.where(is_mark, product, state.term)),
        sign=jnp.where(kind == MINUS, -1, jnp.where(groups, 1, state.sign)),
        number=jnp.where(ends_number, 0, number),
        digits=jnp.where(ends_number, 0, digits),
        modulo=jnp.where(ends_number, kind == REMAINDER, state.modulo),
        fine=state.fine & ~wrong,
        readable=readable,
        equations=state.equations + is_equals.astype(jnp.int32),
        marks=jnp.where(is_equals, 0, state.marks + is_mark.astype(jnp.int32)),
        shared=shared,
        left=left,
        asked=asked,
        right=right,
        says=state.says | opens,
        begun=jnp.ones_like(state.begun),
    )
    after = _end_line(chain, within, jnp.where(readable & (digits > 0), number, NONE))
    read = jax.tree.map(lambda new, old: _choose(ends_line, new, old), after, within)
    read = read._replace(finished=read.finished | (kind == STOP))
    idle = state.finished | (kind == SILENT)
    return jax.tree.map(lambda new, old: _choose(idle, old, new), read, state)


def _asked_for(chain: Chain, state: CheckState, left: jax.Array, asked: jax.Array, right: jax.Array) -> jax.Array:
    """(B,) bool whether a line that opens with these parts works on what the problem asks for at its place."""
    place = jnp.minimum(state.lines, chain.operand.shape[1] - 1)[:, None]
    operation = jnp.take_along_axis(jnp.asarray(chain.operation), place, axis=1)[:, 0]
    operand = jnp.take_along_axis(jnp.asarray(chain.operand), place, axis=1)[:, 0]
    exists = (state.lines < chain.count) & (state.marks == 1)
    return exists & (left == state.carried) & (asked == operation) & (right == operand)


def _end_line(chain: Chain, state: CheckState, stated: jax.Array) -> CheckState:
    """Every lane's line ends, with `stated` (B,) its last number, or `NONE`."""
    step_right = (state.equations > 0) & (stated != NONE) & state.fine
    says_right = (stated != NONE) & (stated == state.carried) & (state.lines == chain.count) & state.fine
    right = jnp.where(state.says, says_right, step_right)
    lane = jnp.arange(len(stated))
    return state._replace(
        **_fresh_line(jnp.zeros_like(stated)),
        carried=jnp.where(state.equations > 0, stated, NONE),
        finished=state.finished | state.says,
        answered=state.answered | state.says,
        answer_right=state.answer_right | (state.says & state.fine & (stated == chain.answer)),
        lines=state.lines + 1,
        correct=state.correct.at[lane, state.lines].set(right, mode="drop"),
    )


def _choose(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    return jnp.where(condition.reshape(condition.shape + (1,) * (yes.ndim - 1)), yes, no)
