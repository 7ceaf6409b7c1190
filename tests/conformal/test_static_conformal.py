import fractions
import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformal import compiled

from jaxspec.conformal import static_conformal
from jaxspec.conformal.rate import exact_rate

SIDES = ["at_most", "at_least", "exact", "released"]


@functools.partial(jax.jit, static_argnums=0)
def decide(calibrator, state, score, uniform):
    return compiled.decide(calibrator, state, score, jnp.zeros(score.shape, jnp.int32), uniform=uniform)


def decisions(calibrator, scores, candidates, uniform=0.5):
    scores = jnp.asarray(scores, jnp.float32)
    state = calibrator.calibrate(scores, jnp.zeros(scores.shape, jnp.int32))
    candidates = jnp.asarray(candidates, jnp.float32)
    return np.asarray(decide(calibrator, state, candidates, jnp.full(candidates.shape, uniform, jnp.float32)))


def with_scores(calibrator, scores):
    """The state that holds these scores (N,), N the size of the bank; without a compiled loop over them."""
    state = calibrator.init()
    bank = state.bank._replace(score=scores[None], held=jnp.full((1,), scores.shape[0], jnp.int32))
    return state._replace(bank=bank)


def reference(side, rate, scores, candidate, uniform):
    """The rules as fractions over counts of nonconformity scores."""
    count = len(scores)
    better = sum(score > candidate for score in scores)
    as_good = sum(score >= candidate for score in scores)
    if side == "at_most":
        return better >= math.ceil((count + 1) * (1 - rate))
    if side == "at_least":
        return fractions.Fraction(as_good + 1, count + 1) > 1 - rate
    if side == "exact":
        worse = count - as_good
        return worse + fractions.Fraction(uniform) * (as_good - better + 1) < rate * (count + 1)
    return better >= math.ceil(count * (1 - rate)) and rate > 0


@pytest.mark.slow
@hypothesis.settings(max_examples=25)
@hypothesis.given(
    scores=st.lists(st.integers(-6, 6), min_size=0, max_size=24),
    uniform=st.sampled_from([0.0, 0.25, 0.625, 0.96875]),
    rate=st.sampled_from(["0.4", "0.123"]),
)
def test_ranks_are_those_of_exact_arithmetic(scores, uniform, rate):
    candidates = np.arange(-7, 8)
    padded = np.zeros((24,), np.float32)
    padded[: len(scores)] = scores
    for side in SIDES:
        calibrator = static_conformal(float(rate), side, size=24)
        state = with_scores(calibrator, jnp.asarray(padded))
        state = state._replace(bank=state.bank._replace(held=jnp.full((1,), len(scores), jnp.int32)))
        draw = jnp.full(candidates.shape, uniform, jnp.float32)
        found = np.asarray(decide(calibrator, state, jnp.asarray(candidates, jnp.float32), draw))
        wanted = [reference(side, fractions.Fraction(rate), scores, c, uniform) for c in candidates]
        np.testing.assert_array_equal(found, wanted, err_msg=f"{side} {rate} {scores} {uniform}")


