"""Interleaved timing: every variant once a round, so that a busy machine slows all of them alike."""

import functools
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)


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
    clocks = {name: functools.partial(_seconds_of, run) for name, run in variants.items()}
    return {name: _summary(times) for name, times in in_turns(clocks, rounds=rounds).items()}


def in_turns(clocks: Mapping[Key, Callable[[], float]], *, rounds: int) -> dict[Key, list[float]]:
    """What each of `clocks` reads in each of `rounds`, after one round that is not counted."""
    readings: dict[Key, list[float]] = {name: [] for name in clocks}
    for round_index in range(rounds + 1):
        for name, clock in clocks.items():
            reading = clock()
            if round_index:
                readings[name].append(reading)
    return readings


def _seconds_of(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _summary(times: list[float]) -> Timing:
    low, middle, high = statistics.quantiles(times, n=4)
    return Timing(middle, (high - low) / 2 / middle)
