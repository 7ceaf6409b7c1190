"""Attention of a block of nodes: over the committed prefix, masked by length, and over the block, by ancestors.

The prefix is read chunk by chunk with a running softmax, and only as many chunks as the longest lane uses. A chunk
that a query may not see adds exact zeros, so neither batch mates nor the cache's unused part can change a bit.

Shapes: B lanes of the cache, b rows of the block, N nodes, K key heads, G queries a key head, H head width,
S slots, C slots a chunk.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.models.cache import write

MASKED = -1e30  # finite: -inf - -inf would be NaN in a row that sees nothing of a chunk


class Running(NamedTuple):
    """A softmax-weighted sum in progress.

    Attributes:
      top: (b, K, G * N, 1) largest score so far.
      mass: (b, K, G * N, 1) sum of exp(score - top).
      total: (b, K, G * N, H) sum of exp(score - top) * value.
    """

    top: jax.Array
    mass: jax.Array
    total: jax.Array


class Visibility(NamedTuple):
    """Who may see whom.

    Attributes:
      lane: () first cache lane of the block's rows, or (b,) the lane of each.
      length: (b,) committed slots.
      depth: (b, N) distance from the root.
      ancestors: (b, N, N) bool, including each node itself.
    """

    lane: jax.Array
    length: jax.Array
    depth: jax.Array
    ancestors: jax.Array


def block_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    cached_keys: jax.Array,
    cached_values: jax.Array,
    visibility: Visibility,
    *,
    window: int | None,
    chunk: int | None,
) -> jax.Array:
    """Attention output (b, Q, N, H) in float32.

    Args:
      queries: (b, Q, N, H), rotated and scaled; query heads of one key head are neighbours.
      keys, values: (b, K, N, H) of the block, rotated.
      cached_keys, cached_values: (B, K, S, H); read only.
      visibility: see there.
      window: a query sees keys fewer than `window` positions back; None sees all.
      chunk: slots read at a time; None reads all S at once, which suits accelerators.
    """
    merged, broken, values = _merge_groups(queries, keys.shape[1]), _broken(values), _numbers(values)
    running = _over_block(merged, keys, values, visibility, window)
    running = _over_prefix(
        running, merged, cached_keys, cached_values, visibility, visibility.length[:, None], window, chunk
    )
    return jnp.where(broken, jnp.nan, (running.total / running.mass).reshape(queries.shape))


def slot_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    cached_keys: jax.Array,
    cached_values: jax.Array,
    visibility: Visibility,
    *,
    window: int | None,
    chunk: int | None,
) -> jax.Array:
    """As `block_attention`, for chains, with every key read from the slot of its position.

    A key then meets a query in the same place of the same sum whether it was committed before or stands in the
    same block, which makes logits bit-equal for any split of a text into blocks. It costs a copy of the cache.
    """
    rows = keys.shape[0]
    lane = visibility.lane
    if lane.ndim == 0:
        lane += jnp.arange(rows, dtype=jnp.int32)
    count, broken = jnp.full((rows,), keys.shape[2], jnp.int32), _broken(values)
    values = _numbers(values)
    cached_keys = write(cached_keys, keys, lane, visibility.length, count)
    cached_values = write(cached_values, values, lane, visibility.length, count)
    merged = _merge_groups(queries, keys.shape[1])
    nothing = Running(
        jnp.full((*merged.shape[:3], 1), MASKED, jnp.float32),
        jnp.zeros((*merged.shape[:3], 1), jnp.float32),
        jnp.zeros(merged.shape, jnp.float32),
    )
    end = visibility.length[:, None] + visibility.depth + 1  # a node sees itself
    running = _over_prefix(nothing, merged, cached_keys, cached_values, visibility, end, window, chunk)
    return jnp.where(broken, jnp.nan, (running.total / running.mass).reshape(queries.shape))


def _numbers(values: jax.Array) -> jax.Array:
    """0 for what is no number, which would reach nodes that do not see it as 0 * NaN."""
    return jnp.where(jnp.isfinite(values), values, 0)


def _broken(values: jax.Array) -> jax.Array:
    """(b, 1, N, 1) bool nodes whose values are no numbers: their own output must not be any either."""
    return ~jnp.all(jnp.isfinite(values), axis=(1, 3))[:, None, :, None]


def _over_block(merged, keys, values, visibility: Visibility, window: int | None) -> Running:
    visible = visibility.ancestors
    if window is not None:
        visible &= visibility.depth[:, :, None] - visibility.depth[:, None, :] < window
    scores = _scores(merged, keys)
    scores = jnp.where(_per_group(visible, merged), scores, MASKED)
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)  # masked entries: exp(-1e30) is exactly 0
    return Running(top, jnp.sum(weights, axis=-1, keepdims=True), _weigh(weights, values))


def _over_prefix(running, merged, cached_keys, cached_values, visibility, end, window, chunk) -> Running:
    """Adds the slots before `end` (b, N or 1) to `running`."""
    rows, slots = merged.shape[0], cached_keys.shape[2]
    size = slots if chunk is None or chunk >= slots else chunk
    if slots % size:
        raise ValueError(f"a cache of {slots} slots cannot be read in chunks of {size}; use a multiple")
    position = visibility.length[:, None] + visibility.depth  # (b, N)

    def add(index: jax.Array, running: Running) -> Running:
        start = index * size
        k = _read(cached_keys, visibility.lane, start, rows, size)
        v = _read(cached_values, visibility.lane, start, rows, size)
        slot = start + jnp.arange(size, dtype=jnp.int32)
        visible = slot < end[:, :, None]  # (b, N or 1, C)
        if window is not None:
            visible &= position[:, :, None] - slot < window
        visible = jnp.broadcast_to(visible, (rows, position.shape[1], size))
        seen = _per_group(visible, merged)
        scores = jnp.where(seen, _scores(merged, k), MASKED)
        top = jnp.maximum(running.top, jnp.max(scores, axis=-1, keepdims=True))
        # Of a masked score this is exactly 0, or 1 where a query has seen nothing so far; then the next key it does
        # see, itself at the latest, fades that to exactly 0.
        weights = jnp.exp(scores - top)
        fade = jnp.exp(running.top - top)
        # Whatever lies beyond the prefix, even NaN, must not reach the sum: 0 * NaN is NaN.
        v = jnp.where((slot < jnp.max(end, axis=1, keepdims=True))[:, None, :, None], v, 0)
        return Running(
            top,
            running.mass * fade + jnp.sum(weights, axis=-1, keepdims=True),
            running.total * fade + _weigh(weights, v),
        )

    if size == slots:
        return add(jnp.int32(0), running)
    first = jnp.int32(0) if window is None else jnp.maximum(jnp.min(position) - window + 1, 0) // size
    used = (jnp.max(end) + size - 1) // size
    return jax.lax.fori_loop(first, used, add, running)


def _read(buffer: jax.Array, lane: jax.Array, start: jax.Array, rows: int, size: int) -> jax.Array:
    lanes, heads, slots, width = buffer.shape
    if lane.ndim == 1:
        whole = buffer if size == slots else jax.lax.dynamic_slice_in_dim(buffer, start, size, axis=2)
        return whole[lane]
    if rows == lanes:
        lane = jnp.int32(0)
    if rows == lanes and size == slots:
        return buffer
    return jax.lax.dynamic_slice(buffer, (lane, 0, start, 0), (rows, heads, size, width))


def _merge_groups(queries: jax.Array, key_heads: int) -> jax.Array:
    rows, _, nodes, width = queries.shape
    return queries.reshape(rows, key_heads, -1, nodes, width).reshape(rows, key_heads, -1, width)


def _per_group(visible: jax.Array, merged: jax.Array) -> jax.Array:
    """(b, N, T) -> (b, 1, G * N, T)."""
    rows, nodes, keys = visible.shape
    groups = merged.shape[2] // nodes
    return jnp.broadcast_to(visible[:, None, None], (rows, 1, groups, nodes, keys)).reshape(rows, 1, -1, keys)


def _scores(merged: jax.Array, keys: jax.Array) -> jax.Array:
    return _dot("bkqh,bksh->bkqs", merged, keys)


def _weigh(weights: jax.Array, values: jax.Array) -> jax.Array:
    return _dot("bkqs,bksh->bkqh", weights.astype(values.dtype), values)


def _dot(formula: str, x: jax.Array, y: jax.Array) -> jax.Array:
    precision = jax.lax.Precision.HIGHEST if y.dtype == jnp.float32 else None
    return jnp.einsum(formula, x.astype(y.dtype), y, precision=precision, preferred_element_type=jnp.float32)
