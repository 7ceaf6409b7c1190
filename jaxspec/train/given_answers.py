"""Batches for consistency training from a task's own answers, fresh ones every step: nothing has to be collected.

The blocks hold random tokens; `ConsistencySettings.refinements` turns them into states that the model being trained
passes through, so that noise is always its own of the moment, not that of an earlier model.

Shapes: B answers a batch, L tokens, T blocks, n tokens a block.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxspec.train.answers import Prompt, encode_answers
from jaxspec.train.consistency import ConsistencyBatch
from jaxspec.train.random_blocks import random_blocks
from jaxspec.weights.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class GivenAnswerBatches:
    """`Batches` of `ConsistencyBatch`; a batch depends on the settings and the step alone.

    Attributes:
      example: from a number to a prompt and its answer.
      tokenizer: of both; it must have an end of sequence.
      rows: answers a batch, B.
      tokens: ids a text, L.
      blocks, block: T and n. What an answer has beyond T * n tokens is trained on clean text alone.
      vocabulary: ids.
      source: of random tokens; see `random_blocks`.
      first_share: share of answers whose first block begins where decoding does, at the last token of the prompt. The
        others' begins at any of the n tokens from there on, since decoding goes on from wherever it has come.
      seed: of all draws.
    """

    example: Callable[[int], tuple[Prompt, str]]
    tokenizer: Tokenizer
    rows: int
    tokens: int
    blocks: int
    block: int
    vocabulary: int
    source: str = "prompt"
    first_share: float = 0.25
    seed: int = 0

    def batch(self, step: int) -> ConsistencyBatch:
        """Examples `step * rows` and on, with random blocks that begin with the right token, as in decoding."""
        examples = [self.example(step * self.rows + row) for row in range(self.rows)]
        ids, counted = map(np.asarray, encode_answers(examples, self.tokenizer, self.tokens))
        prompt_length = np.argmax(counted, axis=1).astype(np.int32)
        length = prompt_length + np.sum(counted, axis=1, dtype=np.int32)
        random = np.random.default_rng((self.seed, 2, step))
        further = random.integers(0, np.minimum(self.block, length - prompt_length + 1), dtype=np.int32)
        first = random.random(self.rows) < self.first_share
        start = (prompt_length - 1 + np.where(first, 0, further)).astype(np.int32)
        noisy = random_blocks(
            ids,
            start,
            length,
            self.blocks,
            self.block,
            vocabulary=self.vocabulary,
            source=self.source,
            random=random,
            known_first=True,
        )
        return ConsistencyBatch(ids, prompt_length, length, start, noisy[:, None])
