"""Models of one family, one of them padded to more ids: each alone says what it says, and reads what others said."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import CONFIG
from toy_model import ToyTokenizer, greedy_continuation, toy_model
from toy_steps import CAP, CUT, SCORER

import jaxspec
from jaxspec import drafters, steps
from jaxspec.engine.request import Request
from jaxspec.engine.step_job import build_step_job, step_settings
from jaxspec.models.cache import init_cache
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import chain_block
from jaxspec.models.transformer import transformer_fn
from jaxspec.steps.wider_vocabulary import with_vocabulary
from jaxspec.weights.parameters import parameter_shapes

TOKENS, PADDED = 7, 9
SMALL = toy_model(1)
PROMPTS = [np.random.default_rng(seed).integers(0, TOKENS, 3 + seed % 9).tolist() for seed in range(6)]
SETTINGS = dict(max_new_tokens=40, cache=128, lanes=4)


def padded_model(unlikely: float) -> LanguageModel:
    """A model of nine ids, of which two stand for nothing; it says these the less, the more `unlikely` they are."""
    lm = toy_model(2, vocabulary=PADDED)
    table = lm.params["table"].at[:, TOKENS:].add(-unlikely)
    return dataclasses.replace(lm, params={"table": table}, tokenizer=ToyTokenizer(TOKENS))


NEVER, SELDOM = padded_model(50.0), padded_model(5.0)


def solve(draft, target, policy, **settings):
    return steps.solve(draft, target, policy, PROMPTS, segmentation=CUT, **SETTINGS, **settings)


@pytest.mark.parametrize("pair", [(SMALL, SELDOM), (SELDOM, SMALL)], ids=["target", "draft"])
@pytest.mark.parametrize("policy", [steps.draft_only(), steps.target_only()], ids=["draft only", "target only"])
def test_a_model_alone_says_what_it_does_in_generate(pair, policy) -> None:
    alone = pair[policy.name == "target_only"]
    drawn = dict(temperature=4.0, top_p=0.95, seed=3)
    plain = jaxspec.generate(alone, PROMPTS, **SETTINGS, **drawn)
    assert solve(*pair, policy, **drawn).ids == plain.ids
    assert (max(max(ids) for ids in plain.ids) >= TOKENS) == (alone is SELDOM)


@pytest.mark.parametrize("pair", [(SMALL, NEVER), (NEVER, SMALL)], ids=["target", "draft"])
def test_every_step_is_what_its_author_says_behind_the_text(pair) -> None:
    reads = drafters.draft_model(SMALL, 2)
    found = solve(*pair, steps.rsd(0.5, SCORER), target_drafter=reads)
    authors = dict(zip(("draft", "target"), pair, strict=True))
    for prompt, solved in zip(PROMPTS, found.problems, strict=True):
        text = list(prompt)
        for step in solved.steps:
            assert step.ids == greedy_continuation(authors[step.author], text, len(step.ids))
            text += step.ids
    assert {step.author for solved in found.problems for step in solved.steps} == {"draft", "target"}


def test_ids_a_model_lacks_are_never_said_and_read_as_its_last() -> None:
    cache = init_cache(SMALL.config, 1, 128, jnp.float32)
    ids = jnp.array([[2, 8, 7, 6]], jnp.int32)
    output = with_vocabulary(SMALL.model, TOKENS, PADDED)(SMALL.params, chain_block(ids), cache)
    plain = SMALL.model(SMALL.params, chain_block(jnp.minimum(ids, TOKENS - 1)), cache)
    np.testing.assert_array_equal(output.logits[..., :TOKENS], plain.logits)
    assert output.logits.shape[-1] == PADDED and (output.logits[..., TOKENS:] == -jnp.inf).all()
    scores = with_vocabulary(SMALL.model, TOKENS, PADDED, says=False)(SMALL.params, chain_block(ids), cache)
    np.testing.assert_array_equal(scores.logits, plain.logits)
    assert with_vocabulary(SMALL.model, TOKENS, TOKENS) is SMALL.model


def job_of(target: LanguageModel, scorer: LanguageModel):
    settings = step_settings(steps.rsd(0.5), segmentation=steps.Segmentation.chunks(CAP))
    return build_step_job(SMALL, target, steps.rsd(0.5), [Request((1,), 20)], settings, scorer)


def test_a_scorer_may_be_padded_otherwise_than_the_pair() -> None:
    for vocabulary in (TOKENS, PADDED, 12):
        config = dataclasses.replace(CONFIG, tied=False, outputs=1, vocabulary=vocabulary)
        shapes = parameter_shapes(config, jnp.float32)
        fn = transformer_fn(config, jnp.float32)
        scorer = LanguageModel(config, fn, shapes, ToyTokenizer(TOKENS), jnp.float32, jnp.float32, "scores")
        program = job_of(NEVER, scorer).program
        assert program.annotation == 0 and program.scorer_fn == with_vocabulary(fn, vocabulary, PADDED, says=False)


def test_ids_that_only_one_model_has_must_stand_for_nothing() -> None:
    wider = toy_model(2, vocabulary=PADDED)
    for pair, role in (((SMALL, wider), "9 ids and the draft 7"), ((wider, SMALL), "7 ids and the draft 9")):
        with pytest.raises(ValueError, match=f"the target has {role}, and 2 of those that only one has are tokens, "):
            solve(*pair, steps.draft_only())
    with pytest.raises(ValueError, match="without both tokenizers nobody can tell"):
        solve(SMALL, dataclasses.replace(NEVER, tokenizer=None), steps.draft_only())
