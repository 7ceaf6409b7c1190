"""A round of collection with the model as it is now: plain answers, their trajectories, cleaned, into shards.

CLLM collects once with the base model; Jacobi Forcing (arXiv 2512.14681, section 4.1) trains, collects again with
the trained model and longer blocks, and trains on. A round is the same in both.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxspec.drafters.model_tables import fingerprint
from jaxspec.engine.generate import generate
from jaxspec.engine.request import encode_prompts
from jaxspec.models.language_model import LanguageModel
from jaxspec.train.augment import clean
from jaxspec.train.packing import Forward
from jaxspec.train.shards import Description, Manifest, concatenate, write_missing
from jaxspec.train.trajectories import Trajectories, check_geometry, collect


@dataclasses.dataclass(frozen=True)
class RoundSettings:
    """Attributes:
    block: tokens a block, n.
    blocks: most blocks an answer, T; answers are at most n * T tokens.
    lanes: answers collected at once.
    shard_prompts: prompts a shard.
    seed: of the random starts.
    initial, known_first: see `trajectories.collect`.
    repeats, longest_phrase: see `augment.clean`.
    stop_ids: ids that end an answer, besides the tokenizer's own.
    """

    block: int = 16
    blocks: int = 16
    lanes: int = 16
    shard_prompts: int = 512
    seed: int = 0
    initial: str = "prompt"
    known_first: bool = False
    repeats: int = 10
    longest_phrase: int = 1
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("block", "blocks", "lanes", "shard_prompts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1; a round needs at least one")
        if self.repeats < 2:
            raise ValueError(f"repeats={self.repeats} is below 2, which every answer reaches; the papers take 10")
        if self.longest_phrase < 1:
            raise ValueError(f"longest_phrase={self.longest_phrase} is below 1; a phrase has at least one token")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} is outside 0 to 2**32 - 1")


def on_policy_round(
    lm: LanguageModel,
    forward: Forward,
    prompts: Sequence[str | Sequence[int]],
    folder: str | Path,
    settings: RoundSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Answers every prompt plainly and greedily, and writes the trajectories of the answers.

    A round that was interrupted goes on where it stopped when it is called again with the same arguments.

    Args:
      lm: the model with its current weights; `dataclasses.replace(lm, params=params)` while training.
      forward: the same model on packed streams.
      prompts: texts or token ids.
      folder: of the shards; another one for every round.
      settings: None for the defaults.
      progress: called as `progress(finished shards, shards)`.

    Returns:
      The manifest; read the data with `shards.read_shards`.

    Raises:
      ValueError: no prompts, answers do not fit the model's context, or the folder holds the shards of other
        weights, prompts or settings.
    """
    settings = RoundSettings() if settings is None else settings
    encoded = encode_prompts(lm, prompts, chat=False)
    if not encoded:
        raise ValueError("there are no prompts to answer; give at least one")
    answer = settings.blocks * settings.block
    sequence = max(map(len, encoded)) + answer
    if sequence > lm.config.context:
        raise ValueError(
            f"the longest prompt and {settings.blocks} blocks of {settings.block} tokens take {sequence} tokens, but "
            f"{lm.name} reads {lm.config.context}; take fewer blocks or shorter prompts"
        )
    check_geometry(sequence, settings.blocks, settings.block, lm.config.vocabulary, settings.initial)
    deciding = {name: value for name, value in dataclasses.asdict(settings).items() if name != "lanes"}
    deciding["prompts"] = _digest(encoded)
    description = Description(
        model=fingerprint(lm),
        vocabulary=lm.config.vocabulary,
        block=settings.block,
        blocks=settings.blocks,
        sequence=sequence,
        settings=json.dumps(deciding, sort_keys=True),
    )

    def make(index: int) -> tuple[Trajectories, int]:
        first = index * settings.shard_prompts
        return _shard(lm, forward, encoded[first : first + settings.shard_prompts], first, sequence, settings)

    shards = -(-len(encoded) // settings.shard_prompts)
    return write_missing(folder, description, shards, make, progress)


def _shard(
    lm: LanguageModel,
    forward: Forward,
    prompts: Sequence[tuple[int, ...]],
    first: int,
    sequence: int,
    settings: RoundSettings,
) -> tuple[Trajectories, int]:
    """Trajectories of a few prompts, the first of which is request number `first`, and how many were dropped."""
    generation = generate(
        lm,
        prompts,
        max_new_tokens=settings.blocks * settings.block,
        stop_ids=settings.stop_ids,
        lanes=min(settings.lanes, len(prompts)),
    )
    lanes = settings.lanes
    padded = -(-len(prompts) // lanes) * lanes  # the last batch is filled up, so that one program serves all
    tokens = np.zeros((padded, sequence), np.int32)
    prompt_length, length = np.ones((padded,), np.int32), np.ones((padded,), np.int32)
    for row, (prompt, said) in enumerate(zip(prompts, generation.ids, strict=True)):
        text = [*prompt, *said]
        tokens[row, : len(text)] = text
        prompt_length[row], length[row] = len(prompt), len(text)
    parts = []
    for begin in range(0, padded, lanes):
        rows = slice(begin, begin + lanes)
        collected = collect(
            forward,
            lm.params,
            tokens[rows],
            prompt_length[rows],
            length[rows],
            np.arange(first + begin, first + begin + lanes),
            blocks=settings.blocks,
            block=settings.block,
            vocabulary=lm.config.vocabulary,
            seed=settings.seed,
            initial=settings.initial,
            known_first=settings.known_first,
        )
        parts.append(Trajectories(*map(np.asarray, collected)))
    whole = Trajectories(*(field[: len(prompts)] for field in concatenate(parts)))
    answered = np.array(
        [bool(said) and why != "numerical" for said, why in zip(generation.ids, generation.finish, strict=True)]
    )
    usable = Trajectories(*(field[answered] for field in whole))
    cleaned, repetitive = clean(usable, settings.repeats, settings.longest_phrase)
    return cleaned, repetitive + int(np.sum(~answered))


def _digest(prompts: Sequence[tuple[int, ...]]) -> str:
    return hashlib.sha256(repr(prompts).encode()).hexdigest()
