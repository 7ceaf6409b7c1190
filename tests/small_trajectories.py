"""Greedy answers of the small random transformer and their trajectories, for tests of consistency training."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from small_transformer import CONFIG, small_transformer

from jaxspec.models.language_model import LanguageModel
from jaxspec.train.packing import PackedForward
from jaxspec.train.trajectories import Trajectories, collect

BLOCK, BLOCKS, SEQUENCE = 4, 3, 24
PROMPTS = ((3, 1, 4, 1, 5), (9, 2, 6), (5, 3, 5, 8, 9, 7, 9), (2,))
ANSWERS = (12, 10, 5, 12)  # tokens; the second ends within a block, the third has an empty block
FORWARD = PackedForward(CONFIG)


class Answers(NamedTuple):
    """The small model and (B, L) texts of prompt and greedy answer."""

    lm: LanguageModel
    tokens: np.ndarray
    prompt_length: np.ndarray
    length: np.ndarray


@jax.jit
def causal_logits(params, ids: jax.Array) -> jax.Array:
    """(B, L, V) of plain texts."""
    lanes, tokens = ids.shape
    positions = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32), (lanes, tokens))
    visible = jnp.broadcast_to(jnp.tril(jnp.ones((tokens, tokens), bool)), (lanes, tokens, tokens))
    return FORWARD(params, ids, positions, visible)


def greedy_texts(lm: LanguageModel, prompts: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """(B, SEQUENCE) prompts with `count` greedy tokens behind, said one pass over the whole text at a time."""
    tokens = np.zeros((len(prompts), SEQUENCE), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    end, lane = np.array([len(prompt) for prompt in prompts]), np.arange(len(prompts))
    for _ in range(count):
        said = np.argmax(causal_logits(lm.params, jnp.asarray(tokens)), axis=-1)
        tokens[lane, end] = said[lane, end - 1]
        end = end + 1
    return tokens


@functools.lru_cache
def small_answers() -> Answers:
    lm = small_transformer()
    tokens = greedy_texts(lm, PROMPTS, max(ANSWERS))
    prompt_length = np.array([len(prompt) for prompt in PROMPTS], np.int32)
    length = prompt_length + np.array(ANSWERS, np.int32)
    tokens[np.arange(SEQUENCE) >= length[:, None]] = 0
    return Answers(lm, tokens, prompt_length, length)


@functools.lru_cache
def small_trajectories(initial: str = "prompt", known_first: bool = False) -> Trajectories:
    answers = small_answers()
    collected = collect(
        FORWARD,
        answers.lm.params,
        answers.tokens,
        answers.prompt_length,
        answers.length,
        np.arange(len(PROMPTS)),
        blocks=BLOCKS,
        block=BLOCK,
        vocabulary=CONFIG.vocabulary,
        seed=1,
        initial=initial,
        known_first=known_first,
    )
    return Trajectories(*map(np.asarray, collected))
