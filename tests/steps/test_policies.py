"""Thresholds: what is taken for one, and that it is data of the program."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from conformal import compiled
from toy_steps import SCORER

from jaxspec import steps
from jaxspec.conformal import adaptive_conformal
from jaxspec.steps import weights

SCORE = jnp.array([0.1, 0.5, 0.9, jnp.nan], jnp.float32)
GROUP = jnp.zeros(4, jnp.int32)


def decisions(policy: steps.Policy, uniform: float = 0.5) -> list[bool]:
    draw = jnp.full(4, uniform, jnp.float32)
    return compiled.decide(policy.calibrator, policy.calibrator.init(), SCORE, GROUP, uniform=draw).tolist()


@pytest.mark.parametrize("number", [0.5, np.float32(0.5), np.quantile(np.array([0.5, 0.5], np.float32), 0.3), 1, True])
def test_numbers_of_any_kind_are_thresholds(number) -> None:
    assert decisions(steps.rsd(number)) == [one < float(number) or one != one for one in SCORE.tolist()]
    assert decisions(steps.arbitrage(number)) == [one < -float(number) or one != one for one in SCORE.tolist()]
    assert steps.oracle(number).margin == float(number) and steps.random(number).calibrator.threshold == float(number)
    assert steps.a1(number).calibrator.reject_rate == float(number)


@pytest.mark.parametrize("wrong", [None, "0.5", [0.5], jnp.float32, SCORER])
def test_anything_else_is_refused(wrong) -> None:
    for policy in (steps.rsd, steps.arbitrage):
        with pytest.raises(ValueError, match="is no threshold; give a number"):
            policy(wrong)
    with pytest.raises(ValueError, match="is not a number; give a margin"):
        steps.oracle(wrong)
    for policy in (steps.a1, steps.random, steps.synchronous):
        with pytest.raises(ValueError, match="is not between 0 and 1"):
            policy(wrong)
    if wrong is not None:
        with pytest.raises(ValueError, match="is no calibrator; take one from jaxspec.conformal"):
            steps.a1(calibrator=wrong)


def test_weights_are_for_rsd_alone() -> None:
    with pytest.raises(ValueError, match="is no threshold; give a number or a calibrator"):
        steps.arbitrage(weights.clipped())


def test_a_calibrator_is_taken_as_it_is() -> None:
    calibrator = adaptive_conformal(0.3)
    assert steps.rsd(calibrator).calibrator is steps.arbitrage(calibrator).calibrator is calibrator


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (steps.rsd, (0.2, np.float32(0.8), -math.inf)),
        (steps.arbitrage, (-0.2, -0.8)),
        (steps.random, (0.2, 0.8)),
        (steps.rsd, (weights.logistic(0.2), weights.logistic(0.7, 4.0))),
    ],
)
def test_policies_that_differ_in_a_threshold_share_a_program(make, settings) -> None:
    made = [make(setting) for setting in settings]
    assert len(set(made)) == 1
    decisions(made[0])
    before = compiled.decide._cache_size()
    found = {tuple(decisions(policy)) for policy in made}
    assert len(found) == len(made) and compiled.decide._cache_size() == before


def test_other_policies_have_programs_of_their_own() -> None:
    some = [
        steps.rsd(0.5), steps.rsd(0.5, SCORER), steps.rsd(weights.step(0.5)), steps.rsd(weights.clipped()),
        steps.arbitrage(0.5), steps.random(0.5), steps.oracle(0.5), steps.oracle(0.6), steps.a1(0.5), steps.a1(0.6),
        dataclasses.replace(steps.rsd(0.5), overflow="accept"),
    ]  # fmt: skip
    assert len(set(some)) == len(some)
