"""Draws of a draft model's own come from the law they claim: its logits, processed as the target's would be.

B lanes of one text, each with a seed of its own; D depth, R branches, V vocabulary.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2
from toy_model import toy_model

from jaxspec.decode import sampling
from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding
from jaxspec.decode.sampling import Sampling, SamplingFlags
from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.context_ngram import context_ngram
from jaxspec.drafters.draft_model import draft_model
from jaxspec.drafters.draft_model.reading import DraftModelParams
from jaxspec.drafters.vocabulary import Translation

V, DEPTH, LANES = 5, 3, 4096
TEXT = [1, 2]
FLAGS = SamplingFlags(stochastic=True, filters=True, penalty=True, bans=True)
TABLE = (np.random.default_rng(1).normal(size=(V**2, V)) * 1.5).astype(np.float32)
MODEL = dataclasses.replace(toy_model(0, vocabulary=V), params={"table": jnp.asarray(TABLE)})
SAME_IDS = Translation(np.arange(V, dtype=np.int32), np.ones((V,), bool))
OTHER_IDS = Translation(np.array([3, 0, 4, 1, 2], np.int32), np.array([True, True, True, False, True]))
WAYS = {
    "a row": draft_model(MODEL, DEPTH),
    "branches": draft_model(MODEL, DEPTH, branches=2),
    "drafted for": draft_model(MODEL, DEPTH, drafter=context_ngram(width=2, query=1)),
}
SETTINGS = {
    "temperature": {"temperature": 0.6},
    "top_k": {"temperature": 1.4, "top_k": 3},
    "one left": {"top_k": 1},
    "top_p": {"top_p": 0.8},
    "min_p": {"min_p": 0.2},
    "penalty": {"repetition_penalty": 1.7},
    "bans": {"banned": 0},
    "other ids": {"temperature": 1.2, "translation": OTHER_IDS},
    "all": {"temperature": 1.5, "top_k": 4, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.3, "banned": 3},
    "cold": {"temperature": 0.0, "repetition_penalty": 1.5, "banned": 4},
}


def context_of(row: dict) -> Context:
    """Lanes of seeds 0, 1, and so on, with the settings of `row`."""
    defaults = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0)
    values = {name: jnp.full((LANES,), row.get(name, value)) for name, value in defaults.items()}
    seed = jnp.arange(LANES, dtype=jnp.uint32)
    tokens = jnp.zeros((LANES, 16), jnp.int32).at[:, :2].set(jnp.asarray(TEXT))
    length = jnp.full((LANES,), len(TEXT))
    context = Context(tokens, length, length, seed, length > 0, Sampling(**values, seed=seed))
    return context._replace(banned=jnp.arange(V) == row.get("banned", V))


@functools.partial(jax.jit, static_argnames="drafter")
def propose(drafter, params: DraftModelParams, context: Context) -> Draft:
    return drafter.propose(params, drafter.init(params, context), context)[0]


@jax.jit
def law_of(logits: jax.Array, seen: jax.Array, siblings: jax.Array, context: Context) -> jax.Array:
    """(B, V) what is drawn from where `logits` (B, V) are the model's, and `siblings` (B, V) were drawn before."""
    assert context.sampling is not None
    processed = sampling.process(logits[:, None], context.sampling, FLAGS, seen=seen[:, None], banned=context.banned)
    left = jnp.where(siblings[:, None], -jnp.inf, processed)
    return sampling.probabilities(left, context.sampling)[:, 0]


def law_after(texts: np.ndarray, siblings: np.ndarray, known: Translation, context: Context) -> np.ndarray:
    """(B, V) the law of the draft model's next token after `texts` (B, L), in the target's ids."""
    last, before = known.draft_id[texts[:, -1]], known.draft_id[texts[:, -2]]
    logits = np.where(known.common, TABLE[last + V * before][:, known.draft_id], -np.inf)
    seen = (texts[:, :, None] == np.arange(V)).any(axis=1)
    return np.asarray(law_of(logits, seen, siblings, context), np.float64)


def chi_square(law: np.ndarray, ids: np.ndarray, before: np.ndarray) -> tuple[float, int]:
    """Of `ids` (B,) drawn from `law` (B, V), apart for every token `before` (B,), and its degrees of freedom."""
    statistic, freedom = 0.0, 0
    for token in np.unique(before):
        here = before == token
        expected, got = law[here].sum(axis=0), np.bincount(ids[here], minlength=V)
        assert not got[expected == 0].any()
        often = expected > 5  # counts of the others are too small to have the statistic's law
        if often.sum() > 1:
            statistic += np.sum((got - expected)[often] ** 2 / expected[often])
            freedom += int(often.sum()) - 1
    return statistic, freedom


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("way", WAYS)
def test_draws_come_from_the_law_they_claim(way: str, name: str) -> None:
    row, branches = SETTINGS[name], WAYS[way].branches
    context, known = context_of(row), row.get("translation", SAME_IDS)
    drafter = WAYS[way].bind(Binding(V, FLAGS, Drawing.OWN, prefill_width=8))
    draft = jax.device_get(propose(drafter, DraftModelParams(MODEL.params, known), context))
    claimed = np.exp(draft.log_q).reshape(LANES, DEPTH, branches, V)
    ids, valid = (x.reshape(LANES, DEPTH, branches) for x in (draft.ids, draft.valid))
    texts, before = np.tile(TEXT, (LANES, 1)), np.zeros((LANES,), int)
    statistics, limits = [], []
    for level in range(DEPTH):
        siblings = np.zeros((LANES, V), bool)
        for branch in range(branches):
            token = ids[:, level, branch]
            law = law_after(texts, siblings, known, context)
            left = law.sum(axis=1) > 0  # or every token that is possible was drawn before
            np.testing.assert_array_equal(valid[:, level, branch], left)
            np.testing.assert_allclose(claimed[left, level, branch], law[left], atol=1e-6, rtol=0)
            statistic, freedom = chi_square(law[left], token[left], before[left])
            statistics.append(statistic)
            limits.append(chi2.ppf(0.9999, freedom) if freedom else 0.0)
            siblings[np.arange(LANES), token] = True
            before = token
        before = ids[:, level, 0]
        texts = np.concatenate([texts, before[:, None]], axis=1)
    assert np.all(np.array(statistics) <= limits)
    assert limits[0] > 0 or name in ("one left", "cold")
