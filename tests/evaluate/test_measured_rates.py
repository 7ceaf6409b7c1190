"""Rates of a mix counted on recorded texts."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

from jaxspec import drafters
from jaxspec.drafters.mix import AGREEMENTS, CLASSES
from jaxspec.evaluate.measured_rates import GUESSED_TRIALS, measured_rates
from jaxspec.evaluate.recording import record
from jaxspec.evaluate.replay import replay, state_after

COPIES = drafters.mix(drafters.context_ngram(width=3), drafters.suffix(width=4), budget=7)
GUESS = np.array([0.2, 0.5, 0.5, 0.5])


def circle():
    """A model that counts round and round."""
    table = np.full((49, 7), -9.0)
    for last in range(7):
        table[last + 7 * np.arange(7), (last + 1) % 7] = 9.0
    return dataclasses.replace(toy_model(0), params={"table": jnp.asarray(table, jnp.float32)})


def test_every_candidate_whose_prefix_came_true_counts() -> None:
    lm = circle()
    recording = record(lm, [list(range(7)) * 3] * 2, 20, top=0)
    found = replay(recording, COPIES)
    assert found.statistics.tokens_per_call == 5.0  # of two texts of 20: four blocks each, right to the last node
    rates = np.array(measured_rates(COPIES, [(lm, recording)]))
    assert rates.shape == (2, AGREEMENTS, CLASSES, 4)
    expected = (8 + GUESSED_TRIALS * GUESS) / (8 + GUESSED_TRIALS)

    def counted(table: np.ndarray) -> np.ndarray:
        return table[np.any(np.abs(table - GUESS) > 1e-3, axis=1)]

    # Both say the first three tokens, which is a class of its own, and one says the fourth.
    np.testing.assert_allclose(counted(rates[0, 1]), [[*expected[:3], 0.5]], atol=1e-4)
    np.testing.assert_allclose(counted(rates[1, 1]), [[*expected[:3], 0.5]], atol=1e-4)
    np.testing.assert_allclose(counted(rates[1, 0]), [[0.2, 0.5, 0.5, expected[3]]], atol=1e-4)
    assert len(counted(rates[0, 0])) == len(counted(rates[0, 2])) == len(counted(rates[1, 2])) == 0
    twice = np.array(measured_rates(COPIES, [(lm, recording)] * 2))
    np.testing.assert_allclose(twice.max(), (16 + 4) / (16 + 8), atol=1e-4)


def test_a_prior_is_where_a_mix_begins() -> None:
    prior = ((((0.9, 0.8),),), (((0.1,), (0.3, 0.4, 0.6)), ((0.7,),)))
    begun = drafters.mix(*COPIES.drafters, budget=7, prior=prior)
    assert hash(begun) != hash(COPIES)
    mean = np.asarray(begun.init_rates(3).mean)
    assert mean.shape == (1, 2, AGREEMENTS, CLASSES, 4)
    np.testing.assert_allclose(mean[0, 0], np.tile([0.9, 0.8, 0.8, 0.8], (AGREEMENTS, CLASSES, 1)), rtol=1e-6)
    np.testing.assert_allclose(mean[0, 1, 0, 0], 0.1, rtol=1e-6)
    np.testing.assert_allclose(mean[0, 1, 0, 1:], np.tile([0.3, 0.4, 0.6, 0.6], (CLASSES - 1, 1)), rtol=1e-6)
    np.testing.assert_allclose(mean[0, 1, 1:], 0.7, rtol=1e-6)
    lm = circle()
    recording = record(lm, [[3, 1, 4, 1, 5]], 12, top=0)
    learned = state_after(recording, begun, lm).rates
    assert (np.asarray(learned.trials) != np.asarray(begun.init_rates(1).trials)).any()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (((((0.5,),),),), "prior has 1 entries; give one for each of"),
        (((((0.5,),),), ()), "by agreement, evidence and depth, of which none is empty"),
        (((((0.5,),),), ((),)), "of which none is empty"),
        (((((0.5,),),), (((),),)), "of which none is empty"),
        ((((0.5,),),) * 2, "rates by agreement, evidence and depth"),
        (((((0.5,),),), (((0.5, 1.0),),)), "prior rate 1.0 is not between 0 and 1"),
    ],
)
def test_what_is_no_prior_is_refused(prior, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drafters.mix(*COPIES.drafters, budget=7, prior=prior)


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="no texts to count on"):
        measured_rates(COPIES, [])
    with pytest.raises(ValueError, match="the mix has a prior"):
        measured_rates(dataclasses.replace(COPIES, prior=((((0.5,),),),) * 2), [])
