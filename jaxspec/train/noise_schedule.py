"""Which state of its trajectory every block is trained from: uniform, or by a progressive noise schedule.

Jacobi Forcing (arXiv 2512.14681, section 3.2, Eq. 7) gives block i the noise ratio `W[i mod w]` with
W = (0, 1/w, ..., (w-1)/w), so that wrong tokens never stand in one long row, and picks the state of the trajectory
whose noise is closest to it.

Shapes: B answers, T blocks, K states, n tokens a block, w window.
"""

import numpy as np

ORDERS = ("linear", "reverse", "random")
MEASURES = ("prefix", "wrong")


def noise_ratios(
    order: str, window: int, blocks: int, random: np.random.Generator | None = None, *, highest: float | None = None
) -> np.ndarray:
    """(T,) share of every block that is to be noise.

    Args:
      order: `linear` rises through the window and starts again, `reverse` falls, `random` draws for every block.
      window: w.
      blocks: T.
      random: needed by `random` alone.
      highest: last ratio of the window; None for (w - 1) / w as in the paper. The released code takes 1.

    Raises:
      ValueError: an unknown order, a window below 1, or no generator for `random`.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order!r} is unknown; choose one of {', '.join(ORDERS)}")
    if window < 1:
        raise ValueError(f"window={window} is below 1; a schedule has at least one ratio")
    top = (window - 1) / window if highest is None else highest
    if not 0 <= top <= 1:
        raise ValueError(f"highest={top} is no ratio; choose between 0 and 1")
    ratios = np.linspace(0.0, top, window)
    if order == "random":
        if random is None:
            raise ValueError("order='random' needs a generator; pass random=np.random.default_rng(seed)")
        return ratios[random.integers(0, window, blocks)]
    step = np.arange(blocks) % window
    return ratios[step if order == "linear" else window - 1 - step]


def noise_of_states(states: np.ndarray, count: np.ndarray, size: np.ndarray, measure: str = "prefix") -> np.ndarray:
    """(B, T, K) how noisy every state is, from 0 for the fixed point to 1.

    Args:
      states: (B, T, K, n) int.
      count: (B, T) states of every trajectory; the last is the fixed point.
      size: (B, T) tokens of the answer in every block; what stands behind counts as right.
      measure: `prefix` is the share from the first wrong token on, as in the released code, `wrong` the share of
        wrong tokens, as in the paper's text.

    Raises:
      ValueError: an unknown measure.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r} is unknown; choose one of {', '.join(MEASURES)}")
    states, count, size = np.asarray(states), np.asarray(count), np.asarray(size)[..., None]
    fixed = np.take_along_axis(states, (count - 1)[..., None, None], axis=-2)
    wrong = states != fixed
    if measure == "wrong":
        noisy = wrong.sum(axis=-1)
    else:
        noisy = np.where(wrong.any(axis=-1), size - np.argmax(wrong, axis=-1), 0)
    return noisy / np.maximum(size, 1)


def scheduled_states(
    states: np.ndarray, count: np.ndarray, size: np.ndarray, ratios: np.ndarray, measure: str = "prefix"
) -> np.ndarray:
    """(B, T) int the state whose noise is closest to its block's ratio, the earliest of equals.

    Args:
      states, count, size, measure: see `noise_of_states`.
      ratios: (T,) or (B, T). For `wrong` they count whole tokens, rounded up: Eq. 7 of the paper.
    """
    noise = noise_of_states(states, count, size, measure)
    wanted = np.broadcast_to(ratios, np.asarray(count).shape)
    if measure == "wrong":
        whole = np.maximum(size, 1)
        wanted = np.ceil(np.round(wanted * whole, 9)) / whole  # 0.2 * 5 is above 1 in floating point
    distance = np.abs(noise - wanted[..., None])
    real = np.arange(noise.shape[-1]) < np.asarray(count)[..., None]
    return np.argmin(np.where(real, np.round(distance, 9), np.inf), axis=-1)


def uniform_states(count: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(B, T) int a state of every trajectory, uniformly, but not its fixed point unless there is nothing else."""
    count = np.asarray(count)
    return np.floor(random.random(count.shape) * np.maximum(count - 1, 1)).astype(np.int64)
