"""Jacobi trajectories of known answers, all blocks of all lanes at once.

A trajectory of a block (CLLM, arXiv 2403.00835, section 3.1) starts at random tokens and applies, to all n tokens at
once, y_i <- argmax p(. | y_<i, text before the block), until nothing changes. It ends at the model's own greedy
answer. When that answer is known from plain decoding, every block's clean prefix is known too, so all blocks take a
step in one packed pass, and at most n passes collect everything; block by block it would be n passes a block.

Shapes: B lanes, L tokens, T blocks, n tokens a block, V vocabulary.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxspec.decode.sampling import argmax
from jaxspec.models.model_fn import Params
from jaxspec.train.packing import FILL, Forward, Packed, answer_blocks, block_sizes, pack, take_noisy

INITIAL = ("prompt", "vocabulary", "repeat")


class Trajectories(NamedTuple):
    """Trajectories of the blocks of B answers; NumPy on the host, JAX inside jit.

    Attributes:
      tokens: (B, L) int32 prompt and greedy answer.
      prompt_length: (B,) int32.
      length: (B,) int32 of prompt and answer.
      states: (B, T, n + 1, n) int32; state 0 is the random start, state `count - 1` the fixed point, repeated behind.
      count: (B, T) int32 states; 1 for a block without an answer, or one that did not converge.
      converged: (B, T) bool, whether the fixed point was the known answer. It fails where two tokens are equally
        probable up to rounding; such a block keeps its fixed point alone, and so trains nothing.
    """

    tokens: Any
    prompt_length: Any
    length: Any
    states: Any
    count: Any
    converged: Any


class _Collection(NamedTuple):
    step: jax.Array  # () passes so far
    iterate: jax.Array  # (B, T, n)
    states: jax.Array  # (B, T, n + 1, n)
    count: jax.Array  # (B, T)
    moving: jax.Array  # (B, T) bool, whether the last pass changed the block


def check_geometry(sequence: int, blocks: int, block: int, vocabulary: int, initial: str) -> None:
    """Checks what `collect` is about to compile.

    Raises:
      ValueError: a size is below 1, the blocks do not fit into the sequence, or the kind of start is unknown.
    """
    for name, value in {"blocks": blocks, "block": block, "vocabulary": vocabulary}.items():
        if value < 1:
            raise ValueError(f"{name}={value} is below 1; trajectories need at least one")
    if blocks * block >= sequence:
        raise ValueError(
            f"{blocks} blocks of {block} tokens and a prompt do not fit into a sequence of {sequence} tokens; "
            "take fewer or shorter blocks, or a longer sequence"
        )
    if initial not in INITIAL:
        raise ValueError(f"initial={initial!r} is unknown; choose one of {', '.join(INITIAL)}")


def initial_blocks(
    seed: jax.Array,
    request: jax.Array,
    tokens: jax.Array,
    prompt_length: jax.Array,
    blocks: int,
    block: int,
    vocabulary: int,
    initial: str,
) -> jax.Array:
    """(B, T, n) int32 random starts, which depend on seed, request and block alone, not on the batch.

    Args:
      seed: () uint32.
      request: (B,) int32 number of every lane's request.
      tokens: (B, L) int32.
      prompt_length: (B,) int32.
      blocks, block, vocabulary: T, n and V.
      initial: `prompt` draws from the text before the block, with replacement; `vocabulary` from all ids; `repeat`
        repeats the token before the block.
    """

    def start(request: jax.Array, tokens: jax.Array, prompt_length: jax.Array, index: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), request), index)
        begin = jnp.minimum(prompt_length + index * block, tokens.shape[0])
        if initial == "vocabulary":
            return jax.random.randint(key, (block,), 0, vocabulary, jnp.int32)
        if initial == "repeat":
            return jnp.broadcast_to(tokens[begin - 1], (block,))
        return tokens[jax.random.randint(key, (block,), 0, begin, jnp.int32)]

    over_blocks = jax.vmap(start, in_axes=(None, None, None, 0))
    over_lanes = jax.vmap(over_blocks, in_axes=(0, 0, 0, None))
    return over_lanes(request, tokens, prompt_length, jnp.arange(blocks, dtype=jnp.int32))


def collect(
    forward: Forward,
    params: Params,
    tokens: ArrayLike,
    prompt_length: ArrayLike,
    length: ArrayLike,
    request: ArrayLike,
    *,
    blocks: int,
    block: int,
    vocabulary: int,
    seed: int = 0,
    initial: str = "prompt",
    known_first: bool = False,
) -> Trajectories:
    """Trajectories of every block of every answer, in at most n passes.

    Args:
      forward: see `packing.Forward`.
      params: of the model that gave the answers.
      tokens: (B, L) int32 prompts, each with the model's own greedy answer right behind.
      prompt_length: (B,) int32, at least 1.
      length: (B,) int32 of prompt and answer. Answer tokens beyond T * n have no trajectory.
      request: (B,) int32 numbers that, with the seed, decide the random starts.
      blocks, block: T and n.
      vocabulary: V.
      seed: of the random starts.
      initial: see `initial_blocks`.
      known_first: start with the right first token, as decoding does, which knows it from the pass before.

    Raises:
      ValueError: see `check_geometry`.
    """
    tokens = jnp.asarray(tokens, jnp.int32)
    check_geometry(tokens.shape[1], blocks, block, vocabulary, initial)
    return _collect(
        forward,
        params,
        tokens,
        jnp.asarray(prompt_length, jnp.int32),
        jnp.asarray(length, jnp.int32),
        jnp.asarray(request, jnp.int32),
        jnp.asarray(seed, jnp.uint32),
        blocks=blocks,
        block=block,
        vocabulary=vocabulary,
        initial=initial,
        known_first=known_first,
    )


def jacobi_step(forward: Forward, params: Params, packed: Packed, fixed: jax.Array, iterate: jax.Array) -> jax.Array:
    """(B, T, n) the state after `iterate` of every block, in one packed pass.

    Args:
      forward: see `packing.Forward`.
      params: of the model.
      packed: the clean text and one noisy stream, whose ids are replaced by those of `iterate`.
      fixed: (B, T, n) int32 the answer in blocks. A block's first token follows from the clean text alone: one pass
        finds it whatever the state.
      iterate: (B, T, n) int32.
    """
    lanes, blocks, block = iterate.shape
    sequence = packed.ids.shape[1] - blocks * block
    ids = jnp.concatenate([packed.ids[:, :sequence], iterate.reshape(lanes, -1)], axis=1)
    logits = forward(params, ids, packed.positions, packed.visible)
    said = argmax(take_noisy(logits, sequence, 0, blocks, block))[0]
    return jnp.concatenate([fixed[:, :, :1], said[:, :, :-1]], axis=2)


@functools.partial(jax.jit, static_argnames=("forward", "blocks", "block", "vocabulary", "initial", "known_first"))
def _collect(
    forward, params, tokens, prompt_length, length, request, seed, *, blocks, block, vocabulary, initial, known_first
) -> Trajectories:
    lanes = tokens.shape[0]
    fixed = answer_blocks(tokens, prompt_length, length, blocks, block)
    inside = jnp.arange(block, dtype=jnp.int32) < block_sizes(prompt_length, length, blocks, block)[:, :, None]
    start = initial_blocks(seed, request, tokens, prompt_length, blocks, block, vocabulary, initial)
    if known_first:
        start = start.at[:, :, 0].set(fixed[:, :, 0])
    start = jnp.where(inside, start, FILL)
    packed = pack(tokens, prompt_length, start[:, None], shared=1)

    def step(collection: _Collection) -> _Collection:
        following = jnp.where(inside, jacobi_step(forward, params, packed, fixed, collection.iterate), FILL)
        moving = collection.moving & jnp.any(following != collection.iterate, axis=2)
        done = collection.step + 1
        # A block at rest repeats its state, which is what stands behind its last one.
        states = collection.states.at[:, :, done].set(following)
        return _Collection(done, following, states, collection.count + moving.astype(jnp.int32), moving)

    first = _Collection(
        step=jnp.int32(0),
        iterate=start,
        states=jnp.zeros((lanes, blocks, block + 1, block), jnp.int32).at[:, :, 0].set(start),
        count=jnp.ones((lanes, blocks), jnp.int32),
        moving=jnp.any(inside, axis=2),
    )
    last = jax.lax.while_loop(lambda c: (c.step < block) & jnp.any(c.moving), step, first)
    converged = jnp.all(last.iterate == fixed, axis=2)
    at = jnp.arange(block + 1, dtype=jnp.int32) < last.count[:, :, None]
    states = jnp.where((at & converged[:, :, None])[..., None], last.states, fixed[:, :, None])
    return Trajectories(tokens, prompt_length, length, states, jnp.where(converged, last.count, 1), converged)
