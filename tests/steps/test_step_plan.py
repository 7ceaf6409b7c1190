"""A plan says what a step-level job takes, runs nothing, and is what the job then takes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from small_transformer import CONFIG, small_transformer

from jaxspec import steps
from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import chain_block
from jaxspec.models.transformer import transformer_fn
from jaxspec.steps.loop import run_slice
from jaxspec.weights.parameters import parameter_shapes

LANES, CACHE, SAMPLES, CHUNK = 4, 256, 4, 8
SETTINGS = dict(lanes=LANES, target_lanes=2, cache=CACHE, temperature=0.7)
TARGET_CONFIG = dataclasses.replace(CONFIG, width=64, mlp_width=96, layers=3, sliding=())


@functools.cache
def model(config: ModelConfig, seed: int) -> LanguageModel:
    fn = transformer_fn(config, jnp.float32)
    empty = kv_cache.init_cache(config, 1, 128, jnp.float32)
    params = fn.module.init(jax.random.key(seed), chain_block(jnp.zeros((1, 1), jnp.int32)), empty)["params"]
    return LanguageModel(config, fn, params, None, jnp.float32, jnp.float32, f"model {seed}")


def bytes_of(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def a1():
    return steps.a1(0.4, SAMPLES, turns=3, chunk=CHUNK)


def test_a_plan_counts_weights_caches_and_queue() -> None:
    draft, target = small_transformer(), model(TARGET_CONFIG, 1)
    plan = steps.plan(draft, target, a1(), **SETTINGS)
    assert (plan.draft_weights, plan.target_weights) == (bytes_of(draft.params), bytes_of(target.params))
    for found, config in ((plan.draft_cache, CONFIG), (plan.target_cache, TARGET_CONFIG)):
        assert found == bytes_of(kv_cache.init_cache(config, LANES, CACHE, jnp.float32)[:2])
    assert plan.scorer_weights == plan.scorer_cache == 0
    assert plan.queue > 4 * LANES * CACHE * 4  # the texts alone
    kept = plan.draft_weights + plan.target_weights + plan.draft_cache + plan.target_cache + plan.queue
    assert plan.passes > 0 and plan.peak >= kept + plan.passes
    assert "target cache" in str(plan) and "peak" in str(plan)


@pytest.mark.slow
def test_devices_of_their_own_have_peaks_of_their_own() -> None:
    draft, target = small_transformer(), model(TARGET_CONFIG, 1)
    apart = dataclasses.replace(target, params=jax.device_put(target.params, jax.devices()[1]))
    here = dataclasses.replace(draft, params=jax.device_put(draft.params, jax.devices()[0]))
    plan = steps.plan(here, apart, a1(), **SETTINGS)
    kept = plan.draft_weights + plan.draft_cache + plan.queue
    assert kept <= plan.peak - plan.passes < kept + plan.target_weights
    kept = plan.target_weights + plan.target_cache + plan.queue
    assert kept <= plan.target_peak - plan.target_passes < kept + plan.draft_weights
    together = steps.plan(draft, target, a1(), **SETTINGS)
    assert together.target_peak == 0 and together.peak > max(plan.peak, plan.target_peak)


def test_the_plan_is_what_a_job_takes() -> None:
    """The peak against what lies on the device while the job runs, with the temporaries of its program."""
    draft, target = small_transformer(), model(TARGET_CONFIG, 1)
    plan = steps.plan(draft, target, a1(), **SETTINGS)
    mine = {id(leaf) for leaf in jax.tree.leaves((draft.params, target.params))}
    before = {id(array): array for array in jax.live_arrays() if id(array) not in mine}
    held = []

    def look(usage) -> None:
        held.append(sum(array.nbytes for array in jax.live_arrays() if id(array) not in before))

    steps.solve(draft, target, a1(), [[1, 2, 3], [4, 5]], max_new_tokens=40, slice_ticks=8, watch=look, **SETTINGS)
    assert len(held) > 2
    measured = max(held) + plan.passes
    assert abs(plan.peak - measured) <= 0.1 * measured


@pytest.mark.slow
def test_a_scorer_is_counted() -> None:
    draft, target = small_transformer(), model(TARGET_CONFIG, 1)
    scoring = model(dataclasses.replace(CONFIG, tied=False, outputs=1), 2)
    plan = steps.plan(draft, target, steps.rsd(0.5), scorer=scoring, segmentation=steps.Segmentation.chunks(8),
                      lanes=LANES, cache=CACHE)  # fmt: skip
    assert plan.scorer_weights == bytes_of(scoring.params)
    assert plan.scorer_cache == bytes_of(kv_cache.init_cache(CONFIG, LANES, CACHE, jnp.float32)[:2])


def test_a_plan_needs_no_weights_and_runs_nothing() -> None:
    draft, target = small_transformer(), model(TARGET_CONFIG, 1)
    shapes = [dataclasses.replace(lm, params=parameter_shapes(lm.config, jnp.float32)) for lm in (draft, target)]
    before = run_slice._cache_size()
    assert steps.plan(*shapes, a1(), **SETTINGS) == steps.plan(draft, target, a1(), **SETTINGS)
    assert run_slice._cache_size() == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"cache": 513}, "cache=513 is beyond the draft's context of 512"),
        ({"cache": CHUNK}, f"steps of up to {CHUNK} tokens do not fit a cache of {CHUNK}"),
        ({"lanes": 0}, "lanes=0 is below 1"),
        ({"lanes": 1, "target_lanes": 2}, "target_lanes=2 is not between 1 and lanes=1"),
        ({"samples": 0}, "samples=0 is below 1"),
    ],
)
def test_sizes_that_cannot_be(setting: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        steps.plan(small_transformer(), small_transformer(), a1(), **{**SETTINGS, **setting})
