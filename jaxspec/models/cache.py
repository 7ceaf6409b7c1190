"""Keys and values of committed tokens, one pair of buffers a layer.

Buffers are never stacked over layers and never scanned (XLA copies a stacked cache at every step), a block never
writes before it is verified, and rolling back is a change of `length`. Entries at or beyond `length` are undefined.

Shapes: B lanes, S slots, K key heads, H head width, N block nodes, D path entries.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.models.config import ModelConfig


class KVCache(NamedTuple):
    """Attributes:
    keys, values: per layer, (B, K, S, H).
    length: (B,) int32 valid slots of every lane.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    length: jax.Array

    @property
    def slots(self) -> int:
        """S, the capacity in tokens."""
        return self.keys[0].shape[2]


def init_cache(config: ModelConfig, lanes: int, slots: int, dtype: jax.typing.DTypeLike) -> KVCache:
    """An empty cache of `lanes` lanes with `slots` tokens each. Zeros, because 0 * NaN would outlive a mask."""
    shape = (lanes, config.key_heads, slots, config.head_width)

    def buffers() -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(shape, dtype) for _ in range(config.layers))

    return KVCache(buffers(), buffers(), jnp.zeros((lanes,), jnp.int32))


def write(buffer: jax.Array, new: jax.Array, lane: jax.Array, start: jax.Array, count: jax.Array) -> jax.Array:
    """Writes the first `count[b]` of `new[b]` into lane `lane[b]` of `buffer`, from slot `start[b]` on.

    Args:
      buffer: (B, K, S, H).
      new: (b, K, T, H) entries, cast to the buffer's type.
      lane, start, count: (b,) int32. Entries beyond `count`, and any that fall outside the buffer, are dropped.

    Returns:
      The buffer, updated in place where XLA may.
    """
    slots = buffer.shape[2]
    offset = jnp.arange(new.shape[2], dtype=jnp.int32)
    slot = jnp.where(offset < count[:, None], start[:, None] + offset, slots)  # (b, T); `slots` is dropped
    entries = jnp.swapaxes(new, 1, 2).astype(buffer.dtype)  # (b, T, K, H): the scatter's index axes lead
    return buffer.at[lane[:, None], :, slot].set(entries, mode="drop")


def commit(cache: KVCache, keys, values, path: jax.Array, count: jax.Array) -> KVCache:
    """Appends an accepted path of a block.

    Args:
      cache: with B lanes.
      keys, values: per layer (B, K, N, H), of the whole block.
      path: (B, D) int32 block nodes in order of depth, the root first.
      count: (B,) int32 how many of them are committed; 0 leaves a lane as it is.
    """

    def along_path(entries: jax.Array) -> jax.Array:
        return jnp.take_along_axis(entries, path[:, None, :, None], axis=2)

    return append(cache, tuple(map(along_path, keys)), tuple(map(along_path, values)), count)


def append(cache: KVCache, keys, values, count: jax.Array, lane: jax.Array | None = None) -> KVCache:
    """Writes the first `count` (b,) of `keys` and `values`, per layer (b, K, D, H), behind the prefix of each `lane`.

    `lane` (b,) int32 holds different lanes; None stands for all of them in order.
    """
    lane = jnp.arange(count.shape[0], dtype=jnp.int32) if lane is None else lane
    start = cache.length[lane]

    def advance(buffer: jax.Array, new: jax.Array) -> jax.Array:
        return write(buffer, new, lane, start, count)

    return KVCache(
        tuple(map(advance, cache.keys, keys)),
        tuple(map(advance, cache.values, values)),
        cache.length.at[lane].add(count),
    )
