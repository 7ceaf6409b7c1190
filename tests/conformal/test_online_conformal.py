import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformal import compiled

from jaxspec.conformal import online_conformal


@functools.partial(jax.jit, static_argnums=0)
def run(calibrator, score, group):
    """Decisions and smoothed p-values of a stream (ticks, B)."""

    def tick(state, lane):
        score, group = lane
        escalate = compiled.decide(calibrator, state, score, group)
        draw = jax.random.uniform(jax.random.fold_in(jax.random.key(9), state.tick), score.shape)
        p = compiled.p_values(calibrator, state, score, group, uniform=draw, tail="worse")
        return compiled.observe(calibrator, state, score, group, escalate), (escalate, p)

    return jax.lax.scan(tick, calibrator.init(), (score, group))


@pytest.mark.parametrize("digits", [None, 0])
def test_binomial_without_calibration_data(digits):
    count = 2000
    random = np.random.default_rng(5)
    score = random.standard_normal((count, 1)).astype(np.float32)
    score = score if digits is None else np.round(score, digits)
    _, (escalate, p) = run(online_conformal(0.4, "growing", count), score, np.zeros((count, 1), np.int32))
    assert abs(np.mean(escalate) - 0.4) < 3 * np.sqrt(0.24 / count)
    p = np.asarray(p)[:, 0]
    assert abs(np.corrcoef(p[1:], p[:-1])[0, 1]) < 3 / np.sqrt(count)
    assert np.abs(np.sort(p) - np.arange(count) / count).max() < 1.95 / np.sqrt(count)


@pytest.mark.parametrize("ring", [True, False])
@pytest.mark.parametrize("lanes", [1, 3, 9])
def test_the_bank_holds_the_last_or_the_first(ring, lanes):
    """Against lists, with idle lanes, and batches larger than the bank."""
    size, groups = 5, 3
    calibrator = online_conformal(0.4, "ring" if ring else "growing", size, groups)
    random = np.random.default_rng(lanes)
    state = calibrator.init()
    lists = [collections.deque(maxlen=size if ring else None) for _ in range(groups)]
    for _ in range(12):
        score = random.standard_normal(lanes).astype(np.float32)
        group = random.integers(0, groups, lanes).astype(np.int32)
        live = random.random(lanes) < 0.8
        state = compiled.observe(calibrator, state, score, group, jnp.zeros((lanes,), bool), jnp.asarray(live))
        for value, cell in zip(score[live], group[live], strict=True):
            lists[cell].append(value)
        for cell, wanted in enumerate(lists):
            held = int(state.bank.held[cell])
            found = np.asarray(state.bank.score[cell, :held])
            np.testing.assert_array_equal(np.sort(found), np.sort(list(wanted)[:size]))


def test_a_batch_is_not_compared_with_itself():
    calibrator = online_conformal(0.4, side="at_most")
    state = calibrator.init()
    score, group = jnp.arange(8.0), jnp.zeros((8,), jnp.int32)
    assert not compiled.decide(calibrator, state, score, group).any()  # nothing to compare with
    state = compiled.observe(calibrator, state, score, group, jnp.zeros((8,), bool))
    assert compiled.decide(calibrator, state, score, group).tolist() == [True] * 2 + [False] * 6


def test_the_order_of_lanes_does_not_matter():
    calibrator = online_conformal(0.4, size=16, groups=2)
    random = np.random.default_rng(2)
    state = calibrator.init()
    for _ in range(3):
        score, group = jnp.asarray(random.standard_normal(5), jnp.float32), jnp.asarray(random.integers(0, 2, 5))
        draw = jnp.asarray(random.random(5), jnp.float32)
        escalate = compiled.decide(calibrator, state, score, group, uniform=draw)
        order = random.permutation(5)
        shuffled = compiled.decide(calibrator, state, score[order], group[order], uniform=draw[order])
        np.testing.assert_array_equal(shuffled, escalate[order])
        other = compiled.observe(calibrator, state, score[order], group[order], escalate[order])
        state = compiled.observe(calibrator, state, score, group, escalate)
        np.testing.assert_array_equal(jnp.sort(state.bank.score, axis=1), jnp.sort(other.bank.score, axis=1))


def test_bank_must_be_known():
    with pytest.raises(ValueError, match="bank='list'"):
        online_conformal(bank="list")