def test_no_rank_is_lost_to_float_rounding():
    # (4 + 1) * (1 - 0.4) is 3; in float32 its ceil is 4, and the draft that ranks fourth would be kept.
    assert decisions(static_conformal(0.4, "at_most"), [4, 3, 2, 1], [1.5, 2.5]).tolist() == [True, False]
    assert exact_rate(0.4) == (2, 5)
    assert exact_rate(float(np.float32(0.1))) == (1, 10)
    assert exact_rate(1 / 3) == (1, 3)
    total = jnp.array([2**31 - 1, 0, 7], jnp.int32)
    rate = exact_rate(0.6)
    np.testing.assert_array_equal(rate.floor_of(total), [(2**31 - 1) * 3 // 5, 0, 4])
    np.testing.assert_array_equal(rate.ceil_of(total), [-(-(2**31 - 1) * 3 // 5), 0, 5])
    np.testing.assert_allclose(rate.fraction_of(total), [((2**31 - 1) * 3 % 5) / 5, 0, 0.2], rtol=1e-6)


@pytest.mark.slow
def test_equivalent_forms():
    """The published code's rank rule is a threshold; both sides agree where (N + 1)(1 - rate) is an integer."""
    random = np.random.default_rng(0)
    candidates = random.standard_normal(200)
    for count in (16, 64, 240):
        scores = random.standard_normal(count)
        threshold = np.sort(-scores)[math.ceil(0.6 * count) - 1]
        found = decisions(static_conformal(0.4, "released"), scores, candidates)
        np.testing.assert_array_equal(found, -candidates > threshold)
    for count, agree in ((14, True), (64, True), (16, False)):
        scores = random.standard_normal(count)
        middle = np.convolve(np.sort(scores), [0.5, 0.5], "valid")
        most, least = (decisions(static_conformal(0.4, side), scores, middle) for side in ("at_most", "at_least"))
        assert (most == least).all() == agree
        assert (most <= least).all()


@pytest.mark.parametrize(
    ("side", "entries", "mean", "deviation"),
    [
        ("at_most", 16, 0.3529, 0.1126),
        ("at_most", 64, 0.4000, 0.0603),
        ("at_most", 240, 0.3983, 0.0315),
        ("at_least", 16, 0.4118, 0.1160),
        ("at_least", 64, 0.4000, 0.0603),
        ("released", 16, 0.4118, 0.1160),
        ("released", 240, 0.4025, 0.0315),
        ("exact", 16, 0.4, None),
    ],
)
def test_realised_rate_follows_the_beta_law(side, entries, mean, deviation):
    trials, grid = 1500, 200
    random = np.random.default_rng(entries)
    calibrator = static_conformal(0.4, side, size=entries)
    scores = jnp.asarray(random.random((trials, entries)), jnp.float32)
    candidates = jnp.asarray((np.arange(grid) + 0.5) / grid, jnp.float32)
    uniform = jnp.asarray(random.random((trials, grid)), jnp.float32)

    @jax.jit
    def rates(scores, uniform):
        def one(row, draw):
            return jnp.mean(decide(calibrator, with_scores(calibrator, row), candidates, draw).astype(jnp.float32))

        return jax.vmap(one)(scores, uniform)

    rate = np.asarray(rates(scores, uniform))
    spread = 0.117 if deviation is None else deviation
    assert abs(rate.mean() - mean) < 4 * spread / np.sqrt(trials) + 1e-4
    if deviation is not None:
        assert abs(rate.std() / deviation - 1) < 4 / np.sqrt(2 * trials)


@pytest.mark.parametrize("side", SIDES)
def test_only_order_counts(side):
    random = np.random.default_rng(3)
    scores, candidates = random.standard_normal(40), random.standard_normal(60)
    wanted = decisions(static_conformal(0.4, side, size=40), scores, candidates)
    assert 0 < wanted.sum() < 60
    np.testing.assert_array_equal(decisions(static_conformal(0.4, side, size=40), scores[::-1], candidates), wanted)
    np.testing.assert_array_equal(decisions(static_conformal(0.4, side, size=99), scores, candidates), wanted)
    perplexity = [-np.exp(-values) for values in (scores, candidates)]  # from likelihood to minus perplexity
    np.testing.assert_array_equal(decisions(static_conformal(0.4, side, size=40), *perplexity), wanted)


@pytest.mark.parametrize("side", SIDES)
def test_rates_of_zero_and_one_and_an_empty_bank(side):
    scores, candidates = [1.0, 1.0, 2.0], [-5.0, 1.0, 9.0, np.nan]
    for draw in (0.0, 1.0 - 2.0**-24):
        assert not decisions(static_conformal(0.0, side), scores, candidates, draw).any()
        assert decisions(static_conformal(1.0, side), scores, candidates, draw).all()
    empty = {"at_most": [False, False], "at_least": [True, True], "exact": [True, False], "released": [True, True]}
    found = [decisions(static_conformal(0.4, side), [], [0.0], draw)[0] for draw in (0.39, 0.41)]
    assert found == empty[side]


@pytest.mark.parametrize("side", SIDES)
def test_a_score_that_is_no_number_is_worst(side):
    calibrator = static_conformal(0.4, side)
    assert decisions(calibrator, np.arange(9), [np.nan, np.inf, -np.inf, -1.0, 20.0]).tolist() == [True] * 4 + [False]
    # In calibration too: with eight failures of nine the only number is better than the rest.
    assert not decisions(calibrator, [np.inf] * 8 + [0.0], [1.0])[0]
    state = calibrator.init()
    state = compiled.observe(
        calibrator,
        state,
        jnp.array([jnp.nan, 1.0, jnp.inf]),
        jnp.zeros((3,), jnp.int32),
        jnp.array([True, False, True]),
    )
    assert [int(field[0]) for field in state.tally] == [3, 2, 2]


def test_groups_and_questions_are_calibrated_apart():
    grouped = static_conformal(0.4, groups=2, size=10)
    scores, group = jnp.arange(20.0), jnp.arange(20) // 10
    state = grouped.calibrate(scores, group)
    # Nine is the best of group 0 and below all of group 1; groups out of range are the nearest.
    found = compiled.decide(grouped, state, jnp.full((4,), 9.5), jnp.array([0, 1, -3, 7]))
    assert found.tolist() == [False, True, False, True]

    conditional = static_conformal(0.4, groups=2, size=10, mode="conditional", questions=3)
    state = conditional.calibrate(scores, jnp.zeros((20,), jnp.int32), question=2 * group)
    found = compiled.decide(
        conditional, state, jnp.full((4,), 9.5), jnp.array([0, 0, 0, 1]), question=jnp.array([0, 2, 1, 2])
    )
    assert found.tolist() == [False, True, False, False]  # question 1 and turn 1 were not calibrated
    p = compiled.p_values(conditional, state, jnp.array([9.5, 9.5]), jnp.array([0, 0]), question=jnp.array([0, 2]))
    np.testing.assert_allclose(p, [1 / 11, 1.0])


@pytest.mark.parametrize("settings", [{}, {"cluster_size": 2}, {"mode": "conditional", "questions": 2}])
def test_a_state_knows_whether_it_is_calibrated(settings):
    calibrator = static_conformal(0.4, size=4, groups=2, **settings)
    assert not calibrator.is_calibrated(None) and not calibrator.is_calibrated(calibrator.init())
    one = jnp.array([1.0]), jnp.array([1]), jnp.array([1])
    assert calibrator.is_calibrated(calibrator.calibrate(*one))
    assert not calibrator.is_calibrated(calibrator.calibrate(*(field[:0] for field in one)))


def test_decisions_do_not_teach_it():
    calibrator = static_conformal(0.4, size=4)
    state = calibrator.calibrate(jnp.arange(4.0), jnp.zeros((4,), jnp.int32))
    after = compiled.observe(calibrator, state, jnp.array([9.0]), jnp.array([0]), jnp.array([False]))
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.array_equal(a, b), state.bank, after.bank))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reject_rate": 1.2}, r"reject_rate=1.2 is outside \[0, 1\]"),
        ({"reject_rate": -0.1}, "reject_rate=-0.1"),
        ({"reject_rate": float("nan")}, "reject_rate=nan"),
        ({"side": "below"}, "side='below'"),
        ({"mode": "joint"}, "mode='joint'"),
        ({"mode": "conditional"}, "questions="),
        ({"questions": 4}, "questions=4"),
        ({"mode": "conditional", "questions": 4, "cluster_size": 2}, "cluster_size=2"),
        ({"size": 0}, "size=0"),
        ({"groups": 0}, "groups=0"),
        ({"cluster_size": 30}, "cluster_size=30"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        static_conformal(**arguments)


def test_bad_scores():
    calibrator = static_conformal(0.4, size=4)
    with pytest.raises(ValueError, match="5 calibration scores"):
        calibrator.calibrate(jnp.arange(5.0), jnp.zeros((5,), jnp.int32))
    zeros = jnp.zeros((3,), jnp.int32)
    by_question = static_conformal(0.4, size=2, cluster_size=2)
    with pytest.raises(ValueError, match="3 calibration questions for cell 0, size=2"):
        by_question.calibrate(jnp.arange(3.0), zeros, jnp.array([0, -1, 4]))
    by_question.calibrate(jnp.arange(3.0), zeros, jnp.array([4, 4, 4]))  # as many of one question as have room
    conditional = static_conformal(0.4, mode="conditional", questions=2)
    for question in (-1, 2):
        with pytest.raises(ValueError, match=f"scores of question {question}, and .* within questions 0 to 1"):
            conditional.calibrate(jnp.arange(3.0), zeros, jnp.array([0, question, 1]))
    state = calibrator.init()
    with pytest.raises(ValueError, match="score has shape"):
        calibrator.decide(state, jnp.zeros((2, 2)), jnp.zeros((2,), jnp.int32))
    with pytest.raises(ValueError, match="group has shape"):
        calibrator.decide(state, jnp.zeros((2,)), jnp.zeros((3,), jnp.int32))
    with pytest.raises(ValueError, match="group has dtype"):
        calibrator.decide(state, jnp.zeros((2,)), jnp.zeros((2,)))
    with pytest.raises(ValueError, match="pass question"):
        by_question = static_conformal(0.4, size=4, cluster_size=2)
        by_question.decide(by_question.init(), jnp.zeros((1,)), jnp.array([0]))
    with pytest.raises(ValueError, match="escalate has dtype"):
        calibrator.observe(state, jnp.zeros((1,)), jnp.array([0]), jnp.array([1]))
    with pytest.raises(ValueError, match="tail='up'"):
        calibrator.p_values(state, jnp.zeros((1,)), jnp.array([0]), tail="up")
