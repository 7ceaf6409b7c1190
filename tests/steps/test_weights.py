"""RSD's weight functions: their formulas, order, conventions at equality and for broken scores, and the mixture law."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.steps import weights

SCORES = np.array([-3.0, -1.0, -0.5, 0.0, 0.3, 0.7, 0.9, 1.0, 2.5], np.float32)
FORMULAS = {
    "constant": (weights.constant(0.3), lambda r: 0.3),
    "step": (weights.step(0.7), lambda r: float(np.float32(r) >= np.float32(0.7))),
    "clipped": (weights.clipped(), lambda r: min(1.0, max(0.0, r))),
    "ratio": (weights.ratio(), lambda r: r / (1 + r) if r > 0 else 0.0),
    "logistic": (weights.logistic(0.7, 4.0), lambda r: 1 / (1 + math.exp(-4 * (r - 0.7)))),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_range_and_order(name: str) -> None:
    weight, formula = FORMULAS[name]
    got = np.asarray(jax.jit(lambda w, r: w(r))(weight, SCORES))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [formula(float(r)) for r in SCORES], rtol=1e-5, atol=1e-7)
    assert (np.diff(got) >= 0).all() and (got >= 0).all() and (got <= 1).all()


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_broken_scores_get_the_least_weight(name: str, broken: float) -> None:
    weight, _ = FORMULAS[name]
    got = float(weight(jnp.array([broken], jnp.float32))[0])
    assert got == float(weight.probability if isinstance(weight, weights.Constant) else 0.0)


def test_a_score_that_meets_the_threshold_stays() -> None:
    edge = np.float32(0.7)
    around = jnp.array([np.nextafter(edge, np.float32(0)), edge, np.nextafter(edge, np.float32(1))])
    assert weights.step(0.7)(around).tolist() == [0.0, 1.0, 1.0]
    assert weights.step(-math.inf)(around).tolist() == [1.0, 1.0, 1.0]
    assert weights.step(math.inf)(around).tolist() == [0.0, 0.0, 0.0]


def test_certain_weights_leave_nothing_to_chance() -> None:
    uniform = jnp.array([0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))])
    assert weights.keep(jnp.ones(3, jnp.float32), uniform).all()
    assert not weights.keep(jnp.zeros(3, jnp.float32), uniform).any()


def test_another_threshold_runs_the_same_program() -> None:
    traces = []

    @jax.jit
    def traced(weight: weights.Weight, score: jax.Array) -> jax.Array:
        traces.append(None)
        return weight(score)

    for threshold in (0.2, 0.9):
        traced(weights.step(threshold), jnp.zeros(2, jnp.float32))
    assert len(traces) == 1


@pytest.mark.parametrize("name", FORMULAS)
def test_kept_and_replaced_steps_mix_as_the_paper_says(name: str) -> None:
    """P(y) = w(r(y)) P_draft(y) + (1 - E_draft[w]) P_target(y) on a vocabulary of four steps."""
    weight, _ = FORMULAS[name]
    reward = jnp.array([-0.2, 0.4, 0.7, 1.5], jnp.float32)
    draft, target = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    random = np.random.default_rng(3)
    count = 40_000
    proposed, replacement = random.choice(4, count, p=draft), random.choice(4, count, p=target)
    uniform = jnp.asarray(random.random(count), jnp.float32)
    kept = np.asarray(weights.keep(weight(reward[proposed]), uniform))
    seen = np.bincount(np.where(kept, proposed, replacement), minlength=4)
    share = np.asarray(weight(reward), np.float64)
    law = share * draft + (1 - share @ draft) * target
    chi_square = ((seen - count * law) ** 2 / (count * law)).sum()
    assert chi_square < 16.27  # 0.999 quantile of chi-square with 3 degrees of freedom
    assert law @ np.asarray(reward) >= draft @ np.asarray(reward)  # Proposition 2.2


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_probability_outside_its_range_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        weights.constant(probability)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="threshold"):
        weights.step(math.nan)
    with pytest.raises(ValueError, match="threshold=inf"):
        weights.logistic(math.inf)
    with pytest.raises(ValueError, match="sharpness=0"):
        weights.logistic(0.5, 0.0)
