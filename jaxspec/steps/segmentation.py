"""Where one reasoning step ends and the next begins, found on the device in token ids.

A step is a run of generated tokens that ends with the token that completes a delimiter, with the last token its cap
allows, or with EOS (ARBITRAGE, section 3.1). Text is never decoded, cut or encoded again: delimiters are searched in
the bytes that tokens contribute, so that one may be spread over several tokens or end inside one, and a step always
holds whole tokens. Occurrences are counted as `str.split` counts them, from the left and not overlapping; bytes of a
token behind a delimiter already belong to the search for the next one.

Shapes: B lanes, D + 1 tokens offered at once, A automaton states, V vocabulary, E end ids.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.sampling import Leaf
from jaxspec.decode.stop import SMALLEST_BUCKET, build_stop_table
from jaxspec.decode.whole_number import integer

BYTES = [bytes([value]) for value in range(256)]
AFTER, BEFORE = 1, 2  # where a step ends: behind the token, or, its last bytes being proof alone, before it
KINDS = 3
DEFAULT_STEP_TOKENS = 256


class StepEnd(enum.IntEnum):
    """Why a step ended."""

    NONE = 0
    DELIMITER = 1
    CAP = 2
    EOS = 3


class StepRules(NamedTuple):
    """Data of the compiled loop; `step_rules` builds it.

    Attributes:
      table: (A, V) int32 `KINDS * state + end`: the automaton's state behind a token, and whether a step ends there
        (0, `AFTER` or `BEFORE`).
      end_ids: (E,) int32 ids that end the whole text; -1 matches nothing.
      max_step_tokens: () int32.
    """

    table: Leaf
    end_ids: Leaf
    max_step_tokens: Leaf


class StepState(NamedTuple):
    """Attributes:
    automaton: (B,) int32 state of the search behind the tokens so far.
    length: (B,) int32 tokens of the step in progress.
    """

    automaton: jax.Array
    length: jax.Array


class StepCut(NamedTuple):
    """Attributes:
    count: (B,) int32 how many of the offered tokens belong to the step in progress, the first ones.
    end: (B,) int32 a `StepEnd`; unless NONE, the step is complete with those tokens.
    state: behind those tokens; after an end, at the start of the next step.
    """

    count: jax.Array
    end: jax.Array
    state: StepState


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What ends a step, in words; made by the presets or by `custom`.

    Attributes:
      delimiters: strings; the first one completed ends the step. Without any, steps are chunks of as many tokens
        as the cap allows.
      max_step_tokens: cap, at least 1.
      delimiter_ids: ids that end a step by themselves, such as a reserved separator without text.
      lookahead: bytes at the end of every delimiter that only prove that a step is over. A token made complete by
        such bytes alone opens the next step, unless it is white space: that of " The" proves that a sentence ended
        before it. Where tokens are drawn and steps may be taken back, it ends its step instead, because drawing it
        again would favour tokens that prove nothing.
    """

    delimiters: tuple[str, ...]
    max_step_tokens: int = DEFAULT_STEP_TOKENS
    delimiter_ids: tuple[int, ...] = ()
    lookahead: int = 0

    def __post_init__(self) -> None:
        _check_list(self.delimiters)
        if any(not delimiter for delimiter in self.delimiters):
            raise ValueError("a delimiter is empty, which would end every step at once; remove it")
        if integer("max_step_tokens", self.max_step_tokens) < 1:
            raise ValueError(f"max_step_tokens={self.max_step_tokens} leaves no room for a step; give at least 1")
        shortest = min((len(delimiter.encode()) for delimiter in self.delimiters), default=self.lookahead + 1)
        if not 0 <= self.lookahead < shortest:
            raise ValueError(f"lookahead={self.lookahead} must lie below the shortest delimiter's {shortest} bytes")

    @classmethod
    def reasoning(cls, max_step_tokens: int = DEFAULT_STEP_TOKENS) -> "Segmentation":
        """Steps of a chain of thought, as RSD and ARBITRAGE cut them: paragraphs, ended by a blank line."""
        return cls(("\n\n",), max_step_tokens)

    @classmethod
    def prose(cls, max_step_tokens: int = 128) -> "Segmentation":
        """Sentences: a full stop, question or exclamation mark that white space follows, closing quote between or
        not, or a blank line. Abbreviations end a sentence too; decimal fractions do not."""
        marks = [mark + close for mark in ".?!" for close in ("", '"', ")", "\N{RIGHT DOUBLE QUOTATION MARK}")]
        ends = (*(mark + space for mark in marks for space in " \n"), "\n\n")
        return cls(ends, max_step_tokens, lookahead=1)

    @classmethod
    def code(cls, unit: str = "line", max_step_tokens: int = DEFAULT_STEP_TOKENS) -> "Segmentation":
        """Source code by `unit`: "line", or "block", ended by a blank line.

        Raises:
          ValueError: another unit.
        """
        units = {"line": "\n", "block": "\n\n"}
        if unit not in units:
            raise ValueError(f"unit={unit!r} is unknown; code is cut by {' or '.join(map(repr, units))}")
        return cls((units[unit],), max_step_tokens)

    @classmethod
    def chunks(cls, tokens: int) -> "Segmentation":
        """Chunks of a fixed number of tokens, whatever they say, as A1 cuts them; the last one may be shorter."""
        return cls((), tokens)

    @classmethod
    def custom(
        cls,
        delimiters: Sequence[str] = (),
        max_step_tokens: int = DEFAULT_STEP_TOKENS,
        *,
        delimiter_ids: Sequence[int] = (),
    ) -> "Segmentation":
        """Any strings and ids; a step ends behind the token that completes the first.

        Raises:
          ValueError: there are none, or one text in place of a list.
        """
        _check_list(delimiters)
        if not delimiters and not delimiter_ids:
            raise ValueError(
                "no delimiter ends a step; give delimiters=['\\n\\n'] or delimiter_ids=[...], or take "
                "Segmentation.chunks(tokens) for steps of a fixed length"
            )
        return cls(tuple(delimiters), max_step_tokens, tuple(delimiter_ids))


