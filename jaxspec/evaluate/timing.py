"""Interleaved timing: every variant once a round, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Timing(NamedTuple):
    """Attributes:
    median: seconds.
    spread: half the distance between the quartiles, relative to the median.
    """

    median: float
    spread: float


def interleaved(variants: Mapping[str, Callable[[], None]], *, rounds: int) -> dict[str, Timing]:
    """Runs every variant `rounds` times, after one round that is not counted.

    Args:
      variants: name to a function that returns when its work is done.
      rounds: at least 5, for medians that mean something.

    Raises:
      ValueError: fewer than 5 rounds.
    """
    if rounds < 5:
        raise ValueError(f"rounds={rounds} is below 5, too few for a median")
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_index in range(rounds + 1):
        for name, run in variants.items():
            begun = time.perf_counter()
            run()
            if round_index:
                seconds[name].append(time.perf_counter() - begun)
    return {name: _summary(times) for name, times in seconds.items()}


def _summary(times: list[float]) -> Timing:
    low, middle, high = statistics.quantiles(times, n=4)
    return Timing(middle, (high - low) / 2 / middle)
