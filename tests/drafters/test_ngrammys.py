"""N-Grammys against its published pseudocode in plain Python, and rows against trees."""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_transformer import small_transformer
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.model_tables import extended_bigram
from jaxspec.drafters.ngrammys import ngrammys

VOCABULARY, LENGTH, NEW = 5, 40, 24
BIGRAM = np.random.default_rng(0).permuted(np.tile(np.arange(VOCABULARY), (VOCABULARY, 1)), axis=1)
TEXT = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=LENGTH)


def context_of(text: list[int]) -> Context:
    tokens = jnp.asarray(np.pad(text, (0, LENGTH - len(text)), constant_values=3), jnp.int32)[None]
    length = jnp.asarray([len(text)], jnp.int32)
    return Context(tokens, length, length, jnp.zeros((1,), jnp.uint32), jnp.ones((1,), bool))


@functools.partial(jax.jit, static_argnames=("drafter",))
def propose(drafter, table, context: Context) -> Draft:
    return drafter.propose(table, (), context)[0]


def published(text: list[int], k: int, w: int, q: int) -> list[tuple[list[int], int]]:
    """Rows and sources: context rows by count, of equals the later, then bigram rows by rank."""
    query = text[len(text) - q :] if len(text) >= q else None
    rows = [tuple(text[i : i + w]) for i in range(q, len(text) - w + 1) if text[i - q : i] == query]
    count, last = Counter(rows), {row: place for place, row in enumerate(rows)}
    copied = sorted(count, key=lambda row: (-count[row], -last[row]))[:k]
    listed = [(list(row), 0) for row in copied]
    for rank in range(k - len(listed)):
        row = [int(BIGRAM[text[-1], rank])]
        while len(row) < w:
            row.append(int(BIGRAM[row[-1], 0]))
        listed.append((row, 1))
    return listed


@pytest.mark.parametrize(("k", "w", "q"), [(4, 3, 1), (5, 2, 2), pytest.param(1, 1, 1, marks=pytest.mark.slow)])
@given(text=TEXT)
def test_rows_are_the_published_ones(k: int, w: int, q: int, text: list[int]) -> None:
    table = extended_bigram(jnp.asarray(BIGRAM[:, :k], jnp.int32), w)
    draft = propose(ngrammys(k, w, q, mode="rows"), table, context_of(text))
    ids, source = (np.reshape(field, (k, w)) for field in (draft.ids, draft.source))
    assert np.all(draft.valid)
    assert [(row.tolist(), int(said_by[0])) for row, said_by in zip(ids, source, strict=True)] == published(
        text, k, w, q
    )
    np.testing.assert_array_equal(np.reshape(draft.depth, (k, w)), np.tile(np.arange(1, w + 1), (k, 1)))
    node = np.arange(k * w).reshape(k, w)
    np.testing.assert_array_equal(np.reshape(draft.parent, (k, w)), np.where(np.arange(w) == 0, 0, node))


def paths(draft: Draft) -> set[tuple[int, ...]]:
    ids, parent, valid = (np.asarray(field[0]) for field in (draft.ids, draft.parent, draft.valid))
    path: list[tuple[int, ...] | None] = [()]
    for node in range(len(ids)):
        above = path[parent[node]]
        path.append((*above, int(ids[node])) if valid[node] and above is not None else None)
    found = [p for p in path[1:] if p is not None]
    return set(found)


@given(text=TEXT)
def test_a_tree_holds_the_same_paths_once(text: list[int]) -> None:
    table = extended_bigram(jnp.asarray(BIGRAM[:, :4], jnp.int32), 3)
    rows, tree = (propose(ngrammys(4, 3, mode=mode), table, context_of(text)) for mode in ("rows", "tree"))
    assert paths(tree) == paths(rows)
    assert int(np.sum(tree.valid)) == len(paths(tree)) <= int(np.sum(rows.valid))


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False])
def test_rows_and_trees_take_the_same_calls(strict: bool) -> None:
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 7, 30).tolist() for _ in range(6)]
    runs = [
        jaxspec.generate(toy_model(0), prompts, drafter=ngrammys(4, 5, strict=strict, mode=mode), max_new_tokens=NEW)
        for mode in ("rows", "tree")
    ]
    assert runs[0].ids == runs[1].ids == [greedy_continuation(toy_model(0), prompt, NEW) for prompt in prompts]
    assert runs[0].statistics.histogram == runs[1].statistics.histogram
    assert runs[1].statistics.drafted < runs[0].statistics.drafted


def test_more_rows_never_take_more_calls() -> None:
    """With w = 1 the rows of k are among those of more, so a call that is behind never overtakes."""
    prompts = [np.random.default_rng(seed).integers(0, 7, 20).tolist() for seed in range(4)]
    calls = [
        jaxspec.generate(toy_model(0), prompts, drafter=ngrammys(k, 1), max_new_tokens=NEW).statistics.target_calls
        for k in (1, 3, 7)
    ]
    assert len(prompts) * NEW > calls[0] > calls[1] >= calls[2]


@pytest.mark.slow
def test_a_real_transformer_drafts_from_its_own_weights() -> None:
    lm = small_transformer()
    prompts = [[1, 2, 3], [4, 5, 6, 7, 4, 5]]
    plain = jaxspec.generate(lm, prompts, max_new_tokens=NEW)
    drafted = jaxspec.generate(lm, prompts, drafter=ngrammys(5, 3), max_new_tokens=NEW)
    assert drafted.ids == plain.ids
    assert set(drafted.statistics.by_source) == {"context_ngram", "model_bigram"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"k": 0}, "k=0 is below 1"),
        ({"w": 0}, "w=0 is below 1"),
        ({"q": 0}, "q=0 is below 1"),
        ({"mode": "forest"}, "mode='forest' is not one of tree, rows"),
        ({"prefix": "eos"}, "prefix='eos' is not one of auto, none, bos, newline"),
        ({"k": 9, "window": 8}, "window=8 is below k=9"),
    ],
)
def test_bad_settings(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ngrammys(**settings)


def test_more_rows_than_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="k=8 is not between 1 and the vocabulary of 7"):
        jaxspec.generate(toy_model(0), [[1]], drafter=ngrammys(8, 1), max_new_tokens=1)