def _check_list(delimiters: Sequence[str]) -> None:
    if isinstance(delimiters, str):
        raise ValueError(
            f"delimiters={delimiters!r} is one text, which would be read as its letters; pass a list: [{delimiters!r}]"
        )


def step_rules(segmentation: Segmentation, token_bytes: Sequence[bytes], end_ids: Sequence[int] = ()) -> StepRules:
    """The rules of a segmentation for one vocabulary, in NumPy arrays.

    Args:
      token_bytes: what every id contributes to decoded text, `Tokenizer.token_bytes()`.
      end_ids: EOS ids.

    Raises:
      ValueError: no sequence of tokens spells one of the delimiters, or an id lies outside the vocabulary.
    """
    vocabulary = len(token_bytes)
    unspelt = [delimiter for delimiter in segmentation.delimiters if not is_spellable(delimiter.encode(), token_bytes)]
    if unspelt:
        raise ValueError(
            f"no tokens of this vocabulary spell the delimiter {unspelt[0]!r}, so that no step would end there; "
            "choose another delimiter, or name a separator token in delimiter_ids"
        )
    outside = [index for index in segmentation.delimiter_ids if not 0 <= index < vocabulary]
    if outside:
        raise ValueError(f"delimiter id {outside[0]} lies outside the vocabulary of {vocabulary} ids")
    table = _token_table(segmentation, token_bytes)
    table[:, list(segmentation.delimiter_ids)] = AFTER
    return StepRules(
        table=table,
        end_ids=np.array(sorted(set(end_ids)) or [-1], np.int32),
        max_step_tokens=np.int32(segmentation.max_step_tokens),
    )


def _token_table(segmentation: Segmentation, token_bytes: Sequence[bytes]) -> np.ndarray:
    """(A, V) int32 as in `StepRules`: the byte automaton, begun again at every match, run through every token."""
    if not segmentation.delimiters:
        return np.zeros((SMALLEST_BUCKET, len(token_bytes)), np.int32)
    bytewise = build_stop_table(segmentation.delimiters, BYTES)
    step, matched = _fewest_states(np.asarray(bytewise.transition), int(bytewise.matched))
    size = SMALLEST_BUCKET
    while size < matched:
        size *= 2
    length = np.array([len(piece) for piece in token_bytes])
    blank = np.array([piece.isspace() for piece in token_bytes]) & (segmentation.lookahead > 0)
    padded = np.zeros((len(token_bytes), max(length, default=0)), np.uint8)
    for index, piece in enumerate(token_bytes):
        padded[index, : len(piece)] = np.frombuffer(piece, np.uint8)
    states = np.repeat(np.arange(matched, dtype=np.int32)[:, None], len(token_bytes), axis=1)
    ends = np.zeros_like(states)
    for offset in range(padded.shape[1]):
        inside = np.flatnonzero(length > offset)
        after = step[states[:, inside], padded[inside, offset]]
        kind = np.where(blank[inside], AFTER, BEFORE) if offset < segmentation.lookahead else AFTER
        ends[:, inside] = np.where(after == matched, kind, ends[:, inside])
        states[:, inside] = np.where(after == matched, 0, after)
    states[:, blank] = np.where(ends[:, blank] == AFTER, 0, states[:, blank])  # the rest of it begins nothing
    table = np.zeros((size, len(token_bytes)), np.int32)
    table[:matched] = KINDS * states + ends
    return table


