"""Batches for consistency training by step number: which answers, and which state of every block.

A batch depends on the data, the settings and the step alone, so that training resumes where it stopped.

Shapes: B answers a batch, L tokens, R noisy streams, T blocks, n tokens a block.
"""

import dataclasses
import functools

import numpy as np

from jaxspec.train.augment import augment
from jaxspec.train.consistency import ConsistencyBatch
from jaxspec.train.noise_schedule import MEASURES, ORDERS, noise_ratios, scheduled_states, uniform_states
from jaxspec.train.random_blocks import random_blocks
from jaxspec.train.trajectories import INITIAL, Trajectories

KINDS = ("uniform", "progressive", "initial")


@dataclasses.dataclass(frozen=True)
class StateChoice:
    """Attributes:
    kind: `uniform` over the states before the fixed point (CLLM), `progressive` by the noise schedule (Jacobi
      Forcing), or `initial`, the random start alone.
    order, window, highest, measure: of the schedule; see `noise_schedule`.
    random_share: share of blocks that, instead, hold fresh random tokens; 1 is the control without trajectories.
    random_source: `prompt` draws those from the text before the block, `vocabulary` from all ids, `repeat` repeats
      the token before the block.
    known_first: fresh random blocks begin with the right token, as in decoding.
    augmented: put right tokens behind the first wrong one; see `augment`.
    """

    kind: str = "uniform"
    order: str = "linear"
    window: int = 16
    highest: float | None = None
    measure: str = "prefix"
    random_share: float = 0.0
    random_source: str = "prompt"
    known_first: bool = False
    augmented: bool = False

    def __post_init__(self) -> None:
        choices = {"kind": KINDS, "order": ORDERS, "measure": MEASURES, "random_source": INITIAL}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(allowed)}")
        if not 0 <= self.random_share <= 1:
            raise ValueError(f"random_share={self.random_share} is no share; choose between 0 and 1")
        noise_ratios("linear", self.window, 1, highest=self.highest)  # raises


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryBatches:
    """Every answer once an epoch, in an order of the epoch's own. Build it with `trajectory_batches`.

    Attributes:
      trajectories: NumPy arrays.
      vocabulary: ids.
      batch_size: B.
      choice: of states.
      teacher: `global` or `local`, as in the objective; the local loss also needs the state after the chosen one.
      seed: of all draws.
    """

    trajectories: Trajectories
    vocabulary: int
    batch_size: int
    choice: StateChoice
    teacher: str
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches until every answer has been seen, rounded up."""
        return -(-len(self.trajectories.tokens) // self.batch_size)

    def batch(self, step: int) -> ConsistencyBatch:
        """Batch number `step`, from 0 on."""
        rows = self._rows(step)
        part = Trajectories(*(np.asarray(field)[rows] for field in self.trajectories))
        random = np.random.default_rng((self.seed, 1, step))
        states, count = np.asarray(part.states), np.asarray(part.count)
        blocks, _, block = states.shape[1:]
        chosen = self._choose(part, random)
        early = augment(states, count, random) if self.choice.augmented else states
        noisy = _take(early, chosen)
        if self.choice.random_share > 0:
            fresh = random_blocks(
                part.tokens,
                part.prompt_length,
                part.length,
                blocks,
                block,
                vocabulary=self.vocabulary,
                source=self.choice.random_source,
                random=random,
                known_first=self.choice.known_first,
            )
            replaced = random.random(count.shape) < self.choice.random_share
            noisy = np.where(replaced[..., None], fresh, noisy)
        streams = [noisy]
        if self.teacher == "local":
            streams.append(_take(states, np.minimum(chosen + 1, count - 1)))
        return ConsistencyBatch(
            np.asarray(part.tokens, np.int32),
            np.asarray(part.prompt_length, np.int32),
            np.asarray(part.length, np.int32),
            np.asarray(part.prompt_length, np.int32),
            np.stack(streams, axis=1).astype(np.int32),
        )

    def _rows(self, step: int) -> np.ndarray:
        examples = len(self.trajectories.tokens)
        place = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(place, examples)
        return np.array([_order(self.seed, int(e), examples)[at] for e, at in zip(epochs, places, strict=True)])

    def _choose(self, part: Trajectories, random: np.random.Generator) -> np.ndarray:
        choice, count = self.choice, np.asarray(part.count)
        if choice.kind == "initial":
            return np.zeros(count.shape, np.int64)
        if choice.kind == "uniform":
            return uniform_states(count, random)
        lanes, blocks = count.shape
        ratios = np.stack(
            [noise_ratios(choice.order, choice.window, blocks, random, highest=choice.highest) for _ in range(lanes)]
        )
        return scheduled_states(part.states, count, _sizes(part), ratios, choice.measure)


def trajectory_batches(
    trajectories: Trajectories,
    vocabulary: int,
    batch_size: int,
    *,
    choice: StateChoice | None = None,
    teacher: str = "global",
    seed: int = 0,
) -> TrajectoryBatches:
    """Batches of `trajectories` for the objective of `consistency`.

    Args:
      trajectories: see `shards.read_shards`.
      vocabulary: ids of the model.
      batch_size: answers a batch.
      choice: of states; None for CLLM's.
      teacher: as in the objective.
      seed: of all draws.

    Raises:
      ValueError: no data, ids outside the vocabulary, a batch size below 1, or fresh random blocks with the local
        loss, which knows no state after them.
    """
    choice = StateChoice() if choice is None else choice
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is below 1; a batch holds at least one answer")
    if len(trajectories.tokens) == 0:
        raise ValueError("there are no trajectories to train on; collect some first")
    highest = max(int(np.max(trajectories.tokens)), int(np.max(trajectories.states)))
    if highest >= vocabulary:
        raise ValueError(
            f"the trajectories hold id {highest}, outside the vocabulary of {vocabulary} ids; collect them with the "
            "model to train"
        )
    if teacher not in ("global", "local"):
        raise ValueError(f"teacher={teacher!r} is unknown; choose global or local")
    if teacher == "local" and choice.random_share > 0:
        raise ValueError(
            f"random_share={choice.random_share} needs teacher='global': no state is known after fresh random tokens"
        )
    return TrajectoryBatches(trajectories, vocabulary, batch_size, choice, teacher, seed)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, examples: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(examples)


def _take(states: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(B, T, n) state number `chosen` (B, T) of every block."""
    return np.take_along_axis(states, chosen[..., None, None], axis=2)[:, :, 0]


def _sizes(part: Trajectories) -> np.ndarray:
    """(B, T) answer tokens in every block."""
    blocks, _, block = np.asarray(part.states).shape[1:]
    answer = np.asarray(part.length) - np.asarray(part.prompt_length)
    return np.clip(answer[:, None] - np.arange(blocks) * block, 0, block)
