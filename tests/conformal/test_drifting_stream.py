"""What each calibrator makes of a stream like the published one, where only the grand mean of a static rule holds."""

import functools
import itertools
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformal.drifting_stream import CORRELATION, TURN_RATES, drifting_stream

from jaxspec.conformal import adaptive_conformal, coverage_report, online_conformal, static_conformal

RATE = 0.4


@functools.partial(jax.jit, static_argnums=0)
def run(calibrator, state, score, group, question, live):
    def tick(state, lane):
        score, group, question, live = lane
        escalate = calibrator.decide(state, score, group, live, question)
        return calibrator.observe(state, score, group, escalate, live, question), escalate

    return jax.lax.scan(tick, state, (score, group, question, live))[1]


def report(calibrator, stream, lanes, state=None):
    """The stream dealt out to lanes, the last tick with idle ones."""
    count = len(stream.score)
    live = np.arange(-(-count // lanes) * lanes) < count
    fields = [np.pad(field, (0, len(live) - count)) for field in stream]
    fields = [jnp.asarray(field).reshape(-1, lanes) for field in [*fields, live]]
    escalate = run(calibrator, calibrator.init() if state is None else state, *fields)
    return coverage_report(escalate, RATE, fields[1], fields[2], fields[3])


def test_the_stream_has_the_published_parameters():
    stream = drifting_stream(0, questions=1000)
    low = NormalDist().inv_cdf(RATE)
    rates = [np.mean(stream.score[stream.turn == turn] < low) for turn in range(15)]
    np.testing.assert_allclose(rates, TURN_RATES, atol=0.05)
    assert (min(TURN_RATES), max(TURN_RATES)) == (0.28, 0.61)
    first = stream.score[stream.turn == 0].reshape(1000, 16)
    within = np.mean(np.var(first, axis=1, ddof=1))
    between = np.var(first.mean(axis=1), ddof=1) - within / 16
    assert abs(between / (between + within) - CORRELATION) < 0.03
    assert np.bincount(stream.turn).min() > 900


# Of clusters, banks and streams; clusters in larger banks take a while.
SIZES_AND_SEEDS = [
    pytest.param(cluster_size, size, seed, marks=pytest.mark.slow if cluster_size and (size, seed) != (128, 1) else ())
    for cluster_size, size, seed in itertools.product((None, 16), (128, 1024), (1, 2, 3))
]


@pytest.mark.parametrize("lanes", [1, 64])
@pytest.mark.parametrize("by_turn", [True, False])
@pytest.mark.parametrize(("cluster_size", "size", "seed"), SIZES_AND_SEEDS)
def test_adaptive_rates_hold_overall_by_turn_and_in_time(lanes, by_turn, cluster_size, size, seed):
    calibrator = adaptive_conformal(RATE, 0.05, groups=15, size=size, cluster_size=cluster_size)
    found = report(calibrator, drifting_stream(seed, by_turn=by_turn), lanes)
    assert len(found.groups) == 15
    assert found.overall_deviation < 0.01
    assert found.group_deviation < 0.05
    assert found.rolling_deviation < 0.12


def test_static_rates_do_not_hold_by_turn_nor_in_time():
    stream = drifting_stream(1)
    first = stream.score[stream.turn == 0]
    calibrator = static_conformal(RATE, size=len(first))
    state = calibrator.calibrate(jnp.asarray(first), jnp.zeros(first.shape, jnp.int32))
    found = report(calibrator, stream, 64, state)
    assert found.overall_deviation < 0.06
    assert found.group_deviation > 0.1
    assert found.rolling_deviation > 0.3


def test_by_turn_online_banks_mend_turns_but_not_stretches():
    stream = drifting_stream(1)
    one, by_turn = (report(online_conformal(RATE, groups=groups), stream, 64) for groups in (1, 15))
    assert by_turn.group_deviation < 0.1 < one.group_deviation
    assert by_turn.rolling_deviation > 0.3


def test_within_questions_rates_hold_by_question():
    """Only ranks within the question give every question its share."""
    stream = drifting_stream(1)
    stream = type(stream)(*(field[stream.turn == 0] for field in stream))
    pooled = report(online_conformal(RATE), stream, 1)
    within = report(online_conformal(RATE, mode="conditional", questions=100, size=16), stream, 1)

    def spread(calibrator):
        state = calibrator.init()
        fields = [jnp.asarray(field)[:, None] for field in stream]
        escalate = run(calibrator, state, *fields, jnp.ones((len(stream.score), 1), bool))
        return np.std(np.asarray(escalate).reshape(100, 16).mean(axis=1))

    assert abs(within.overall.rate - RATE) < 3 * np.sqrt(0.24 / within.overall.decisions)
    assert within.overall.decisions == pooled.overall.decisions == 1600
    assert spread(online_conformal(RATE, mode="conditional", questions=100, size=16)) < 0.14
    assert spread(online_conformal(RATE)) > 0.25
