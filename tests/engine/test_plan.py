"""A plan says what decoding takes, and runs nothing."""

import jax
import pytest
from small_transformer import CONFIG, small_transformer

import jaxspec
from jaxspec.engine import serve


def bytes_of(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_a_plan_counts_weights_cache_and_logits(monkeypatch) -> None:
    lm = small_transformer()
    monkeypatch.setattr(serve, "serve", lambda *_, **__: pytest.fail("a plan must not decode"))
    plan = jaxspec.plan(lm, lanes=3, cache=256, block=5)
    assert plan.weights == bytes_of(lm.params)
    assert plan.cache == 2 * CONFIG.layers * 3 * CONFIG.key_heads * 256 * CONFIG.head_width * 4
    assert plan.logits == 3 * 5 * CONFIG.vocabulary * 4
    assert plan.peak >= plan.weights + plan.cache
    assert "weights" in str(plan) and "peak" in str(plan)


def test_more_lanes_take_more() -> None:
    lm = small_transformer()
    one, four = (jaxspec.plan(lm, lanes=lanes, cache=256, block=2) for lanes in (1, 4))
    assert four.cache == 4 * one.cache and four.weights == one.weights
    assert four.peak - one.peak >= 3 * one.cache


def test_the_plan_is_what_the_program_takes() -> None:
    """The peak is the compiler's own figure for the very program that decoding runs."""
    lm = small_transformer()
    plan = jaxspec.plan(lm, lanes=2, cache=128, block=4)
    cache = 2 * CONFIG.layers * 2 * CONFIG.key_heads * 128 * CONFIG.head_width * 4
    assert plan.cache == cache
    assert plan.peak < plan.weights + 3 * plan.cache + 2**20  # no second copy of the cache a step
