"""Fast-forwarded and stationary tokens of Jacobi trajectories, by the definitions of CLLM (arXiv 2403.00835).

A trajectory is the iterates y^(0), y^(1), ... of one block of n tokens up to its fixed point y*, which is its last
iterate; repeating the fixed point at the end, to fill a buffer, changes nothing here. All functions take any number of
leading axes and work in NumPy.

n tokens a block, T iterates, ... any leading axes.
"""

from typing import NamedTuple

import numpy as np


class TrajectoryStatistics(NamedTuple):
    """Means over the blocks of a request, then over requests, as the paper has them.

    Attributes:
      requests: with at least one block.
      blocks: of all requests.
      tokens_per_forward: tokens of all blocks by target passes of all blocks, those that verify included.
      iterations: until the fixed point stood, a block.
      fast_forwarded: tokens that came right in a row, an iteration. Blocks that were right from the start have no
        iteration and do not count; NaN if there are no others.
      stationary: tokens a block that stood right before all tokens in front of them did.
    """

    requests: int
    blocks: int
    tokens_per_forward: float
    iterations: float
    fast_forwarded: float
    stationary: float


def settled(iterates: np.ndarray) -> np.ndarray:
    """(..., n) int: first iteration from which on a token equals the fixed point's, tau.

    Args:
      iterates: (..., T, n).
    """
    right = iterates == iterates[..., -1:, :]
    for_good = np.logical_and.accumulate(right[..., ::-1, :], axis=-2)
    return iterates.shape[-2] - np.sum(for_good, axis=-2)


def reached(iterates: np.ndarray) -> np.ndarray:
    """(..., n) int: iteration at which a token and all before it are right for good, pi.

    Args:
      iterates: (..., T, n).
    """
    return np.maximum.accumulate(settled(iterates), axis=-1)


def right_in_a_row(iterates: np.ndarray) -> np.ndarray:
    """(..., T) int: tokens right from the block's start on, in every iterate.

    Args:
      iterates: (..., T, n).
    """
    right = iterates == iterates[..., -1:, :]
    return np.sum(np.logical_and.accumulate(right, axis=-1), axis=-1)


def fast_forwarded(iterates: np.ndarray) -> np.ndarray:
    """(...,) float: tokens an iteration by which the right prefix grew, the first of them included.

    Without any acceleration this is 1: every iteration makes the token behind the right prefix right. NaN where the
    initial tokens are the fixed point, since there is no iteration.

    Args:
      iterates: (..., T, n).
    """
    iterations = np.max(settled(iterates), axis=-1)
    gained = iterates.shape[-1] - right_in_a_row(iterates)[..., 0]
    return np.where(iterations > 0, gained / np.maximum(iterations, 1), np.nan)


def fast_forwarded_tokens(iterates: np.ndarray) -> np.ndarray:
    """(..., n) bool: tokens that joined the right prefix in one iteration with the token before them, or needed none.

    Args:
      iterates: (..., T, n).
    """
    joined = reached(iterates)
    before = np.concatenate([np.zeros_like(joined[..., :1]), joined[..., :-1]], axis=-1)
    return joined == before


def stationary_tokens(iterates: np.ndarray) -> np.ndarray:
    """(..., n) bool: tokens that stood right while one before them was still wrong, tau < pi.

    Args:
      iterates: (..., T, n).
    """
    return settled(iterates) < reached(iterates)


def summary(iterates: np.ndarray, passes: np.ndarray) -> TrajectoryStatistics:
    """Statistics of recorded trajectories.

    Args:
      iterates: (B, K, T, n), K blocks a request.
      passes: (B, K) target passes each block took; 0 where there is no block.

    Raises:
      ValueError: there is no block at all, or the shapes do not fit.
    """
    if iterates.ndim != 4 or passes.shape != iterates.shape[:2]:
        raise ValueError(
            f"iterates of shape {iterates.shape} and passes of shape {passes.shape} do not fit; "
            "they must be (B, K, T, n) and (B, K)"
        )
    present = passes > 0
    if not present.any():
        raise ValueError("passes holds no block with a pass; record at least one block")
    iterations = np.max(settled(iterates), axis=-1)
    return TrajectoryStatistics(
        requests=int(np.sum(present.any(axis=1))),
        blocks=int(np.sum(present)),
        tokens_per_forward=float(np.sum(present) * iterates.shape[-1] / np.sum(passes)),
        iterations=_mean_of_means(iterations, present),
        fast_forwarded=_mean_of_means(fast_forwarded(iterates), present & (iterations > 0)),
        stationary=_mean_of_means(np.sum(stationary_tokens(iterates), axis=-1), present),
    )


def _mean_of_means(values: np.ndarray, present: np.ndarray) -> float:
    """Mean over rows of the mean over what is `present` in a row; rows without anything do not count."""
    count = np.sum(present, axis=1)
    if not count.any():
        return float("nan")
    sums = np.sum(np.where(present, values, 0.0), axis=1)
    return float(np.mean(sums[count > 0] / count[count > 0]))
