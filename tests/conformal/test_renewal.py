"""What calibrators keep for a job of other questions, whose numbers start at 0 again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformal import compiled

from jaxspec.conformal import adaptive_conformal, fixed, online_conformal, static_conformal

FIRST = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.zeros(4, jnp.int32)
QUESTIONS = jnp.arange(4)
NOBODY = jnp.zeros(4, bool)


def learned(calibrator):
    return compiled.observe(calibrator, calibrator.init(), *FIRST, NOBODY, question=QUESTIONS)


@functools.partial(jax.jit, static_argnums=0)
def p_value(calibrator, state, score, question):
    lane = jnp.full((1,), score), jnp.zeros(1, jnp.int32)
    return calibrator.p_values(state, *lane, jnp.full((1,), question))[0]


def same(one, other) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other))


@pytest.mark.parametrize("bank", ["ring", "growing"])
def test_questions_of_an_earlier_job_stay_as_others(bank: str) -> None:
    calibrator = online_conformal(0.4, bank, size=8, cluster_size=1)
    state = learned(calibrator)
    assert p_value(calibrator, state, 1.5, 1) == 0.75  # 3 and 4 are better: 2 is left out, and 1.5 counts itself
    state = calibrator.renew(state)
    assert p_value(calibrator, state, 1.5, 1) == pytest.approx(4 / 5)
    for _ in range(2):  # a second score of the same new questions has no place in clusters of one
        lanes = jnp.array([10.0, 11.0]), jnp.zeros(2, jnp.int32)
        state = compiled.observe(calibrator, state, *lanes, NOBODY[:2], question=jnp.array([0, 1]))
        assert int(state.bank.entries.sum()) == 6
    assert p_value(calibrator, state, 1.5, 0) == pytest.approx((3 + 1 + 1) / 6)  # new 0 is left out, old 0 is not
    again = calibrator.renew(state)
    assert int(again.bank.entries.sum()) == 6 and p_value(calibrator, again, 1.5, 0) == pytest.approx(6 / 7)


def conditional(make, **settings):
    return make(0.4, size=8, mode="conditional", questions=4, **settings)


@pytest.mark.parametrize("make", [online_conformal, adaptive_conformal])
def test_cells_of_questions_begin_anew_and_draws_go_on(make) -> None:
    calibrator = conditional(make, seed=3)
    state = calibrator.renew(learned(calibrator))
    fresh = calibrator.init()
    ranks, fresh_ranks = (getattr(each, "ranks", each) for each in (state, fresh))
    assert int(ranks.tick) == 1 and same(ranks._replace(tick=fresh_ranks.tick), fresh_ranks)
    assert not hasattr(state, "deficit") or same(state.deficit, fresh.deficit)
    assert p_value(calibrator, state, 1.5, 1) == 1.0


def test_groups_that_are_questions_begin_anew() -> None:
    calibrator = adaptive_conformal(0.4, groups=4, size=8)
    state = compiled.observe(calibrator, calibrator.init(), FIRST[0], QUESTIONS, NOBODY)
    assert same(calibrator.renew(state), state)
    state = calibrator.renew(state, questions_as_groups=True)
    assert same(state, calibrator.init()._replace(ranks=calibrator.init().ranks._replace(tick=jnp.int32(1))))
    counted = compiled.observe(fixed(0.0, 4), fixed(0.0, 4).init(), FIRST[0], QUESTIONS, NOBODY)
    assert int(fixed(0.0, 4).renew(counted).tally.decisions.sum()) == 4
    assert int(fixed(0.0, 4).renew(counted, questions_as_groups=True).tally.decisions.sum()) == 0


@pytest.mark.parametrize("make", [online_conformal, adaptive_conformal])
def test_pooled_scores_stay(make) -> None:
    state = learned(make(0.4, size=8))
    assert same(make(0.4, size=8).renew(state), state)


@pytest.mark.parametrize(
    "calibrator", [static_conformal(0.4, size=8, cluster_size=2), conditional(static_conformal)], ids=["by", "within"]
)
def test_what_was_calibrated_for_questions_by_number_stays(calibrator) -> None:
    state = calibrator.calibrate(*FIRST, QUESTIONS)
    assert same(calibrator.renew(state), state)


def test_a_threshold_is_the_calibrators_own_again() -> None:
    state = compiled.observe(fixed(0.5), fixed(0.7).init(), *FIRST, NOBODY)
    assert state.threshold == np.float32(0.7)
    renewed = fixed(0.5).renew(state)
    assert renewed.threshold == 0.5 and same(renewed.tally, state.tally)


def test_a_state_of_another_calibrator_is_refused() -> None:
    with pytest.raises(ValueError, match="start with init"):
        online_conformal(0.4).renew(fixed(0.5).init())
