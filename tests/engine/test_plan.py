"""A plan says what decoding takes, and runs nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from small_transformer import CONFIG, small_transformer

import jaxspec
from jaxspec.decode.loop import run_slice
from jaxspec.models import cache as kv_cache
from jaxspec.models.transformer import transformer_fn
from jaxspec.weights.parameters import parameter_shapes


def bytes_of(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_a_plan_counts_weights_cache_and_logits() -> None:
    lm = small_transformer()
    plan = jaxspec.plan(lm, lanes=3, cache=256, block=5)
    assert plan.weights == bytes_of(lm.params)
    assert plan.cache == bytes_of(kv_cache.init_cache(CONFIG, 3, 256, lm.cache_dtype)[:2])
    assert plan.logits == 3 * 5 * CONFIG.vocabulary * 4
    assert plan.peak >= plan.weights + plan.cache + plan.logits
    assert "weights" in str(plan) and "peak" in str(plan)


def test_a_plan_needs_no_weights_and_runs_nothing() -> None:
    """Shapes in place of parameters: a program that ran could not do without their numbers."""
    lm = small_transformer()
    shapes = dataclasses.replace(lm, params=parameter_shapes(CONFIG, jnp.float32))
    before = run_slice._cache_size()
    assert jaxspec.plan(shapes, lanes=2, cache=128, block=4) == jaxspec.plan(lm, lanes=2, cache=128, block=4)
    assert run_slice._cache_size() == before


def test_a_plan_counts_a_draft_model_and_its_cache() -> None:
    lm = small_transformer()
    draft = dataclasses.replace(lm, params=jax.tree.map(jnp.copy, lm.params))
    sizes = {"lanes": 2, "cache": 256}
    plan = jaxspec.plan(lm, drafter=jaxspec.drafters.draft_model(draft, 3), acceptance="rejection", **sizes)
    alone = jaxspec.plan(lm, block=4, **sizes)
    assert (plan.weights, plan.cache, plan.logits) == (alone.weights, alone.cache, alone.logits)
    assert alone.drafter == 0 and plan.drafter >= bytes_of(draft.params) + plan.cache
    assert plan.peak >= alone.peak + bytes_of(draft.params) + plan.cache


@pytest.mark.slow
def test_a_plan_counts_shared_weights_once() -> None:
    lm, sizes = small_transformer(), {"lanes": 2, "cache": 256}
    alone = jaxspec.plan(lm, block=4, **sizes)
    layers = jaxspec.plan(lm, drafter=jaxspec.drafters.draft_model("self:layers=1", 3), **sizes)
    assert layers.weights == alone.weights == bytes_of(lm.params)
    assert layers.drafter < alone.cache < alone.peak < layers.peak < alone.peak + 2 * alone.cache
    copying = jaxspec.plan(lm, drafter=jaxspec.drafters.suffix(width=3), **sizes)
    assert copying.logits == alone.logits and copying.drafter < layers.drafter


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"block": 4, "drafter": jaxspec.drafters.suffix()}, "block=4 and a drafter, whose blocks"),
        ({"block": 1.5}, "block=1.5 is not an integer"),
        ({"block": 0}, "block=0 is below 1"),
        ({"lanes": 0, "cache": 128}, "lanes=0 is below 1"),
        ({"cache": 1}, "cache=1 is below 2"),
        ({"cache": 513}, "cache=513 is beyond the model's context of 512"),
    ],
)
def test_sizes_that_cannot_be(sizes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        jaxspec.plan(small_transformer(), **sizes)


def test_more_lanes_take_more() -> None:
    lm = small_transformer()
    one, four = (jaxspec.plan(lm, lanes=lanes, cache=256, block=2) for lanes in (1, 4))
    assert four.cache == 4 * one.cache and four.weights == one.weights
    assert four.peak - one.peak >= 3 * one.cache


@pytest.mark.parametrize("block", [1, 4])
def test_no_pass_copies_the_cache(block: int) -> None:
    """The peak is the compiler's own figure for the very program that decoding runs, and each of the four buffers of
    keys and values is in it once."""
    config = dataclasses.replace(CONFIG, head_width=256, context=8192)
    shapes = parameter_shapes(config, jnp.float32)
    large = dataclasses.replace(small_transformer(), config=config, model=transformer_fn(config), params=shapes)
    plan = jaxspec.plan(large, lanes=8, cache=8192, block=block)
    assert plan.cache == 512 * 2**20
    assert plan.peak < plan.weights + 1.2 * plan.cache
