import math
import statistics

import numpy as np
import pytest

from jaxspec.conformal import coverage_report
from jaxspec.conformal.rate_intervals import binomial_interval, cluster_interval


def test_counts():
    escalate = np.array([[1, 0, 1], [1, 1, 0]], bool)
    group = np.array([[0, 0, 2], [2, 2, 0]])
    live = np.array([[1, 1, 1], [1, 0, 1]], bool)
    report = coverage_report(escalate, 0.5, group, live=live, window=2)
    assert (report.overall.decisions, report.overall.escalations, report.overall.rate) == (5, 3, 0.6)
    assert {number: found.rate for number, found in report.groups.items()} == {0: 1 / 3, 2: 1.0}
    np.testing.assert_allclose(report.rolling, [0.5, 0.5, 1.0, 0.5])  # decisions 1 0 1 1 0
    assert math.isclose(report.overall_deviation, 0.1)
    assert (report.group_deviation, report.rolling_deviation) == (0.5, 0.5)
    assert report.overall.cluster is None
    for window in (7, None):  # longer than the run, and of decisions in no order
        assert math.isnan(coverage_report(escalate, 0.5, window=window).rolling_deviation)


def test_wilson_interval_solves_the_score_equation():
    z = statistics.NormalDist().inv_cdf(0.975)
    for hits, total in ((0, 10), (3, 10), (40, 100), (10, 10)):
        interval = binomial_interval(hits, total)
        rate = hits / total
        for end in (interval.low, interval.high):
            if 1e-9 < end < 1 - 1e-9:
                assert math.isclose(abs(rate - end), z * math.sqrt(end * (1 - end) / total), rel_tol=1e-9)
        assert interval.low <= rate + 1e-12 and rate <= interval.high + 1e-12
    assert 0.4 in binomial_interval(40, 100)
    assert 0.6 not in binomial_interval(40, 100)


def test_cluster_intervals_cover_where_binomial_ones_do_not():
    random = np.random.default_rng(0)
    trials, questions, samples = 1000, 20, 16
    hits = {"binomial": 0, "cluster": 0}
    for _ in range(trials):
        score = np.sqrt(0.6) * random.standard_normal((questions, 1))
        score = score + np.sqrt(0.4) * random.standard_normal((questions, samples))
        escalate = (score < statistics.NormalDist().inv_cdf(0.4)).reshape(-1)
        question = np.repeat(np.arange(questions), samples)
        hits["binomial"] += 0.4 in binomial_interval(int(escalate.sum()), escalate.size)
        hits["cluster"] += 0.4 in cluster_interval(escalate, question)
    assert hits["binomial"] / trials < 0.7
    assert abs(hits["cluster"] / trials - 0.95) < 0.03


def test_students_quantiles():
    table = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 10: 2.228, 60: 2.000}
    for freedom, quantile in table.items():
        escalate = np.arange(freedom + 1) < 1  # one decision a question
        found = cluster_interval(escalate, np.arange(freedom + 1), 0.95)
        rate = escalate.mean()
        error = math.sqrt(rate * (1 - rate) / freedom)
        assert found.high == pytest.approx(min(1.0, rate + quantile * error), rel=5e-3)
    assert cluster_interval(np.array([True, False]), np.array([3, 3])) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"escalate": []}, "no decisions"),
        ({"group": [0, 1]}, r"group has shape \(2,\)"),
        ({"question": [0]}, "question has shape"),
        ({"live": [True]}, "live has shape"),
        ({"reject_rate": 1.5}, "reject_rate=1.5"),
        ({"window": 0}, "window=0"),
        ({"confidence": 1.0}, "confidence=1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        coverage_report(**({"escalate": [True, False, True], "reject_rate": 0.4} | arguments))
