"""Models whose tokens a call are known beforehand: drafts that are always right, and drafts that never are."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.drafters import context_ngram, model_bigram, ngrammys, suffix
from jaxspec.models.language_model import LanguageModel


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))


def saying(successors: Sequence[int], vocabulary: int, order: int) -> LanguageModel:
    """A toy model that says `successors[code]` after the tokens of that code."""
    table = jnp.asarray(np.eye(vocabulary, dtype=np.float32)[np.asarray(successors)])
    return dataclasses.replace(toy_model(0, vocabulary, order), params={"table": table})


@pytest.mark.parametrize("drafter", [model_bigram(k=1, w=6), ngrammys(k=1, w=6)])
def test_a_bigram_is_always_right_of_a_model_that_looks_at_one_token(drafter) -> None:
    lm, calls = toy_model(0, vocabulary=50, order=1), 12
    out = jaxspec.generate(lm, [[3]], drafter=drafter, max_new_tokens=7 * calls)
    assert out.ids == [greedy_continuation(lm, [3], 7 * calls)]
    assert out.statistics.histogram == (0, 0, 0, 0, 0, 0, calls) and out.statistics.tokens_per_call == 7.0


@pytest.mark.parametrize("drafter", [context_ngram(width=6, query=1), ngrammys(k=1, w=6)])
def test_a_copy_is_always_right_of_a_model_that_repeats_its_prompt(drafter) -> None:
    period = np.random.default_rng(0).permutation(20)[:12]
    successors = np.zeros(20, int)
    successors[period] = np.roll(period, -1)
    lm, calls, prompt = saying(successors, 20, order=1), 9, [*period, *period[:8]]
    out = jaxspec.generate(lm, [prompt], drafter=drafter, max_new_tokens=7 * calls)
    assert out.ids == [np.resize(np.roll(period, -8), 7 * calls).tolist()]
    assert out.statistics.histogram == (0, 0, 0, 0, 0, 0, calls) and out.statistics.tokens_per_call == 7.0
    assert out.statistics.by_source["context_ngram"] == (6 * calls, 6 * calls)


@pytest.mark.parametrize(("drafter", "most"), [(context_ngram(width=6, query=1), 1.0), (ngrammys(k=1, w=6), 1.2)])
def test_a_copy_is_never_right_of_a_text_that_holds_every_pair_once(drafter, most: float) -> None:
    vocabulary = 7
    text = [t for i in range(vocabulary) for t in (i, *(u for j in range(i + 1, vocabulary) for u in (i, j)))]
    successors = np.zeros(vocabulary**2, int)
    for before, last, after in zip(text, np.roll(text, -1), np.roll(text, -2), strict=True):
        successors[last + vocabulary * before] = after
    lm, new = saying(successors, vocabulary, order=2), vocabulary**2 - 2
    out = jaxspec.generate(lm, [text[:2]], drafter=drafter, max_new_tokens=new)
    assert out.ids == [text[2:]] and out.statistics.drafted > new
    assert 1.0 <= out.statistics.tokens_per_call <= most


@pytest.mark.parametrize("drafter", [context_ngram(width=5), ngrammys(k=4, w=4), suffix(width=6, rows=2)])
def test_tokens_a_call_are_one_and_what_was_accepted_at_every_depth(drafter) -> None:
    prompts = [np.random.default_rng(seed).integers(0, 7, 20).tolist() for seed in range(4)]
    cut = jaxspec.generate(toy_model(0), prompts, drafter=drafter, max_new_tokens=60)
    # Up to where calls end by themselves, with what the target adds.
    whole = [len(sources) - sources[::-1].index("target") for sources in cut.sources]
    out = jaxspec.generate(toy_model(0), prompts, drafter=drafter, max_new_tokens=whole)
    for each in (out.statistics, *out.statistics.per_prompt):
        shares = each.accepted_at_least
        assert len(shares) == drafter.depth and list(shares) == sorted(shares, reverse=True) and shares[0] > 0
        assert each.tokens_per_call == pytest.approx(1 + sum(shares))
