"""The stop automaton against a search in the bytes said so far."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.decode.stop import advance, build_stop_table, trim_text

PIECES = st.binary(max_size=3).map(lambda raw: bytes(b"ab\xc3\xa9"[byte % 4] for byte in raw))
STOPS = st.text(alphabet="abé", min_size=1, max_size=4)


@given(
    st.lists(PIECES, min_size=2, max_size=8),
    st.lists(STOPS, min_size=1, max_size=3),
    st.lists(st.integers(0, 7), min_size=1, max_size=14),
)
def test_states_match_when_the_bytes_do(pieces: list[bytes], stops: list[str], ids: list[int]) -> None:
    table = build_stop_table(stops, pieces)
    state, said = 0, b""
    for token in (index % len(pieces) for index in ids):
        said += pieces[token]
        state = table.transition[state, token]
        assert (state == table.matched) == any(stop.encode() in said for stop in stops)


@given(
    st.lists(PIECES, min_size=2, max_size=8),
    st.lists(STOPS, min_size=1, max_size=3),
    st.lists(st.integers(0, 7), min_size=1, max_size=14),
)
def test_the_first_bytes_of_a_text_may_be_others(pieces: list[bytes], stops: list[str], ids: list[int]) -> None:
    first = [piece.removeprefix(b"a") for piece in pieces]
    table = build_stop_table(stops, pieces, first)
    state, said, begun = 0, b"", False
    for token in (index % len(pieces) for index in ids):
        said += pieces[token] if begun else first[token]
        begun |= len(pieces[token]) > 0
        state = table.transition[state, token]
        assert (state == table.matched) == any(stop.encode() in said for stop in stops)
        assert (state == 0) == (not begun)


def test_advance_walks_the_table_in_every_lane() -> None:
    pieces = [b"a", b"b", b"ab", b"xbay", b""]
    table = build_stop_table(["ba"], pieces)
    ids = np.array([[0, 1, 4, 0, 1], [3, 0, 0, 0, 0], [1, 1, 2, 1, 1]], np.int32)
    got = jax.jit(advance)(jax.device_put(table), np.zeros(3, np.int32), ids)
    expected = np.zeros_like(ids)
    for lane in range(3):
        state = 0
        for step in range(5):
            state = table.transition[state, ids[lane, step]]
            expected[lane, step] = state
    np.testing.assert_array_equal(got, expected)
    matched = (np.asarray(got) == table.matched).tolist()
    assert matched == [[False] * 3 + [True] * 2, [True] * 5, [False, False, True, True, True]]


def test_tables_grow_by_doubling() -> None:
    pieces = [bytes([65 + i]) for i in range(26)]
    sizes = [len(build_stop_table(["A" * n], pieces).transition) for n in (1, 6, 7, 14, 15, 40)]
    assert sizes == [8, 8, 16, 16, 32, 64]


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        build_stop_table(["a", ""], [b"a"])


@pytest.mark.parametrize(
    ("text", "stops", "kept"),
    [("abcabc", ["c"], "ab"), ("abc", ["x"], "abc"), ("abc", ["bc", "c", "ab"], ""), ("abc", [], "abc")],
)
def test_text_is_cut_before_the_earliest(text: str, stops: list[str], kept: str) -> None:
    assert trim_text(text, stops) == kept
