"""Context rows against a plain count of windows."""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxspec.drafters.context_rows import ContextRows, context_rows

LENGTH, WINDOW = 48, 48
TEXT = st.lists(st.integers(0, 2), min_size=1, max_size=LENGTH)


@functools.partial(jax.jit, static_argnames=("query", "width", "rows", "window", "strict"))
def compiled(tokens, length, query, width, rows, window=WINDOW, strict=True) -> ContextRows:
    return context_rows(tokens, length, query, width, rows, window, strict)


def search(texts: list[list[int]], *setting, garbage: int = 1, **options) -> ContextRows:
    tokens = np.full((len(texts), LENGTH), garbage)  # beyond the end, where it must not be read
    for lane, text in enumerate(texts):
        tokens[lane, : len(text)] = text
    length = jnp.asarray([len(text) for text in texts], jnp.int32)
    return compiled(jnp.asarray(tokens, jnp.int32), length, *setting, **options)


def reference(text: list[int], query: int, width: int, rows: int, window: int, strict: bool):
    """Continuations and counts by `Counter`: most frequent first, of equals the one last seen."""
    asked, after = text[len(text) - query :], width if strict else 1
    starts = [start for start in range(query, len(text) - after + 1) if text[start - query : start] == asked and asked][
        -window:
    ]
    found = [tuple(text[start : start + width]) for start in starts]
    last = {row: place for place, row in enumerate(found)}
    count = Counter(found)
    best = sorted(count, key=lambda row: (-count[row], -last[row]))[:rows]
    return [(list(row), count[row]) for row in best]


def listed(found: ContextRows, lane: int) -> list[tuple[list[int], int]]:
    ids, length, count = (np.asarray(field[lane]) for field in found)
    assert (count[length == 0] == 0).all() and (np.diff((length > 0).astype(int)) <= 0).all()
    return [(ids[row, : length[row]].tolist(), int(count[row])) for row in range(len(length)) if length[row]]


SETTINGS = [
    (1, 1, 5, WINDOW, True),
    (1, 3, 4, WINDOW, True),
    (2, 2, 6, WINDOW, False),
    (3, 4, 2, WINDOW, True),
    (1, 4, 6, 6, False),  # more places than are looked at
]


@pytest.mark.parametrize(
    "setting", [*SETTINGS[-2:], *(pytest.param(setting, marks=pytest.mark.slow) for setting in SETTINGS[:-2])]
)
@settings(max_examples=50)
@given(st.lists(TEXT, min_size=3, max_size=3))
def test_rows_equal_a_plain_count(setting, texts: list[list[int]]) -> None:
    query, width, rows, window, strict = setting
    found = search(texts, query, width, rows, window=window, strict=strict)
    for lane, text in enumerate(texts):
        assert listed(found, lane) == reference(text, *setting)


@given(TEXT, st.permutations(range(5)))
def test_garbage_beyond_the_end_and_the_names_of_tokens_do_not_matter(text: list[int], names: list[int]) -> None:
    for strict in (True, False):
        plain = search([text], 1, 3, 4, strict=strict)
        for garbage in (0, text[-1], 4):
            jax.tree.map(np.testing.assert_array_equal, search([text], 1, 3, 4, garbage=garbage, strict=strict), plain)
        renamed = search([[names[token] for token in text]], 1, 3, 4, garbage=2, strict=strict)
        expected = [([names[token] for token in row], count) for row, count in listed(plain, 0)]
        assert listed(renamed, 0) == expected


def test_counts_come_first_then_recency() -> None:
    text = [0, 1, 0, 2, 0, 1, 0, 3, 0]
    assert listed(search([text], 1, 1, 4), 0) == [([1], 2), ([3], 1), ([2], 1)]


def test_a_whole_row_must_fit_unless_relaxed() -> None:
    text = [1, 2, 3, 1, 2]
    assert listed(search([text], 1, 4, 2), 0) == []
    assert listed(search([text], 1, 4, 2, strict=False), 0) == [([3, 1, 2], 1)]


def test_rows_are_nested_in_their_number() -> None:
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 3, (3, 40)).tolist()
    most = search(texts, 1, 2, 6)
    for rows in (1, 4):
        fewer = search(texts, 1, 2, rows)
        jax.tree.map(lambda a, b, k=rows: np.testing.assert_array_equal(a, b[:, :k]), fewer, most)


def test_a_text_of_any_length_shares_a_program() -> None:
    search([[1]], 1, 2, 3)
    before = compiled._cache_size()
    for length in range(2, LENGTH, 9):
        search([[1, 2] * (length // 2)], 1, 2, 3)
    assert compiled._cache_size() == before
