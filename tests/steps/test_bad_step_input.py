"""What a step-level job cannot honour is refused by name before anything compiles."""

import dataclasses
import functools
import math

import jax.numpy as jnp
import pytest
from small_transformer import CONFIG, small_transformer
from toy_model import toy_model

from jaxspec import conformal, steps
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.transformer import transformer_fn
from jaxspec.steps.loop import run_slice
from jaxspec.weights.parameters import parameter_shapes

LM = small_transformer()
CHUNKS = steps.Segmentation.chunks(4)
A1 = steps.a1(0.4, samples=2, turns=3, chunk=4)


@functools.cache
def scoring(outputs: int, vocabulary: int = CONFIG.vocabulary) -> LanguageModel:
    """Shapes in place of weights: nothing may get as far as needing them."""
    config = dataclasses.replace(CONFIG, tied=False, outputs=outputs, vocabulary=vocabulary)
    shapes = parameter_shapes(config, jnp.float32)
    return LanguageModel(config, transformer_fn(config, jnp.float32), shapes, None, jnp.float32, jnp.float32, "scores")


CASES = {
    "scoring target": (dict(target=scoring(1)), "scores is a scoring model.* cannot be the target"),
    "scoring draft": (dict(draft=scoring(2)), "scores is a scoring model.* cannot be the draft"),
    "language model for a scorer": (
        dict(policy=steps.rsd(0.5), scorer=LM),
        "scorer=small is a language model, and policy 'rsd' reads a scoring model",
    ),
    "router for a reward model": (dict(policy=steps.rsd(0.5), scorer=scoring(2)), "has 2; is it a router"),
    "reward model for a router": (dict(policy=steps.arbitrage(0.5), scorer=scoring(1)), "'binary'.*from 1 outputs"),
    "odd classes": (
        dict(policy=steps.arbitrage(0.5, steps.AdvantageRouter("classes")), scorer=scoring(3)),
        "'classes' cannot be read from 3 outputs",
    ),
    "scorer's vocabulary": (
        dict(policy=steps.rsd(0.5), scorer=scoring(1, 11)),
        "the target has 17 ids and the scorer 11",
    ),
    "draft's vocabulary": (dict(draft=toy_model(0)), "the target has 17 ids and the draft 7"),
    "target as a judge of its own steps": (
        dict(policy=steps.oracle(scorer=steps.Likelihood())),
        "policy 'oracle' compares steps of both models by Likelihood.* pass a scorer",
    ),
    "state without a calibrator": (dict(calibrator=conformal.fixed(0.5).init()), "'draft_only' has no calibrator"),
    "state of another shape": (
        dict(policy=A1, calibrator=conformal.adaptive_conformal(0.4, groups=5).init()),
        "made with other groups, questions or sizes",
    ),
    "state of another kind": (dict(policy=A1, calibrator=(1, 2)), "AdaptiveConformal needs AdaptiveState"),
    "target lanes": (dict(lanes=2, target_lanes=3), "target_lanes=3 is not between 1 and lanes=2"),
    "chunk": (dict(segmentation=steps.Segmentation.chunks(64), cache=40), "64 tokens do not fit a cache of 40"),
    "target's chunk": (
        dict(policy=steps.a1(0.4, 2, 3, 4, target_chunk=64), segmentation=None, cache=40),
        "chunks of 64 tokens do not fit a cache of 40",
    ),
    "slice": (dict(slice_ticks=0), "slice_ticks=0 is below 1"),
    "part of a tick": (dict(slice_ticks=1.5), "slice_ticks=1.5 is not an integer"),
    "part of a round": (dict(exchange_ticks=1.5), "exchange_ticks=1.5 is not an integer"),
    "part of a token": (dict(max_new_tokens=12.5), "max_new_tokens=12.5 is not an integer"),
    "no number of tokens": (dict(max_new_tokens=None), "max_new_tokens=None is not an integer"),
    "part of a sample": (dict(samples=2.5), "samples=2.5 is not an integer"),
    "part of a lane": (dict(lanes=2.5), "lanes=2.5 is not an integer"),
    "part of a target lane": (dict(target_lanes=1.5), "target_lanes=1.5 is not an integer"),
    "part of a step": (dict(max_steps=2.5), "max_steps=2.5 is not an integer"),
    "part of a turn": (dict(max_turns="3"), "max_turns='3' is not an integer"),
    "part of a cache": (dict(cache=127.5), "cache=127.5 is not an integer"),
    "temperature in words": (dict(temperature="0.7"), "temperature='0.7' is text; give a number"),
    "no temperature": (dict(temperature=None), "temperature=None is not a number"),
    "part of a seed": (dict(seed=0.5), "seed=0.5 is not an integer"),
    "wave in words": (dict(wave="all"), "wave='all' is not a share"),
    "one text": (dict(problems="12"), "problems='12' is one text; pass a list"),
    "empty problem": (dict(problems=[[1], []]), "prompt 1 is empty"),
    "id outside": (dict(problems=[[17]]), "holds id 17, outside the vocabulary of 17"),
    "delimiter id": (
        dict(segmentation=steps.Segmentation.custom((), 4, delimiter_ids=[99])),
        "delimiter id 99 lies outside",
    ),
    "delimiter without tokenizer": (dict(segmentation=steps.Segmentation.reasoning(4)), "delimiters need a tokenizer"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_before_compilation(name: str) -> None:
    settings, message = CASES[name]
    whole = dict(draft=LM, target=LM, policy=steps.draft_only(), problems=[[1, 2]], segmentation=CHUNKS)
    before = run_slice._cache_size()
    with pytest.raises(ValueError, match=message):
        steps.solve(**{**whole, **settings})  # type: ignore[arg-type]
    assert run_slice._cache_size() == before


@pytest.mark.parametrize("rate", [-0.1, 1.5, math.nan])
def test_a_reject_rate_is_a_share(rate: float) -> None:
    for make in (steps.a1, steps.synchronous, conformal.adaptive_conformal):
        with pytest.raises(ValueError, match=f"reject_rate={rate}"):
            make(rate)


def test_thresholds_are_numbers() -> None:
    for make in (steps.rsd, steps.arbitrage, steps.oracle):
        with pytest.raises(ValueError, match="threshold=nan is not a number"):
            make(math.nan)


def test_an_unknown_kind_of_router_is_refused() -> None:
    with pytest.raises(ValueError, match="expects='gain' is not one of binary, classes, ordinal, advantage"):
        steps.AdvantageRouter("gain")


def test_a_delimiter_that_no_token_spells_is_refused() -> None:
    with pytest.raises(ValueError, match="no tokens of this vocabulary spell the delimiter 'zz'"):
        steps.solve(toy_model(0), toy_model(1), steps.draft_only(), ["ab"],
                    segmentation=steps.Segmentation.custom(["zz"], 4))  # fmt: skip