def _fewest_states(step: np.ndarray, matched: int) -> tuple[np.ndarray, int]:
    """The smallest automaton that matches alike (Moore, 1956), its start 0 and its matched state the last.

    Sentence ends come in dozens and all wait for the same white space: tables of large vocabularies shrink with them.
    """
    step = step[: matched + 1]
    kind = np.zeros(matched + 1, np.int32)
    kind[matched] = 1
    while True:
        _, refined = np.unique(np.column_stack([kind, kind[step]]), axis=0, return_inverse=True)
        if refined.max() == kind.max():
            break
        kind = refined.astype(np.int32)
    order = list(dict.fromkeys([*kind[:matched].tolist(), int(kind[matched])]))  # start first, match last
    first = [int(np.flatnonzero(kind == number)[0]) for number in order]
    rank = np.argsort(order).astype(np.int32)
    return rank[kind][step[first]], len(order) - 1


def is_spellable(delimiter: bytes, token_bytes: Sequence[bytes]) -> bool:
    """Whether `delimiter` occurs in the bytes of some sequence of tokens."""
    pieces = {piece for piece in token_bytes if piece}
    if all(delimiter[at : at + 1] in pieces for at in range(len(delimiter))):
        return True
    if any(delimiter in piece for piece in pieces):
        return True
    size = len(delimiter)
    begun = {at for at in range(1, size) if any(piece.endswith(delimiter[:at]) for piece in pieces)}
    for at in range(1, size):
        if at in begun:
            begun |= {end for end in range(at + 1, size) if delimiter[at:end] in pieces}
    return any(piece.startswith(delimiter[at:]) for at in begun for piece in pieces)


def start_steps(lanes: int) -> StepState:
    """The state behind a prompt, whose own text no step belongs to."""
    zeros = jnp.zeros(lanes, jnp.int32)
    return StepState(zeros, zeros)


def cut_step(rules: StepRules, state: StepState, ids: jax.Array, count: jax.Array) -> StepCut:
    """The part of newly generated tokens that belongs to the step in progress, and whether the step ends with it.

    The first end wins; at one token EOS comes before a delimiter, which comes before the cap. What is not counted
    belongs to no step yet: the caller takes it back, or offers it again with the returned state. `count` 0 changes
    nothing. Delimiters are found wherever the text has them: a cap between two halves of one does not hide it.

    Args:
      rules: see there.
      state: (B,) leaves, before `ids`.
      ids: (B, D + 1) int32; ids beyond the vocabulary contribute no text.
      count: (B,) int32 how many of `ids` are offered, the first ones.
    """
    width = ids.shape[1]
    step = jnp.arange(width, dtype=jnp.int32)
    states, kinds = _walk(rules, state.automaton, ids)
    length = state.length[:, None] + step + 1
    is_after = kinds == AFTER
    is_before = (kinds == BEFORE) & (length > 1)  # a step without tokens is none
    is_end = jnp.any(ids[:, :, None] == jnp.asarray(rules.end_ids), axis=2)
    reason = jnp.where(length >= rules.max_step_tokens, jnp.int32(StepEnd.CAP), jnp.int32(StepEnd.NONE))
    reason = jnp.where(is_after | is_before, jnp.int32(StepEnd.DELIMITER), reason)
    reason = jnp.where(is_end & ~is_before, jnp.int32(StepEnd.EOS), reason)

    ends = (step < count[:, None]) & (reason != StepEnd.NONE)
    ended = jnp.any(ends, axis=1)
    at = jnp.argmax(ends, axis=1).astype(jnp.int32)
    before = jnp.take_along_axis(is_before, at[:, None], axis=1)[:, 0]
    kept = jnp.where(ended, jnp.where(before, at, at + 1), count)
    last = jnp.take_along_axis(states, jnp.maximum(kept - 1, 0)[:, None], axis=1)[:, 0]
    automaton = jnp.where(kept > 0, last, state.automaton)
    return StepCut(
        count=kept,
        end=jnp.where(ended, jnp.take_along_axis(reason, at[:, None], axis=1)[:, 0], jnp.int32(StepEnd.NONE)),
        state=StepState(
            automaton=jnp.where(ended & before, 0, automaton),
            length=jnp.where(ended, 0, state.length + kept),
        ),
    )


def _walk(rules: StepRules, automaton: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(B, D + 1) int32 states behind each of `ids`, and where a step ends at each (0, `AFTER`, `BEFORE`)."""
    table = jnp.asarray(rules.table)

    def step(state: jax.Array, column: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        known = column < table.shape[1]
        packed = jnp.where(known, table.at[state, column].get(mode="clip"), KINDS * state)
        state = packed // KINDS
        return state, (state, packed % KINDS)

    _, (states, kinds) = jax.lax.scan(step, automaton, ids.T)
    return states.T, kinds.T
