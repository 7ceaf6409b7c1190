"""Longest repeats against a plain search, and that copying pays where texts repeat."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.loop import run_slice
from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.suffix import MATCH_CLASSES, suffix

LENGTH, WIDTH, NEW = 96, 5, 24
EVERY_OTHER = [pytest.param(0.0, 1, marks=pytest.mark.slow), pytest.param(1.5, 3, marks=pytest.mark.slow)]


def context_of(rows: list[list[int]], size: int = LENGTH, garbage: int = 1) -> Context:
    tokens = np.full((len(rows), size), garbage)  # beyond the end, where it must not be read
    for lane, row in enumerate(rows):
        tokens[lane, : len(row)] = row
    length = jnp.asarray([len(row) for row in rows], jnp.int32)
    return Context(
        jnp.asarray(tokens, jnp.int32), length, jnp.zeros_like(length), length.astype(jnp.uint32), length > 0
    )


@functools.partial(jax.jit, static_argnames=("drafter",))
def propose(drafter, context: Context) -> Draft:
    return drafter.propose((), (), context)[0]


def periodic(text: list[int], start: int, width: int) -> list[int]:
    return [text[start + step % (len(text) - start)] for step in range(width)]


def search(text: list[int], drafter) -> list[tuple[int, list[int]]]:
    """Match length and tokens of every row a drafter should propose, by brute force."""

    def matched(start: int) -> int:
        longest = min(start, drafter.longest)
        return next((m for m in range(longest, 0, -1) if text[start - m : start] == text[len(text) - m :]), 0)

    places = [start for start in range(len(text) - 1, 0, -1) if matched(start)]
    with_two = [start for start in places if start >= 2 and len(text) >= 2 and text[start - 2] == text[-2]]
    looked_at = [*with_two, *(start for start in places if start not in with_two)][: drafter.window]
    rows, seen = [], set()
    for start in sorted(looked_at, key=lambda start: (-matched(start), -start)):
        begin = tuple(periodic(text, start, drafter.distinct))
        if begin not in seen:
            seen.add(begin)
            count = int(np.clip(np.floor(drafter.factor * matched(start) + drafter.offset), 1, drafter.width))
            rows.append((matched(start), periodic(text, start, count)))
    return [row for row in rows[: drafter.rows] if row[0] >= drafter.shortest]


def rows_of(draft: Draft, lane: int, drafter) -> list[tuple[int, list[int]]]:
    """Class of evidence and tokens of the proposed rows."""
    shape = (drafter.rows, drafter.width)
    ids, valid = np.reshape(draft.ids[lane], shape), np.reshape(draft.valid[lane], shape)
    evidence = np.reshape(draft.evidence[lane], shape)
    return [(int(evidence[k, 0]), ids[k, valid[k]].tolist()) for k in range(drafter.rows) if valid[k].any()]


DRAFTERS = [
    suffix(width=WIDTH, rows=3, longest=4, distinct=1, factor=0.5, offset=0.0),
    suffix(width=WIDTH, rows=4, longest=12, distinct=2, window=5),
    suffix(width=WIDTH, rows=2, longest=6, shortest=2, factor=1.0, offset=-1.0),
]


@pytest.mark.parametrize("drafter", DRAFTERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_equal_a_plain_search(drafter, data) -> None:
    text = st.lists(st.integers(0, 3), min_size=1, max_size=40)
    rows = data.draw(st.lists(text, min_size=4, max_size=4))
    draft = propose(drafter, context_of(rows))
    for lane, row in enumerate(rows):
        expected = search(row, drafter)
        found = rows_of(draft, lane, drafter)
        assert [ids for _, ids in found] == [ids for _, ids in expected]
        for index, ((evidence, _), (matched, _)) in enumerate(zip(found, expected, strict=True)):
            bucket = sum(matched >= least for least in MATCH_CLASSES) - 1
            assert evidence == bucket + (len(MATCH_CLASSES) if index else 0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.permutations(range(6)))
def test_garbage_and_the_names_of_tokens_do_not_matter(row: list[int], names: list[int]) -> None:
    drafter = DRAFTERS[1]
    plain = propose(drafter, context_of([row]))
    for garbage in (0, 3):
        jax.tree.map(np.testing.assert_array_equal, propose(drafter, context_of([row], garbage=garbage)), plain)
    renamed = propose(drafter, context_of([[names[token] for token in row]], garbage=5))
    np.testing.assert_array_equal(renamed.valid, plain.valid)
    where = np.asarray(plain.valid)
    np.testing.assert_array_equal(np.asarray(renamed.ids)[where], np.asarray(names)[np.asarray(plain.ids)[where]])


def test_lanes_do_not_see_each_other() -> None:
    rows = np.random.default_rng(0).integers(0, 3, (4, 30)).tolist()
    together = propose(DRAFTERS[1], context_of(rows))
    for lane, row in enumerate(rows):
        alone = propose(DRAFTERS[1], context_of([row]))
        jax.tree.map(lambda a, b, lane=lane: np.testing.assert_array_equal(a[lane], b[0]), together, alone)


def test_rows_are_chains_below_the_root() -> None:
    draft = propose(suffix(width=2, rows=2, distinct=1), context_of([[1, 2, 1, 3, 1]]))
    assert draft.ids[0].tolist() == [3, 1, 2, 1]
    assert draft.parent[0].tolist() == [0, 1, 0, 3] and draft.depth[0].tolist() == [1, 2, 1, 2]
    assert suffix().is_chain and not suffix(rows=2).is_chain


def tokens_per_call(drafter, text: list[int], known: int) -> float:
    """Of a drafter that completes `text` from its first `known` tokens."""
    length, calls = known, 0
    while length < len(text):
        draft = propose(drafter, context_of([text[:length]], size=LENGTH))
        accepted = 0
        for _, ids in rows_of(draft, 0, drafter):
            agreed = [a == b for a, b in zip(ids, text[length:], strict=False)]
            accepted = max(accepted, agreed.index(False) if False in agreed else len(agreed))
        length, calls = length + accepted + 1, calls + 1
    return (length - known) / calls


def test_a_repeating_prompt_is_copied_whole() -> None:
    drafter = suffix(width=6, factor=6.0)
    assert tokens_per_call(drafter, ([1, 2, 3, 4, 5, 6, 7, 8, 9] * 10)[: 10 + 7 * 11], 10) == 7


def test_one_row_of_the_longest_match_resolves_an_ambiguous_period() -> None:
    """One token occurs with four continuations, which only longer matches tell apart."""
    text = [1, 2, 3, 1, 4, 5, 1, 6, 7, 1, 8, 9] * 8
    assert tokens_per_call(suffix(width=4, longest=1), text, 24) < 4
    assert tokens_per_call(suffix(width=4), text, 24) > 4.8


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "lanes"), [(0.0, 3), (1.5, 1), *EVERY_OTHER])
def test_ids_equal_plain_ids(lanes: int, temperature: float) -> None:
    lm, rng = toy_model(0), np.random.default_rng(lanes)
    prompts = [rng.integers(0, 7, rng.integers(1, 70)).tolist() for _ in range(5)]
    options = dict(max_new_tokens=NEW, temperature=temperature, seed=list(range(5)), lanes=lanes, cache=128)
    drafter = suffix(width=4, rows=3)
    drafted = jaxspec.generate(lm, prompts, drafter=drafter, **options)
    if temperature:
        assert drafted.ids == jaxspec.generate(lm, prompts, **options).ids
    else:
        assert drafted.ids == [greedy_continuation(lm, prompt, NEW) for prompt in prompts]
        assert drafted.statistics.tokens_per_call > 1.5
    assert drafted.statistics.accepted > 0
    compiled = run_slice._cache_size()
    again = jaxspec.generate(lm, prompts, drafter=drafter, **options)
    assert again.statistics == drafted.statistics and run_slice._cache_size() == compiled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width=0 is below 1"),
        ({"rows": 0}, "rows=0 is below 1"),
        ({"window": -1}, "window=-1 is below 1"),
        ({"distinct": 0}, "distinct=0 is below 1"),
        ({"shortest": 5, "longest": 4}, "shortest=5 is above longest=4"),
        ({"rows": 9, "window": 8}, "rows=9 is above window=8"),
        ({"factor": -1.0}, "factor=-1.0"),
        ({"offset": float("nan")}, "offset=nan"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        suffix(**options)


def test_equal_settings_are_equal_drafters() -> None:
    assert suffix(width=4, factor=1) == suffix(width=4, factor=1.0)
    assert hash(suffix(width=4)) == hash(suffix(width=4)) and suffix(width=4) != suffix(width=5)


def test_a_text_of_any_length_shares_a_program() -> None:
    drafter = suffix(width=3, rows=2)
    propose(drafter, context_of([[1]]))
    compiled = propose._cache_size()
    for length in range(2, LENGTH, 7):
        propose(drafter, context_of([[1, 2] * (length // 2)]))
    assert propose._cache_size() == compiled
