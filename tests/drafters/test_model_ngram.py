"""Drafts from the weights alone."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer

import jaxspec
from jaxspec.decode.types import Context
from jaxspec.drafters import model_bigram, model_unigram
from jaxspec.drafters.unigram_ranking import unigram_ranking

NEW = 16


def context_of(roots: list[int]) -> Context:
    tokens = jnp.asarray(roots, jnp.int32)[:, None]
    ones = jnp.ones_like(tokens[:, 0])
    return Context(tokens, ones, ones, ones.astype(jnp.uint32), ones > 0)


def test_a_bigram_row_is_what_the_model_says_after_one_token() -> None:
    lm = small_transformer()
    drafter = model_bigram(k=3, w=2)
    table = drafter.prepare(lm)
    draft, _ = drafter.propose(table, (), context_of([4, 9]))
    for lane, root in enumerate((4, 9)):
        first = jaxspec.generate(lm, [[root]], max_new_tokens=1).ids[0][0]
        rows = np.reshape(draft.ids[lane], (3, 2))
        assert rows[0, 0] == first and len(set(rows[:, 0].tolist())) == 3
        for begin, follow in rows:
            assert follow == jaxspec.generate(lm, [[int(begin)]], max_new_tokens=1).ids[0][0]
    assert np.all(draft.valid)


@pytest.mark.parametrize("variant", ["text", "appendix"])
def test_a_unigram_proposes_the_most_ordinary_tokens(variant: str) -> None:
    lm = small_transformer()
    drafter = model_unigram(k=4, variant=variant)
    draft, _ = drafter.propose(drafter.prepare(lm), (), context_of([1, 2]))
    np.testing.assert_array_equal(draft.ids, np.tile(unigram_ranking(lm, variant)[:4], (2, 1)))
    np.testing.assert_array_equal(draft.parent, 0)


@pytest.mark.slow
@pytest.mark.parametrize("drafter", [model_bigram(k=3, w=3), model_bigram(k=1, w=2), model_unigram(k=5)])
def test_lossless(drafter) -> None:
    lm = small_transformer()
    prompts = [[1, 2, 3], [5]]
    for settings in ({}, {"temperature": 1.0, "seed": [1, 2]}):
        plain = jaxspec.generate(lm, prompts, max_new_tokens=NEW, **settings)
        assert jaxspec.generate(lm, prompts, drafter=drafter, max_new_tokens=NEW, **settings).ids == plain.ids


def test_a_bigram_after_the_beginning_of_text_needs_one() -> None:
    lm = small_transformer()
    with pytest.raises(ValueError, match='prefix="bos" needs a tokenizer with a bos_id'):
        model_bigram(prefix="bos").prepare(lm)

    class Tokenizer:
        bos_id = 2

    begun = model_bigram(k=2, w=1, prefix="bos").prepare(dataclasses.replace(lm, tokenizer=Tokenizer()))
    for root in (4, 9):
        assert int(begun.first[root, 0]) == jaxspec.generate(lm, [[2, root]], max_new_tokens=1).ids[0][0]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: model_bigram(k=0), "k=0 is below 1"),
        (lambda: model_bigram(w=0), "w=0 is below 1"),
        (lambda: model_unigram(k=0), "k=0 is below 1"),
        (lambda: model_unigram(variant="mean"), "variant='mean' is not one of text, appendix"),
        (lambda: model_unigram(k=18).prepare(small_transformer()), "k=18 is above the model's vocabulary of 17"),
    ],
)
def test_bad_settings(build, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build()
