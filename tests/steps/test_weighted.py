"""Steps that stay at random: decisions follow the weight of the score and the draw, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformal import compiled
from toy_steps import CUT, DRAFT, NEW, PROMPTS, SCORER, TARGET

from jaxspec import steps
from jaxspec.conformal import Calibrator, fixed
from jaxspec.steps import weights
from jaxspec.steps.weighted import weighted

SCORE = jnp.array([-0.5, 0.0, 0.3, 0.7, 0.9, 2.0, jnp.nan, jnp.inf], jnp.float32)
GROUP = jnp.arange(8, dtype=jnp.int32)
WEIGHTS = {
    "constant": weights.constant(0.3),
    "step": weights.step(0.7),
    "clipped": weights.clipped(),
    "ratio": weights.ratio(),
    "logistic": weights.logistic(0.7, 4.0),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_step_stays_with_its_weight(name: str) -> None:
    calibrator = weighted(WEIGHTS[name])
    assert isinstance(calibrator, Calibrator)
    state, weight = calibrator.init(), np.asarray(WEIGHTS[name](SCORE))
    for draw in (0.0, 0.25, 0.6, 0.999):
        found = compiled.decide(calibrator, state, SCORE, GROUP, uniform=jnp.full(8, draw, jnp.float32))
        np.testing.assert_array_equal(found, draw >= weight)


def test_the_step_function_is_the_fixed_threshold() -> None:
    calibrator, draws = weighted(weights.step(0.7)), jnp.linspace(0.0, 0.999, 8)
    wanted = compiled.decide(fixed(0.7), fixed(0.7).init(), SCORE, GROUP)
    np.testing.assert_array_equal(compiled.decide(calibrator, calibrator.init(), SCORE, GROUP, uniform=draws), wanted)


def test_without_draws_of_the_caller_it_draws_its_own() -> None:
    calibrator = weighted(weights.constant(0.3))
    score, group = jnp.zeros(1000), jnp.zeros(1000, jnp.int32)
    state = calibrator.init()
    first = compiled.decide(calibrator, state, score, group)
    state = compiled.observe(calibrator, state, score, group, first)
    second = compiled.decide(calibrator, state, score, group)
    assert abs(float(first.mean()) - 0.7) < 0.05 and (first != second).any()
    assert state.tally.escalations.tolist() == [int(first.sum())] and state.tally.decisions.tolist() == [1000]


def test_donated_states_leave_the_weight_function_whole() -> None:
    calibrator = weighted(weights.logistic(0.7))
    spend = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    for state in (calibrator.init(), calibrator.renew(calibrator.init())):
        spent = jax.block_until_ready(spend(state))
        assert spent.weight.threshold == np.float32(0.7) + 1
    assert float(calibrator.init().weight.threshold) == pytest.approx(0.7)


def test_a_weight_is_the_calibrators_own_again() -> None:
    one, other = weighted(weights.logistic(0.2)), weighted(weights.logistic(0.7))
    assert one == other and one != weighted(weights.step(0.2))
    assert other.renew(one.init()).weight.threshold == np.float32(0.7)
    with pytest.raises(ValueError, match="start with init"):
        weighted(weights.step(0.2)).renew(one.init())


@pytest.mark.slow
def test_what_stays_depends_on_seed_problem_and_turn_alone() -> None:
    def solve(prompts, **settings):
        policy = steps.rsd(weights.logistic(0.5, 4.0), SCORER)
        return steps.solve(DRAFT, TARGET, policy, prompts, segmentation=CUT, max_new_tokens=NEW, cache=128, **settings)

    first = solve(PROMPTS, lanes=4, target_lanes=2)
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    assert solve([PROMPTS[i] for i in order], lanes=3).ids == [first.ids[i] for i in order]
    other = solve(PROMPTS, lanes=4, target_lanes=2, seed=1)  # greedy texts: only what stays is drawn
    assert other.ids != first.ids
    scored = [step for one in first.problems for step in one.steps]
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        mine = [step for step in scored if low <= step.score < high]
        wanted = np.mean([float(weights.logistic(0.5, 4.0)(jnp.float32(step.score))) for step in mine])
        assert abs(np.mean([not step.escalated for step in mine]) - wanted) < 3 * np.sqrt(0.25 / len(mine))
