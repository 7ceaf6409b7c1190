"""Cleaning and augmentation of trajectories, on the host (CLLM, arXiv 2403.00835, sections 3.1 and 4.1).

Shapes: B answers, L tokens, T blocks, n tokens a block.
"""

import numpy as np

from jaxspec.train.trajectories import Trajectories

REPEATS = 10  # a token said so often in a row marks an answer as degenerate


def longest_repetition(tokens: np.ndarray, start: np.ndarray, length: np.ndarray, period: int = 1) -> np.ndarray:
    """(B,) how many tokens in a row repeat the one `period` tokens before, at most, plus `period`.

    With period 1 this is the longest run of one token, with period p the longest stretch made of one phrase of p.

    Args:
      tokens: (B, L) int.
      start, length: (B,) where what counts begins and ends.
      period: tokens of a phrase.

    Raises:
      ValueError: `period` is below 1.
    """
    if period < 1:
        raise ValueError(f"period={period} is below 1; a phrase has at least one token")
    tokens = np.asarray(tokens)
    position = np.arange(tokens.shape[1])
    begin = np.asarray(start)[:, None] + period
    same = (position >= begin) & (position < np.asarray(length)[:, None])
    same[:, period:] &= tokens[:, period:] == tokens[:, :-period]
    reset = np.maximum.accumulate(np.where(same, -1, position), axis=1)  # the last place that repeats nothing
    run = np.where(same, position - reset, 0).max(axis=1, initial=0)
    answer = np.maximum(np.asarray(length) - np.asarray(start), 0)
    return np.where(run > 0, run + period, np.minimum(answer, period))


def clean(trajectories: Trajectories, repeats: int = REPEATS, longest_phrase: int = 1) -> tuple[Trajectories, int]:
    """The answers that do not repeat themselves, and how many were dropped.

    Args:
      trajectories: of B answers.
      repeats: an answer is dropped if a phrase stands there so often in a row.
      longest_phrase: phrases of 1 to so many tokens are looked for; 1 is the papers' rule.

    Raises:
      ValueError: `repeats` is below 2 or `longest_phrase` below 1.
    """
    if repeats < 2:
        raise ValueError(f"repeats={repeats} is below 2, which every answer reaches")
    if longest_phrase < 1:
        raise ValueError(f"longest_phrase={longest_phrase} is below 1; a phrase has at least one token")
    keep = np.ones(np.asarray(trajectories.length).shape, bool)
    for period in range(1, longest_phrase + 1):
        said = longest_repetition(trajectories.tokens, trajectories.prompt_length, trajectories.length, period)
        keep &= said < repeats * period
    return Trajectories(*(np.asarray(field)[keep] for field in trajectories)), int(np.sum(~keep))


def augment(states: np.ndarray, count: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """States with some right tokens put behind the first wrong one, where decoding finds them too.

    In every state but the last two, of m wrong tokens m // 2 are drawn, with replacement and never the first one,
    and overwritten by the right ones.

    Args:
      states: (..., K, n) int trajectories whose last state is the fixed point.
      count: (...) int states of each, at most K.
      random: source of the draws.

    Returns:
      (..., K, n) a copy.
    """
    states, count = np.asarray(states), np.asarray(count)
    block = states.shape[-1]
    fixed = np.take_along_axis(states, (count - 1)[..., None, None], axis=-2)
    wrong = states != fixed
    wrongs = wrong.sum(axis=-1)
    rank = np.cumsum(wrong, axis=-1) - 1  # 0 for the first wrong token
    early = np.arange(states.shape[-2]) < count[..., None] - 2
    put = np.zeros(states.shape, bool)
    for draw in range(block // 2):
        drawn = 1 + np.floor(random.random(wrongs.shape) * np.maximum(wrongs - 1, 0)).astype(rank.dtype)
        active = early & (draw < wrongs // 2)
        put |= active[..., None] & wrong & (rank == drawn[..., None])
    return np.where(put, fixed, states)
