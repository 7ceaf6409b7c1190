"""Copying from the context against a plain search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec import drafters
from jaxspec.decode.types import Context

LENGTH, QUERY, WIDTH = 24, 3, 5


def context_of(rows: list[list[int]]) -> Context:
    tokens = np.full((len(rows), LENGTH), 1)  # garbage beyond the end that would match
    for lane, row in enumerate(rows):
        tokens[lane, : len(row)] = row
    length = jnp.asarray([len(row) for row in rows], jnp.int32)
    zeros = jnp.zeros_like(length)
    return Context(jnp.asarray(tokens, jnp.int32), length, zeros, zeros.astype(jnp.uint32), length > 0)


def search(text: list[int]) -> list[int] | None:
    """What followed the latest of the longest repeats of the last tokens, extended periodically."""
    best = None
    for size in range(1, QUERY + 1):
        for start in range(size, len(text)):
            if text[start - size : start] == text[len(text) - size :]:
                if best is None or (size, start) >= best:
                    best = (size, start)
    if best is None:
        return None
    text, start = list(text), best[1]
    period = len(text) - start
    return [text[start + step % period] for step in range(WIDTH)]


propose = jax.jit(lambda context: drafters.context_ngram(width=WIDTH, query=QUERY).propose((), (), context)[0])


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=LENGTH), min_size=3, max_size=3))
def test_drafts_equal_a_plain_search(rows: list[list[int]]) -> None:
    draft = propose(context_of(rows))
    for lane, row in enumerate(rows):
        expected = search(row)
        assert bool(draft.valid[lane].any()) == (expected is not None)
        if expected is not None:
            assert draft.valid[lane].all()
            assert draft.ids[lane].tolist() == expected


def test_a_draft_is_a_chain_below_the_root() -> None:
    draft, _ = drafters.context_ngram(width=3).propose((), (), context_of([[1, 2, 3, 1, 2]]))
    assert draft.parent[0].tolist() == [0, 1, 2] and draft.depth[0].tolist() == [1, 2, 3]
    assert draft.ids[0].tolist() == [3, 1, 2]


@pytest.mark.parametrize("setting", [{"width": 0}, {"query": 0}])
def test_sizes_below_one_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=0 is below 1"):
        drafters.context_ngram(**setting)


def test_equal_settings_are_equal_drafters() -> None:
    """Drafters are static arguments: equal ones must share a compiled program."""
    assert drafters.context_ngram(width=4) == drafters.context_ngram(width=4)
    assert hash(drafters.context_ngram(width=4)) == hash(drafters.context_ngram(width=4))
    assert drafters.context_ngram(width=4) != drafters.context_ngram(width=5)
