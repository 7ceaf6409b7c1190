"""Collapse is noticed, a dip is not, and the message says what happened."""

import pytest

from jaxspec.train.monitors import CollapseLimits, CollapseMonitor, repetition_rate

LIMITS = CollapseLimits(accuracy_drop=0.2, repetition_rise=0.3, start=2, patience=3)


def metrics_of(accuracies, repetitions=None):
    repetitions = [0.1] * len(accuracies) if repetitions is None else repetitions
    return [
        {"ar_accuracy": accuracy, "repetition": repetition, "data_repetition": 0.05, "loss": 1.0}
        for accuracy, repetition in zip(accuracies, repetitions, strict=True)
    ]


def run(accuracies, repetitions=None):
    """What a monitor says step by step."""
    monitor = CollapseMonitor(LIMITS)
    return [monitor(step, metrics) for step, metrics in enumerate(metrics_of(accuracies, repetitions))]


def test_a_lasting_fall_of_accuracy_stops_training():
    *before, last = run([0.8, 1.0, 0.9, 0.6, 0.6, 0.6])
    assert before == [None] * 5
    assert "fell from 0.900 to 0.600 and stayed below 0.700 for 3 observations up to step 5" in last
    assert "raise ar_weight" in last


def test_a_dip_does_not():
    assert run([0.9, 0.9, 0.6, 0.6, 0.8, 0.6, 0.6]) == [None] * 7
    assert run([0.9, 0.9] + [0.71] * 20) == [None] * 22


def test_lasting_repetition_stops_training():
    *before, last = run([0.9] * 4, [0.1, 0.6, 0.6, 0.6])
    assert before == [None] * 3
    assert last.startswith("60.0% of neighbouring tokens") and "5.0% in the answers, for 3 observations" in last
    assert run([0.9] * 5, [0.6, 0.6, 0.3, 0.6, 0.6]) == [None] * 5


def test_nan_is_bad():
    assert "accuracy" in run([0.9, 0.9] + [float("nan")] * 3)[-1]
    assert "repetition" in run([0.9] * 5, [0.1, 0.1] + [float("nan")] * 3)[-1]


def test_a_resumed_run_goes_on_from_its_history():
    metrics = metrics_of([0.8, 1.0, 0.9, 0.6, 0.6, 0.6])
    monitor = CollapseMonitor(LIMITS, enumerate(metrics[:5]))
    assert monitor(5, metrics[5]) == run([0.8, 1.0, 0.9, 0.6, 0.6, 0.6])[-1] is not None
    assert CollapseMonitor(LIMITS)(5, metrics[5]) is None


def test_free_answers_of_one_token_stop_training_at_the_second_look():
    *_, metrics = metrics_of([0.9])
    base = metrics | {"base_repetition": 0.25}
    shares = [0.75, 1.0, None, 0.75, 1.0, None, 1.0]  # None: no answers were written at this step
    monitor = CollapseMonitor(LIMITS)
    said = [
        monitor(step, metrics if share is None else base | {"held_out_repetition": share})
        for step, share in enumerate(shares, 1)
    ]
    assert said[:-1] == [None] * 6
    assert said[-1].startswith("100.0% of the answers at step 7 say one token 10 times in a row or more, against 25.0%")


def test_repetition_rate_of_answers():
    answers = [[2, 2, 2, 3], [2, 2, 1, 3], [2, 3, 4, 5], []]
    assert repetition_rate(answers, repeats=3) == 0.25
    assert repetition_rate(answers, repeats=2) == 0.5
    assert repetition_rate([]) == 0.0


@pytest.mark.parametrize("change", [{"accuracy_drop": 0.0}, {"repetition_rise": 1.5}, {"start": 0}, {"patience": 0}])
def test_bad_limits_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        CollapseLimits(**change)
