import fractions
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformal import compiled

from jaxspec.conformal import adaptive_conformal, static_conformal

STEPS = 2000


def streams():
    """Scores no calibration foresees, (STEPS,) each."""
    random = np.random.default_rng(0)
    normal = random.standard_normal(STEPS)
    index = np.arange(STEPS)
    return {
        "constant": np.zeros(STEPS),
        "ramp": normal - index / 100,
        "rising": index.astype(float),
        "step": normal - 3 * (index >= STEPS // 2),
        "alternating": np.where(index % 2 == 0, -5.0, 5.0),
        "no_numbers": np.full(STEPS, np.nan),
    }


@functools.partial(jax.jit, static_argnums=0)
def run(calibrator, state, score, group):
    """Decisions (T, B) on scores and groups (T, B)."""

    def tick(state, lane):
        escalate = compiled.decide(calibrator, state, *lane)
        return compiled.observe(calibrator, state, *lane, escalate), escalate

    return jax.lax.scan(tick, state, (score, group))


def decisions(calibrator, score, group=None, state=None, lanes=1):
    score = jnp.asarray(score, jnp.float32).reshape(-1, lanes)
    group = jnp.zeros(score.shape, jnp.int32) if group is None else jnp.asarray(group, jnp.int32).reshape(-1, lanes)
    _, escalate = run(calibrator, calibrator.init() if state is None else state, score, group)
    return np.asarray(escalate).reshape(-1)


@pytest.mark.parametrize("name", streams())
@pytest.mark.parametrize(("gamma", "lanes"), [(0.05, 1), (0.005, 1), (0.05, 20)])
def test_the_bound_holds_on_every_stream_without_tolerance(name, gamma, lanes):
    """At every time, in whole numbers; also when many lanes decide at once."""
    escalate = decisions(adaptive_conformal(0.4, gamma, size=256), streams()[name], lanes=lanes)
    rate, step = fractions.Fraction(2, 5), fractions.Fraction(str(gamma))
    bound = (1 - rate + step) / step
    total = np.arange(1, STEPS + 1)
    assert np.all(np.abs(5 * np.cumsum(escalate) - 2 * total) <= int(5 * bound))


def test_static_calibration_fails_where_the_bound_holds():
    score = streams()["step"]
    static = static_conformal(0.4, size=500)
    state = static.calibrate(jnp.asarray(score[:500], jnp.float32), jnp.zeros((500,), jnp.int32))
    assert abs(decisions(static, score, state=state).mean() - 0.4) > 0.05
    adaptive = adaptive_conformal(0.4, 0.05)
    assert abs(decisions(adaptive, score).mean() - 0.4) <= adaptive.deviation_bound(STEPS) < 0.01


@pytest.mark.parametrize("shared_gamma", [None, 0.0, 1.0])
def test_the_bound_holds_in_every_group(shared_gamma):
    calibrator = adaptive_conformal(0.35, 0.05, groups=4, size=64, shared_gamma=shared_gamma)
    random = np.random.default_rng(1)
    group = random.integers(0, 4, STEPS)
    score = random.standard_normal(STEPS) - 2.0 * group * (np.arange(STEPS) % 700 > 350)
    escalate = decisions(calibrator, score, group)
    for number in range(4):
        mine = escalate[group == number]
        rates = np.cumsum(mine) / np.arange(1, len(mine) + 1)
        bound = np.array([calibrator.deviation_bound(count) for count in range(1, len(mine) + 1)])
        assert np.all(np.abs(rates - 0.35) <= bound + 1e-12)


@pytest.mark.parametrize("name", ["step", "ramp", "constant"])
def test_decaying_steps_keep_their_bound_and_settle(name):
    calibrator = adaptive_conformal(0.4, 0.5, decay=0.6, size=256)
    escalate = decisions(calibrator, streams()[name])
    total = np.arange(1, STEPS + 1)
    bound = np.array([calibrator.deviation_bound(count) for count in total.tolist()])
    assert np.all(np.abs(np.cumsum(escalate) / total - 0.4) <= bound + 1e-12)
    assert bound[-1] < 0.2

    def levels(calibrator, score):
        def tick(state, value):
            group = jnp.zeros((1,), jnp.int32)
            escalate = compiled.decide(calibrator, state, value, group)
            return compiled.observe(calibrator, state, value, group, escalate), calibrator.levels(state)[0]

        return jax.jit(lambda score: jax.lax.scan(tick, calibrator.init(), score)[1])(score)

    calm = jnp.asarray(np.random.default_rng(3).standard_normal((STEPS, 1)), jnp.float32)
    settled, restless = levels(calibrator, calm)[1000:], levels(adaptive_conformal(0.4, 0.5), calm)[1000:]
    assert float(settled.std()) < 0.3 * float(restless.std())


@pytest.mark.parametrize("decay", [0.0, 0.6])
def test_lanes_at_once_decide_as_one_after_the_other(decay):
    """With nothing to learn from each other: the bank is full, the draws the same."""
    calibrator = adaptive_conformal(0.4, 0.3, groups=2, bank="growing", size=2, decay=decay)
    random = np.random.default_rng(4)
    decide, observe = jax.jit(calibrator.decide), jax.jit(calibrator.observe)
    state = calibrator.init()
    first = jnp.array([-0.5, 0.5, -0.5, 0.5]), jnp.array([0, 0, 1, 1])
    state = compiled.observe(calibrator, state, *first, jnp.zeros((4,), bool))
    for _ in range(3):
        score = jnp.asarray(random.standard_normal(10), jnp.float32)
        group = jnp.asarray(random.integers(0, 2, 10))
        draw, live = jnp.asarray(random.random(10), jnp.float32), jnp.asarray(random.random(10) < 0.7)
        together = decide(state, score, group, live, uniform=draw)
        after = observe(state, score, group, together, live)
        single = []
        for lane in np.flatnonzero(live):
            at = slice(lane, lane + 1)
            escalate = decide(state, score[at], group[at], uniform=draw[at])
            state = observe(state, score[at], group[at], escalate)
            single.append(bool(escalate[0]))
        assert np.asarray(together)[np.asarray(live)].tolist() == single
        assert not np.asarray(together)[~np.asarray(live)].any()
        np.testing.assert_array_equal(after.deficit, state.deficit)
        np.testing.assert_array_equal(after.ranks.tally.decisions, state.ranks.tally.decisions)


def test_levels_start_at_the_rate_and_follow_what_was_done():
    calibrator = adaptive_conformal(0.4, 0.05, groups=2, shared_gamma=0.0)
    state = calibrator.init()
    np.testing.assert_allclose(calibrator.levels(state), [0.4, 0.4])
    state = compiled.observe(
        calibrator,
        state,
        jnp.zeros((3,)),
        jnp.array([0, 0, 1]),
        jnp.array([True, False, False]),
        jnp.array([True, True, True]),
    )
    np.testing.assert_allclose(calibrator.levels(state), [0.4 + 0.05 * (0.8 - 1), 0.4 + 0.05 * 0.4], rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("done", [False, True])
def test_decisions_long_overruled_are_not_made_up_for_at_length(done, decay):
    """A thousand drafts of the middle that all stayed, or were all handed over, whatever was decided."""
    calibrator = adaptive_conformal(0.4, 0.05, decay=decay)
    score = jnp.tile(jnp.linspace(-1.0, 1.0, 50), 20)
    group = jnp.zeros(score.shape, jnp.int32)

    def overruled(state, lane):
        score, group = lane
        return compiled.observe(calibrator, state, score[None], group[None], jnp.array([done])), None

    state, _ = jax.jit(lambda: jax.lax.scan(overruled, calibrator.init(), (score, group)))()
    level = float(calibrator.levels(state)[0])
    assert level <= -0.02 if done else level >= 1.0
    extreme = jnp.full((40, 1), -2.0 if done else 2.0), jnp.zeros((40, 1), jnp.int32)  # stay, and go over, at last
    decided = np.asarray(run(calibrator, state, *extreme)[1]).ravel()
    assert decided[0] != done and (decided == done)[:8].any()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_of_zero_and_one(rate):
    assert (decisions(adaptive_conformal(rate, 0.05), streams()["step"][:200]) == bool(rate)).all()


def test_in_a_while_loop():
    calibrator = adaptive_conformal(0.4, 0.05, size=32)
    score = jnp.asarray(streams()["step"], jnp.float32)

    def body(carry):
        step, state = carry
        lane = jax.lax.dynamic_slice(score, (step,), (1,)), jnp.zeros((1,), jnp.int32)
        return step + 1, compiled.observe(calibrator, state, *lane, compiled.decide(calibrator, state, *lane))

    _, state = jax.lax.while_loop(lambda carry: carry[0] < STEPS, body, (jnp.int32(0), calibrator.init()))
    assert int(state.ranks.tally.decisions[0]) == STEPS
    assert abs(float(state.ranks.tally.rate[0]) - 0.4) <= calibrator.deviation_bound(STEPS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reject_rate": 2}, "reject_rate=2"),
        ({"gamma": 0.0}, "gamma=0.0"),
        ({"gamma": float("nan")}, "gamma=nan"),
        ({"shared_gamma": -1.0}, "shared_gamma=-1.0"),
        ({"decay": 1.0}, "decay=1.0"),
        ({"reject_rate": 0.1234, "gamma": 1e-6, "groups": 1000}, "32 bits"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        adaptive_conformal(**arguments)


def test_a_bound_needs_a_decision():
    with pytest.raises(ValueError, match="decisions=0"):
        adaptive_conformal().deviation_bound(0)
