"""Stop strings, found on the device in the bytes that tokens decode to.

The host builds an Aho-Corasick automaton over the strings' UTF-8 bytes (Aho and Corasick, 1975) and runs it through
every token of the vocabulary from every state, so that the loop needs one look-up a token.

Shapes: B lanes, D tokens, A states, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxspec.decode.sampling import Leaf

SMALLEST_BUCKET = 8  # states; tables grow by doubling, so that a string's length does not compile anew


class StopTable(NamedTuple):
    """Attributes:
    transition: (A, V) int32 state after the bytes of a token; a text begins in state 0, and a state once matched stays.
    matched: () int32 the state reached when a stop string has been said.
    """

    transition: Leaf
    matched: Leaf


def build_stop_table(
    stops: Sequence[str], token_bytes: Sequence[bytes], first_bytes: Sequence[bytes] | None = None
) -> StopTable:
    """The table of `stops` for a vocabulary, in NumPy arrays.

    Args:
      stops: strings, not empty.
      token_bytes: what every id contributes to decoded text.
      first_bytes: what it contributes as the first to contribute anything, if that differs.

    Raises:
      ValueError: a stop string is empty.
    """
    if any(not stop for stop in stops):
        raise ValueError("a stop string is empty, which would end every text at once; remove it")
    step, matched = _automaton([stop.encode() for stop in stops])
    states = _after(step, np.arange(len(step), dtype=np.int32), token_bytes)
    if first_bytes is not None:  # one more state, before the others, which holds until a token says something
        silent = np.array([not piece for piece in token_bytes])
        start = _after(step, np.zeros((1,), np.int32), first_bytes)
        states = np.concatenate([np.where(silent, 0, start + 1), states + 1])
        matched += 1
    size = SMALLEST_BUCKET
    while size < len(states):
        size *= 2
    transition = np.zeros((size, len(token_bytes)), np.int32)
    transition[: len(states)] = states
    return StopTable(transition, np.int32(matched))


def _after(step: np.ndarray, begin: np.ndarray, pieces: Sequence[bytes]) -> np.ndarray:
    """(len(begin), V) int32 states after the bytes of every piece, from each of the states `begin`."""
    longest = max(map(len, pieces), default=0)
    padded = np.zeros((len(pieces), longest), np.uint8)
    length = np.array([len(piece) for piece in pieces])
    for index, piece in enumerate(pieces):
        padded[index, : len(piece)] = np.frombuffer(piece, np.uint8)
    states = np.repeat(begin[:, None], len(pieces), axis=1)
    for offset in range(longest):
        inside = np.flatnonzero(length > offset)
        states[:, inside] = step[states[:, inside], padded[inside, offset]]
    return states


def _automaton(patterns: Sequence[bytes]) -> tuple[np.ndarray, int]:
    """Transitions (states, 256) int32 of a search for any of `patterns`, and the absorbing state of a match."""
    children: list[dict[int, int]] = [{}]
    accepting = {0: False}
    for pattern in patterns:
        node = 0
        for byte in pattern:
            if byte not in children[node]:
                children[node][byte] = len(children)
                accepting[len(children)] = False
                children.append({})
            node = children[node][byte]
        accepting[node] = True
    matched = len(children)
    step = np.zeros((matched + 1, 256), np.int32)
    step[matched] = matched
    fallback = {0: 0}
    queue = [0]
    while queue:
        node = queue.pop(0)
        if node:
            step[node] = step[fallback[node]]
        for byte, child in children[node].items():
            fallback[child] = int(step[node, byte]) if node else 0
            accepting[child] |= accepting[fallback[child]]
            step[node, byte] = child
            queue.append(child)
    final = np.array([accepting[node] for node in range(matched)] + [False])
    return np.where(final[step], matched, step).astype(np.int32), matched


def advance(table: StopTable, state: jax.Array, ids: jax.Array) -> jax.Array:
    """(B, D) int32 states after each of `ids` (B, D), from `state` (B,) on."""

    def step(state: jax.Array, column: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = table.transition.at[state, column].get(mode="clip")
        return state, state

    _, states = jax.lax.scan(step, state, ids.T)
    return states.T


def trim_text(text: str, stops: Sequence[str]) -> str:
    """`text` up to the earliest occurrence of any of `stops`."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(found)] if found else text
