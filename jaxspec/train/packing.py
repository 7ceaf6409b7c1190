"""Clean answer and noisy blocks in one forward pass: layout, positions and who may see whom.

The first stream is the clean text, prompt and answer, of L tokens. Every further stream is the answer again, cut into
T blocks of n tokens, with some tokens wrong: states of Jacobi trajectories. A noisy token stands at the position of
the clean token it replaces, so both predict the same next token. What a noisy block sees of the blocks before it
decides the method (CLLM, Kou et al., arXiv 2403.00835; Jacobi Forcing, arXiv 2512.14681, section 3):

- `clean`: the clean answer up to the block, as in Jacobi decoding block by block;
- `noise_aware`: the prompt and the noisy blocks before it, as in a long run of unconverged tokens;
- `noise_window`: in between, noisy blocks of its own window and the clean answer up to the window.

All three are one mask with another number of blocks that share their noise. Streams never see each other otherwise.

Shapes: B lanes, L tokens, R noisy streams, T blocks, n tokens a block, V vocabulary, W = L + R * T * n.
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Params
from jaxspec.train.forward import forward

FILL = 0  # id behind the end of an answer; nothing that counts ever sees it
CONTEXTS = ("clean", "noise_aware", "noise_window")


class Forward(Protocol):
    """`(params, ids (B, W), positions (B, W), visible (B, W, W)) -> logits (B, W, V)`, pure.

    `visible[b, q, k]` iff query q sees key k. Must be hashable: it is a static argument of compiled functions.
    """

    def __call__(self, params: Params, ids: jax.Array, positions: jax.Array, visible: jax.Array) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class PackedForward:
    """`Forward` of the project's transformer.

    Attributes:
      config: the model.
      dtype: of activations.
      checkpoint: compute layers again in the backward pass instead of keeping them.
    """

    config: ModelConfig
    dtype: jax.typing.DTypeLike = jnp.float32
    checkpoint: bool = False

    def __call__(self, params: Params, ids: jax.Array, positions: jax.Array, visible: jax.Array) -> jax.Array:
        return forward(
            params,
            self.config,
            ids,
            positions=positions,
            visible=visible,
            dtype=self.dtype,
            checkpoint=self.checkpoint,
        )


class Packed(NamedTuple):
    """One forward pass over all streams.

    Attributes:
      ids: (B, W) int32, the clean text first.
      positions: (B, W) int32.
      visible: (B, W, W) bool.
    """

    ids: jax.Array
    positions: jax.Array
    visible: jax.Array


def shared_blocks(context: str, blocks: int, window: int = 1) -> int:
    """How many neighbouring blocks share their noise: 1 for `clean`, all for `noise_aware`.

    Raises:
      ValueError: an unknown context, or a window below 1.
    """
    if context not in CONTEXTS:
        raise ValueError(f"context={context!r} is unknown; choose one of {', '.join(CONTEXTS)}")
    if window < 1:
        raise ValueError(f"window={window} blocks is below 1; a window holds at least one block")
    return {"clean": 1, "noise_aware": blocks, "noise_window": window}[context]


def block_sizes(start: jax.Array, length: jax.Array, blocks: int, block: int) -> jax.Array:
    """(B, T) int32 tokens of the answer in every block: n, fewer in the last, 0 behind it.

    Args:
      start: (B,) int32 where the blocks begin.
      length: (B,) int32 of prompt and answer.
      blocks, block: T and n.
    """
    before = jnp.arange(blocks, dtype=jnp.int32) * block
    return jnp.clip((length - start)[:, None] - before, 0, block)


def answer_blocks(tokens: jax.Array, start: jax.Array, length: jax.Array, blocks: int, block: int) -> jax.Array:
    """(B, T, n) the answer cut into blocks, `FILL` behind its end: the fixed points of Jacobi decoding.

    Args:
      tokens: (B, L) int32, the answer right behind the prompt.
      start, length: (B,) int32 where the blocks begin, and where the answer ends.
      blocks, block: T and n.
    """
    index = start[:, None] + jnp.arange(blocks * block, dtype=jnp.int32)
    ids = jnp.take_along_axis(tokens, jnp.minimum(index, tokens.shape[1] - 1), axis=1)
    ids = jnp.where(index < length[:, None], ids, FILL)
    return ids.reshape(tokens.shape[0], blocks, block)


def pack(tokens: jax.Array, start: jax.Array, noisy: jax.Array, shared: int) -> Packed:
    """The clean text and its noisy streams side by side.

    Args:
      tokens: (B, L) int32 clean text.
      start: (B,) int32 where the blocks begin: behind the prompt, or as far as decoding has come.
      noisy: (B, R, T, n) int32 noisy blocks of every stream.
      shared: see `shared_blocks`.
    """
    lanes, sequence = tokens.shape
    streams, blocks, block = noisy.shape[1:]
    clean = jnp.broadcast_to(jnp.arange(sequence, dtype=jnp.int32), tokens.shape)
    answer = start[:, None] + jnp.tile(jnp.arange(blocks * block, dtype=jnp.int32), streams)
    return Packed(
        jnp.concatenate([tokens, noisy.reshape(lanes, -1)], axis=1),
        jnp.concatenate([clean, answer], axis=1),
        visibility(start, sequence, streams, blocks, block, shared),
    )


def visibility(start: jax.Array, sequence: int, streams: int, blocks: int, block: int, shared: int) -> jax.Array:
    """(B, W, W) bool, query by key.

    A clean query sees the clean text up to itself. A noisy query sees the clean text up to where its group of
    `shared` blocks begins, and the group's own noisy tokens up to itself.

    Args:
      start: (B,) int32 where the blocks begin.
      sequence, streams, blocks, block: L, R, T and n.
      shared: blocks a group.
    """
    answer = blocks * block
    stream = jnp.concatenate(
        [jnp.zeros((sequence,), jnp.int32), jnp.repeat(jnp.arange(1, streams + 1, dtype=jnp.int32), answer)]
    )
    index = jnp.concatenate(
        [jnp.arange(sequence, dtype=jnp.int32), jnp.tile(jnp.arange(answer, dtype=jnp.int32), streams)]
    )
    group = index // (shared * block)
    same_stream = stream[:, None] == stream
    before = index <= index[:, None]
    same_group = (group[:, None] == group) | (stream == 0)
    within = same_stream & before & same_group  # (W, W)
    seen = start[:, None] + group * (shared * block)  # (B, W) clean tokens a noisy query sees
    across = (stream > 0)[:, None] & (stream == 0) & (index < seen[:, :, None])
    return within | across


def take_clean(logits: jax.Array, start: jax.Array, blocks: int, block: int) -> jax.Array:
    """(B, T, n, V) what the clean stream says at the position of every block token.

    Args:
      logits: (B, W, V) of a packed pass. What stands behind the end of the clean text is undefined: mask it.
      start: (B,) int32 where the blocks begin.
      blocks, block: T and n.
    """
    index = start[:, None] + jnp.arange(blocks * block, dtype=jnp.int32)
    taken = jnp.take_along_axis(logits, index[:, :, None], axis=1, mode="clip")
    return taken.reshape(logits.shape[0], blocks, block, -1)


def take_noisy(logits: jax.Array, sequence: int, stream: int, blocks: int, block: int) -> jax.Array:
    """(B, T, n, V) what noisy stream number `stream`, from 0 on, says in a packed pass of logits (B, W, V)."""
    begin = sequence + stream * blocks * block
    return logits[:, begin : begin + blocks * block].reshape(logits.shape[0], blocks, block, -1)


def supervised(noisy: jax.Array, fixed: jax.Array, start: jax.Array, length: jax.Array) -> jax.Array:
    """(B, T, n) bool noisy positions that are trained.

    From the first wrong input of a block on: before it, noisy and clean inputs are equal and there is nothing to
    learn. The last position of a block counts (it predicts the next block's first token), the answer's last token
    does not, because nothing that belongs to the answer follows it.

    Args:
      noisy, fixed: (B, T, n) int32.
      start, length: (B,) int32 where the blocks begin, and where the answer ends.
    """
    blocks, block = noisy.shape[1:]
    wrong = jnp.cumsum((noisy != fixed).astype(jnp.int32), axis=2) > 0
    index = jnp.arange(blocks * block, dtype=jnp.int32).reshape(blocks, block)
    target = start[:, None, None] + index + 1
    return wrong & (target < length[:, None, None])
