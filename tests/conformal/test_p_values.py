import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.conformal import p_values


def kolmogorov(sample: np.ndarray) -> float:
    """sqrt(T) times the distance to the uniform distribution; above 1.95 with probability 0.001."""
    sample = np.sort(sample)
    steps = np.arange(len(sample) + 1) / len(sample)
    return np.sqrt(len(sample)) * max(np.max(steps[1:] - sample), np.max(sample - steps[:-1]))


@functools.partial(jax.jit, static_argnums=2)
def both(scores, uniform, tail):
    """Conservative and smoothed p-values (trials,) of the first of every row among the others."""

    def one(row, draw):
        return p_values(row[1:], row[:1], tail)[0], p_values(row[1:], row[:1], tail, draw)[0]

    return jax.vmap(one)(scores, uniform)


@pytest.mark.parametrize(
    ("entries", "tail"), [(16, "better"), (64, "worse"), pytest.param(240, "better", marks=pytest.mark.slow)]
)
def test_super_uniform_and_uniform_when_smoothed(entries, tail):
    trials = 20_000
    random = np.random.default_rng(entries)
    for digits in (None, 0):  # rounded scores have many ties
        scores = random.standard_normal((trials, entries + 1)).astype(np.float32)
        scores = scores if digits is None else np.round(scores, digits)
        uniform = jnp.asarray(random.random((trials, 1)), jnp.float32)
        p, smoothed = both(jnp.asarray(scores), uniform, tail)
        for u in (0.05, 0.2, 0.4, 0.6, 0.9):
            assert np.mean(np.asarray(p) <= u + 1e-6) <= u + 3 * np.sqrt(u * (1 - u) / trials)
        assert kolmogorov(np.asarray(smoothed)) < 1.95


def test_counts_as_the_paper_does():
    calibration = jnp.array([-3.0, -1.0, -2.0, -1.0])
    score = jnp.array([0.0, -1.0, -2.5, -9.0, jnp.nan])
    np.testing.assert_allclose(p_values(calibration, score), np.array([1, 3, 4, 5, 5]) / 5)
    np.testing.assert_allclose(p_values(calibration, score, "worse"), np.array([5, 5, 2, 1, 1]) / 5)
    smoothed = p_values(calibration, score, uniform=jnp.full((5,), 0.5))
    np.testing.assert_allclose(smoothed, [0.1, 0.3, 0.7, 0.9, 0.9], rtol=1e-6)


def test_a_failed_calibration_score_is_worst_not_best():
    p = p_values(jnp.array([jnp.nan, jnp.inf, -jnp.inf]), jnp.array([0.0, jnp.inf]))
    np.testing.assert_allclose(p, [1 / 4, 1.0])


def test_empty_arrays():
    np.testing.assert_array_equal(p_values(jnp.zeros((0,)), jnp.array([1.0])), [1.0])
    assert p_values(jnp.ones((3,)), jnp.zeros((0,))).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((jnp.ones((2, 2)), jnp.ones((1,))), "calibration of shape"),
        ((jnp.ones((2,)), jnp.ones((1,)), "left"), "tail='left'"),
        ((jnp.ones((2,)), jnp.ones((1,)), "worse", jnp.ones((2,))), "uniform of shape"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        p_values(*arguments)
