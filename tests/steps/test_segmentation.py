"""Step ends against a search in the decoded bytes, whatever the tokens and however they arrive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaxspec.steps.segmentation import Segmentation, StepEnd, cut_step, is_spellable, start_steps, step_rules

ALPHABET = b"a\n.\xc3\xa9"
SINGLES = [bytes([byte]) for byte in ALPHABET]
PIECES = st.binary(max_size=4).map(lambda raw: bytes(ALPHABET[byte % len(ALPHABET)] for byte in raw))
DELIMITERS = st.text(alphabet="a\n.é", min_size=1, max_size=3)
WIDTH = 4
cut = jax.jit(cut_step)


def occurrence_ends(said: bytes, delimiters: list[bytes]) -> list[int]:
    """Offsets behind the delimiters in `said`: from the left, the first completed, then again from there."""
    ends, start = [], 0
    for end in range(1, len(said) + 1):
        if any(said[start:end].endswith(delimiter) for delimiter in delimiters):
            ends.append(end)
            start = end
    return ends


def reference(tokens: list[bytes], delimiters: list[bytes], cap: int) -> list[tuple[int, StepEnd]]:
    """Tokens and end of every complete step of a text given as tokens."""
    reached = np.cumsum([0, *map(len, tokens)])
    ends = occurrence_ends(b"".join(tokens), delimiters)
    steps, length = [], 0
    for index in range(len(tokens)):
        length += 1
        found = any(reached[index] < end <= reached[index + 1] for end in ends)
        if found or length == cap:
            steps.append((length, StepEnd.DELIMITER if found else StepEnd.CAP))
            length = 0
    return steps


def walk(rules, ids: list[int], widths: list[int]) -> list[tuple[int, StepEnd]]:
    """Complete steps of one lane, its tokens offered `widths` at a time and, after a cut, offered again."""
    state, at, length, steps, turn = start_steps(1), 0, 0, [], 0
    while at < len(ids):
        offered = ids[at : at + widths[turn % len(widths)]]
        block = jnp.array([offered + [0] * (WIDTH - len(offered))], jnp.int32)
        found = cut(rules, state, block, jnp.array([len(offered)], jnp.int32))
        count, end, state = int(found.count[0]), StepEnd(int(found.end[0])), found.state
        assert end != StepEnd.NONE or count == len(offered)
        at, length, turn = at + count, length + count, turn + 1
        if end != StepEnd.NONE:
            steps.append((length, end))
            length = 0
    return steps


@given(
    st.lists(PIECES, max_size=6),
    st.lists(DELIMITERS, min_size=1, max_size=3),
    st.lists(st.integers(0, 10), min_size=1, max_size=20),
    st.integers(1, 9),
    st.lists(st.integers(1, WIDTH), min_size=1, max_size=4),
)
@example([b"a\n\n\n", b"\na\n\na"], ["\n\n"], [5, 1, 6, 1, 0, 1, 1, 1], 9, [1])
def test_steps_end_where_a_search_in_the_text_says(
    pieces: list[bytes], delimiters: list[str], ids: list[int], cap: int, widths: list[int]
) -> None:
    vocabulary = [*SINGLES, *pieces, *[b""] * (6 - len(pieces))]
    ids = [index % len(vocabulary) for index in ids]
    rules = step_rules(Segmentation.custom(delimiters, cap), vocabulary)
    wanted = reference([vocabulary[i] for i in ids], [delimiter.encode() for delimiter in delimiters], cap)
    assert walk(rules, ids, widths) == wanted


@given(st.lists(PIECES, max_size=5), DELIMITERS)
def test_spellable_is_what_some_sequence_spells(pieces: list[bytes], delimiter: str) -> None:
    target = delimiter.encode()
    pieces = [piece for piece in pieces if piece]
    spelt, frontier, longest = set(), {b""}, max([len(piece) for piece in pieces], default=0)
    for _ in range(len(target) + 1):  # every text of so many tokens, kept to the bytes that may still matter
        frontier = {(text + piece)[-(len(target) + longest) :] for text in frontier for piece in pieces}
        spelt |= frontier
    assert is_spellable(target, pieces) == any(target in text for text in spelt)


def test_a_delimiter_nobody_can_write_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\\n\\n'.*delimiter_ids"):
        step_rules(Segmentation.reasoning(), [b"a", b"\nb", b"b\n"[:1]])
    step_rules(Segmentation.reasoning(), [b"a\n", b"\nb"])


def test_lanes_and_ends_in_one_call() -> None:
    vocabulary = [b"a", b"\n", b".\n\nB", b"", b""]  # 3 is EOS, 4 a separator without text
    rules = step_rules(Segmentation.custom(["\n\n"], 3, delimiter_ids=[4]), vocabulary, end_ids=[3])
    ids = jnp.array([[0, 1, 1, 0], [2, 0, 0, 0], [0, 3, 1, 1], [0, 4, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1], [3, 0, 0, 0]])
    state = start_steps(7)._replace(length=jnp.array([0, 0, 0, 0, 1, 0, 0], jnp.int32))
    found = cut(rules, state, ids.astype(jnp.int32), jnp.array([4, 4, 4, 4, 4, 2, 0], jnp.int32))
    ends = [
        StepEnd.DELIMITER,
        StepEnd.DELIMITER,
        StepEnd.EOS,
        StepEnd.DELIMITER,
        StepEnd.CAP,
        StepEnd.NONE,
        StepEnd.NONE,
    ]
    assert found.count.tolist() == [3, 1, 2, 2, 2, 2, 0]
    assert found.end.tolist() == ends
    assert found.state.length.tolist() == [0, 0, 0, 0, 0, 2, 0]
    assert found.state.automaton.tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_ids_beyond_the_vocabulary_change_nothing() -> None:
    rules = step_rules(Segmentation.reasoning(), [b"a", b"\n"])
    found = cut(rules, start_steps(1), jnp.array([[1, 7, 2, 1]], jnp.int32), jnp.array([4], jnp.int32))
    assert (int(found.count[0]), int(found.end[0])) == (4, StepEnd.DELIMITER)


def cut_text(segmentation: Segmentation, tokens: list[str]) -> list[str]:
    """The text of the steps of `tokens`, and what is left."""
    vocabulary = [byte.encode() for byte in dict.fromkeys(tokens)] + [bytes([value]) for value in range(256)]
    rules = step_rules(segmentation, vocabulary)
    left = [vocabulary.index(token.encode()) for token in tokens]
    steps = []
    for length, _ in walk(rules, left, [WIDTH, 1, 2]):
        steps.append(b"".join(vocabulary[i] for i in left[:length]).decode())
        left = left[length:]
    return [*steps, b"".join(vocabulary[i] for i in left).decode()]


def test_sentences_end_before_the_token_that_opens_the_next() -> None:
    text = ["It", " is", " 3", ".", "5", ".", " Is", " it", "?\n", "Yes", "!", '"', " He", " said", ". So", ".\n\n"]
    steps = ["It is 3.5.", " Is it?\n", 'Yes!"', " He said. So", ".\n\n", ""]
    assert cut_text(Segmentation.prose(), text) == steps


def test_white_space_alone_ends_a_sentence_and_makes_none() -> None:
    text = ["Yes", ".", "\n\n", "No", "!", " ", "\n", "So", "?", "\n", " it", "."]
    assert cut_text(Segmentation.prose(), text) == ["Yes.\n\n", "No! ", "\nSo?\n", " it."]


def test_tables_hold_no_two_states_that_wait_for_the_same() -> None:
    table = step_rules(Segmentation.prose(), [bytes([value]) for value in range(256)]).table
    used = table[np.any(table != 0, axis=1)]
    assert len(table) == 8 and len(np.unique(used, axis=0)) == len(used)


def test_a_sentence_end_after_a_cap_makes_no_empty_step() -> None:
    assert cut_text(Segmentation.prose(max_step_tokens=2), ["a", ".", " b", ".", " c"]) == ["a.", " b.", " c"]


@pytest.mark.parametrize(
    ("segmentation", "steps"),
    [
        (Segmentation.reasoning(), ["x = 1\n\n", "y\nz\n\nw", ""]),
        (Segmentation.code("block"), ["x = 1\n\n", "y\nz\n\nw", ""]),
        (Segmentation.code("line"), ["x = 1\n", "\n", "y\n", "z\n\nw", ""]),
        (Segmentation.custom(["=", "z"]), ["x =", " 1\n\ny\nz", "\n\nw"]),
    ],
)
def test_presets(segmentation: Segmentation, steps: list[str]) -> None:
    assert cut_text(segmentation, ["x", " =", " 1", "\n", "\n", "y", "\n", "z", "\n\nw"]) == steps


def test_bad_segmentations_are_refused() -> None:
    with pytest.raises(ValueError, match="no delimiter"):
        Segmentation.custom()
    for make in (Segmentation.custom, Segmentation):
        with pytest.raises(ValueError, match=r"delimiters='\\n\\n' is one text.*pass a list: \['\\n\\n'\]"):
            make("\n\n")
    with pytest.raises(ValueError, match="empty"):
        Segmentation.custom(["\n", ""])
    with pytest.raises(ValueError, match="max_step_tokens=0"):
        Segmentation.custom(["\n"], 0)
    with pytest.raises(ValueError, match="lookahead=1"):
        Segmentation(("\n",), lookahead=1)
    with pytest.raises(ValueError, match="'page'"):
        Segmentation.code("page")
    with pytest.raises(ValueError, match="id 2 lies outside"):
        step_rules(Segmentation.custom(delimiter_ids=[2]), [b"a", b"b"])


def test_one_program_for_all_delimiters_of_a_size() -> None:
    traces = []

    @jax.jit
    def traced(rules, state, ids, count):
        traces.append(None)
        return cut_step(rules, state, ids, count)

    for delimiters, cap in ((["\n\n"], 3), (["aa", "."], 9)):
        rules = step_rules(Segmentation.custom(delimiters, cap), SINGLES)
        traced(rules, start_steps(1), jnp.zeros((1, 3), jnp.int32), jnp.ones(1, jnp.int32))
    assert len(traces) == 1
