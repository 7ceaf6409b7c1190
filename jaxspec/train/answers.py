"""Batches of prompts with their answers, drawn by number, and how many answers a model gets right.

Shapes: B lanes, T tokens.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Params
from jaxspec.tasks.task import Ids
from jaxspec.train.forward import forward
from jaxspec.train.language_model_loss import TextBatch, cross_entropy, entropy
from jaxspec.weights.tokenizer import Tokenizer

Prompt = str | Ids


@dataclasses.dataclass(frozen=True)
class AnswerBatches:
    """`Batches` of `TextBatch`: prompt, answer and end of sequence; the answer and the end are counted.

    Attributes:
      example: from a number to a prompt and its answer.
      tokenizer: of both; it must have an end of sequence.
      rows: texts a batch, B.
      tokens: ids a text, T; shorter ones are filled up.
    """

    example: Callable[[int], tuple[Prompt, str]]
    tokenizer: Tokenizer
    rows: int
    tokens: int

    def batch(self, step: int) -> TextBatch:
        """Examples `step * rows` and on."""
        return encode_answers(
            [self.example(step * self.rows + row) for row in range(self.rows)], self.tokenizer, self.tokens
        )


def encode_answers(examples: Sequence[tuple[Prompt, str]], tokenizer: Tokenizer, tokens: int) -> TextBatch:
    """Prompts, texts or their ids, with their answers as one batch.

    Raises:
      ValueError: the tokenizer has no end of sequence, or a text is longer than `tokens`.
    """
    if tokenizer.eos_id is None:
        raise ValueError("the tokenizer has no end-of-sequence id; answers could not end")
    ids = np.zeros((len(examples), tokens), np.int32)
    counted = np.zeros((len(examples), tokens), bool)
    for row, (prompt, answer) in enumerate(examples):
        before = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        text = [*before, *tokenizer.encode(answer, add_special=False), tokenizer.eos_id]
        if len(text) > tokens:
            raise ValueError(f"a prompt with its answer has {len(text)} tokens, more than tokens={tokens}; raise it")
        ids[row, : len(text)] = text
        counted[row, len(before) : len(text)] = True
    return TextBatch(ids, counted)


def answer_quality(params: Params, config: ModelConfig, batch: TextBatch) -> dict[str, float]:
    """How well a model knows the answers of a batch.

    A greedy answer equals the expected one exactly if every token of it is the most probable given the true tokens
    before it, so one pass over the batch tells how often that happens.

    Returns:
      exact_match: share of answers that greedy decoding gets right to the last token.
      nats: cross-entropy a token of the answers.
      entropy: of the model's own predictions, nats a token.
    """
    numbers = _quality(params, config, TextBatch(*map(jnp.asarray, batch)))
    return {name: float(value) for name, value in jax.device_get(numbers).items()}


@functools.partial(jax.jit, static_argnames="config")
def _quality(params: Params, config: ModelConfig, batch: TextBatch) -> dict[str, jax.Array]:
    ids, counted = jnp.asarray(batch.ids), jnp.asarray(batch.counted)[:, 1:]
    logits = forward(params, config, ids[:, :-1])
    targets = ids[:, 1:]
    right = jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets
    total = jnp.sum(counted.astype(jnp.float32))
    return {
        "exact_match": jnp.mean(jnp.all(right | ~counted, axis=1).astype(jnp.float32)),
        "nats": jnp.sum(jnp.where(counted, cross_entropy(logits, targets), 0.0)) / total,
        "entropy": jnp.sum(jnp.where(counted, entropy(logits), 0.0)) / total,
    }
