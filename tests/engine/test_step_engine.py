"""Where the state of a step-level job lives."""

import dataclasses

import jax
import pytest
from toy_model import toy_model

from jaxspec import steps
from jaxspec.engine.request import Request
from jaxspec.engine.solve import init_state
from jaxspec.engine.step_engine import engine_of
from jaxspec.engine.step_job import build_step_job, step_settings
from jaxspec.models.language_model import LanguageModel


def on(lm: LanguageModel, device: int) -> LanguageModel:
    return dataclasses.replace(lm, params=jax.device_put(lm.params, jax.devices()[device]))


def bytes_on(device: int) -> int:
    return sum(array.nbytes for array in jax.live_arrays() if jax.devices()[device] in array.devices())


@pytest.mark.parametrize("place", [0, 2])
def test_a_state_stays_with_the_models_alone(place: int) -> None:
    """It is made on the first device, which may be the draft's or nobody's."""
    policy = steps.a1(samples=1, turns=3, chunk=4)
    settings = step_settings(policy, lanes=4, cache=128)
    job = build_step_job(on(toy_model(1), place), on(toy_model(2), 1), policy, [Request((1, 2), 20)], settings)
    engine, before = engine_of(job), bytes_on(0)
    first = init_state(job)
    cache = sum(leaf.nbytes for leaf in jax.tree.leaves(first.target.cache))
    begun = engine.begin(first)
    assert {device for leaf in jax.tree.leaves(begun.here) for device in leaf.devices()} == {jax.devices()[place]}
    assert {device for leaf in jax.tree.leaves(begun.there) for device in leaf.devices()} == {jax.devices()[1]}
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(begun.here)) if place == 0 else 0
    assert 0 <= bytes_on(0) - before - kept < cache / 4
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
