"""From the target's logits to the token it says: one processed distribution for every use.

Transforms apply in the order repetition penalty, bans, temperature, top-k, top-p, min-p, and ties go to the lower
id. Nothing sorts: over a wide vocabulary XLA on CPU sorts slowly, so thresholds are found by bisection on the
ordered bits of a float.

Shapes: B lanes, M block nodes, L tokens, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Leaf = Any  # a jax.Array on the device, a NumPy array on the host
SMALLEST = 1e-30  # of settings that are not 0: in float32, logits divided by less overflow
DRAW, ACCEPT, RESIDUAL, DRAFT = range(4)  # random streams: the target's own draws; rejection; drafts of their own


class Sampling(NamedTuple):
    """Settings of every row, data to the compiled loop. Every leaf is (B,).

    Attributes:
      temperature: float32; 0 takes the most probable token.
      top_k: int32; 0 is off.
      top_p: float32; 1 is off.
      min_p: float32; 0 is off.
      repetition_penalty: float32; 1 is off.
      seed: uint32 of the request.
    """

    temperature: Leaf
    top_k: Leaf
    top_p: Leaf
    min_p: Leaf
    repetition_penalty: Leaf
    seed: Leaf


def plain_sampling(rows: int) -> Sampling:
    """Greedy, with every transform off."""
    zeros, ones = jnp.zeros((rows,), jnp.float32), jnp.ones((rows,), jnp.float32)
    return Sampling(
        temperature=zeros,
        top_k=jnp.zeros((rows,), jnp.int32),
        top_p=ones,
        min_p=zeros,
        repetition_penalty=ones,
        seed=jnp.zeros((rows,), jnp.uint32),
    )


@dataclasses.dataclass(frozen=True)
class SamplingFlags:
    """Which transforms are compiled in; a job without one does not pay for it."""

    stochastic: bool = False
    filters: bool = False
    penalty: bool = False
    bans: bool = False


def flags_of(
    *,
    temperature: Sequence[float],
    top_k: Sequence[int],
    top_p: Sequence[float],
    min_p: Sequence[float],
    repetition_penalty: Sequence[float],
    banned: bool,
) -> SamplingFlags:
    """The flags that settings of all requests of a job need."""
    rows = zip(temperature, top_k, top_p, min_p, strict=True)
    return SamplingFlags(
        stochastic=any(value > 0 for value in temperature),
        filters=any(t > 0 and (k > 0 or p < 1 or m > 0) for t, k, p, m in rows),
        penalty=any(value != 1 for value in repetition_penalty),
        bans=banned,
    )


def validate(
    *, temperature: float, top_k: int, top_p: float, min_p: float, repetition_penalty: float, seed: int
) -> None:
    """Checks one request's settings.

    Raises:
      ValueError: a setting is out of range; the message says which range it has.
    """
    checks = (
        (
            "temperature",
            temperature,
            temperature == 0 or SMALLEST <= temperature <= 1 / SMALLEST,
            f"0, or from {SMALLEST:g} to {1 / SMALLEST:g}",
        ),
        ("top_k", top_k, isinstance(top_k, int) and top_k >= 0, "0 (off) or a positive integer"),
        ("top_p", top_p, SMALLEST <= top_p <= 1, f"from {SMALLEST:g} to 1 (off)"),
        ("min_p", min_p, 0 <= min_p <= 1, "from 0 (off) to 1"),
        (
            "repetition_penalty",
            repetition_penalty,
            SMALLEST <= repetition_penalty <= 1 / SMALLEST,
            f"from {SMALLEST:g} to {1 / SMALLEST:g}, 1 being off",
        ),
        ("seed", seed, isinstance(seed, int) and 0 <= seed < 2**32, "an integer from 0 to 2**32 - 1"),
    )
    for name, value, holds, allowed in checks:
        if not holds:
            raise ValueError(f"{name}={value} is out of range; it must be {allowed}")


def process(
    logits: jax.Array,
    sampling: Sampling,
    flags: SamplingFlags,
    *,
    seen: jax.Array | None = None,
    banned: jax.Array | None = None,
) -> jax.Array:
    """Logits of the distribution that is drawn from, -inf where excluded; (B, M, V) float32.

    Rows of temperature 0 get penalty and bans only: their token is the argmax.

    Args:
      logits: (B, M, V) float32.
      sampling: settings of B rows.
      flags: what to compile in.
      seen: (B, M, V) bool tokens the penalty applies to, from `seen_tokens`; needed with `flags.penalty`.
      banned: (V,) bool; needed with `flags.bans`.
    """

    def per_row(values: jax.Array) -> jax.Array:
        return values[:, None, None]

    if flags.penalty:
        assert seen is not None
        penalty = per_row(sampling.repetition_penalty)
        penalised = jnp.where(logits > 0, logits / penalty, logits * penalty)
        logits = jnp.where(seen, penalised, logits)
    if flags.bans:
        assert banned is not None
        logits = jnp.where(banned, -jnp.inf, logits)
    if not flags.stochastic:
        return logits
    warm = per_row(sampling.temperature) > 0
    scaled = logits / jnp.where(warm, per_row(sampling.temperature), 1.0)
    if flags.filters:
        scaled = _keep_top_k(scaled, per_row(sampling.top_k))
        scaled = _keep_top_p(scaled, per_row(sampling.top_p))
        scaled = _keep_min_p(scaled, per_row(sampling.min_p))
    return jnp.where(warm, scaled, logits)


def key_of(seed: jax.Array, stream: int, position: jax.Array) -> jax.Array:
    """The random key of a request's `seed` () for one stream and position ()."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), position)


def gumbel(seed: jax.Array, position: jax.Array, vocabulary: int, stream: int = DRAW) -> jax.Array:
    """Gumbel noise (B, M, V) for the tokens drawn at `position` (B, M), a function of (seed, position) alone."""

    def noise(seed: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.gumbel(key_of(seed, stream, position), (vocabulary,), jnp.float32)

    return jax.vmap(jax.vmap(noise, in_axes=(None, 0)))(seed, position)


def draw(processed: jax.Array, sampling: Sampling, noise: jax.Array) -> jax.Array:
    """(B, M) int32: the argmax of logits plus noise, a draw from their softmax; the plain argmax at temperature 0."""
    warm = sampling.temperature[:, None, None] > 0
    return argmax(jnp.where(warm, processed + noise, processed))[0]


def probabilities(processed: jax.Array, sampling: Sampling) -> jax.Array:
    """(B, M, V) float32 the law `draw` draws from: a softmax, or all of it on the argmax at temperature 0.

    A row whose logits are not finite holds NaN, or sums to zero.
    """
    warm = sampling.temperature[:, None, None] > 0
    best, _ = argmax(processed)
    cold = best[..., None] == jnp.arange(processed.shape[-1], dtype=jnp.int32)
    return jnp.where(warm, jax.nn.softmax(processed, axis=-1), cold.astype(jnp.float32))


def argmax(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index of the maximum over the last axis, int32, and the maximum.

    Where the maximum is not finite the index is V. Two reductions, which on CPU are several times faster than
    XLA's own argmax.
    """
    size = x.shape[-1]
    top = jnp.max(x, axis=-1, keepdims=True)
    index = jnp.arange(size, dtype=jnp.int32)
    first = jnp.min(jnp.where(x == top, index, size), axis=-1)
    return jnp.where(jnp.isfinite(top[..., 0]), first, size), top[..., 0]


def top_ids(x: jax.Array, count: int) -> jax.Array:
    """Ids (..., count) int32 of the largest entries over the last axis, best first, equals in order of id.

    The best entries lie in the blocks with the best maxima, so one pass over a wide vocabulary and two small
    sorts do what `lax.top_k` does, which on CPU is slow over wide rows.
    """
    *lead, size = x.shape
    block = 64
    if size <= 4 * block * max(count, 1):
        return jax.lax.top_k(x, count)[1].astype(jnp.int32)
    blocks = -(-size // block)
    padding = [(0, 0)] * len(lead) + [(0, blocks * block - size)]
    tiled = jnp.pad(x, padding, constant_values=-jnp.inf).reshape(*lead, blocks, block)
    _, best = jax.lax.top_k(jnp.max(tiled, axis=-1), count)  # of equal maxima the first blocks, as wanted
    best = jnp.sort(best, axis=-1)  # so that equals stay in order of id
    entries = jnp.take_along_axis(tiled, best[..., None], axis=-2).reshape(*lead, count * block)
    _, at = jax.lax.top_k(entries, count)
    return (jnp.take_along_axis(best, at // block, axis=-1) * block + at % block).astype(jnp.int32)


def seen_tokens(
    tokens: jax.Array, length: jax.Array, ids: jax.Array, ancestors: jax.Array, vocabulary: int
) -> jax.Array:
    """(B, M, V) bool: ids in the text before the token after each node, that node and its ancestors included.

    Args:
      tokens: (B, L) int32, undefined at and beyond `length` (B,).
      ids: (B, M) int32 of the block.
      ancestors: (B, M, M) bool.
      vocabulary: V.
    """
    lanes, nodes = ids.shape
    lane = jnp.arange(lanes)[:, None]
    committed = jnp.where(jnp.arange(tokens.shape[1]) < length[:, None], tokens, vocabulary)
    prefix = jnp.zeros((lanes, vocabulary), bool).at[lane, committed].set(True, mode="drop")
    on_path = jnp.where(ancestors, ids[:, None, :], vocabulary)  # (B, M, M)
    node = jnp.arange(nodes)[None, :, None]
    return (
        jnp.broadcast_to(prefix[:, None], (lanes, nodes, vocabulary))
        .at[lane[..., None], node, on_path]
        .set(True, mode="drop")
    )


def _ordered(x: jax.Array) -> jax.Array:
    """uint32 in the order of float32 `x`."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    negative = bits >> 31 == 1
    return jnp.where(negative, ~bits, bits | jnp.uint32(1 << 31))


def _threshold(order: jax.Array, enough) -> jax.Array:
    """The largest value t with `enough(order >= t)`, of shape (..., 1); `enough` is monotone and true at 0."""

    def refine(step: jax.Array, low: jax.Array) -> jax.Array:
        trial = low | (jnp.uint32(1 << 31) >> step.astype(jnp.uint32))
        return jnp.where(enough(order >= trial), trial, low)

    return jax.lax.fori_loop(0, 32, refine, jnp.zeros((*order.shape[:-1], 1), jnp.uint32))


def _keep_top_k(logits: jax.Array, k: jax.Array) -> jax.Array:
    size = logits.shape[-1]
    k = jnp.where(k > 0, jnp.minimum(k, size), size)
    order = _ordered(logits)

    def count(chosen: jax.Array) -> jax.Array:
        return jnp.sum(chosen, axis=-1, keepdims=True, dtype=jnp.int32)

    limit = _threshold(order, lambda chosen: count(chosen) >= k)
    above, level = order > limit, order == limit
    rank = jnp.cumsum(level, axis=-1, dtype=jnp.int32)  # from 1, in order of id
    kept = above | (level & (rank <= k - count(above)))
    # A NaN with its sign bit set comes last in order; without it the row would pass for numbers.
    return jnp.where(kept | jnp.isnan(logits), logits, -jnp.inf)


def _keep_top_p(logits: jax.Array, p: jax.Array) -> jax.Array:
    probability = jax.nn.softmax(logits, axis=-1)
    order = _ordered(probability)

    def mass(chosen: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(chosen, probability, 0.0), axis=-1, keepdims=True)

    limit = _threshold(order, lambda chosen: mass(chosen) >= p)
    above, level = order > limit, order == limit
    before = jnp.cumsum(level, axis=-1, dtype=jnp.int32) - 1  # equals with a lower id
    short = mass(above) + before.astype(jnp.float32) * probability < p
    return jnp.where((above | (level & short)) | (p >= 1), logits, -jnp.inf)


def _keep_min_p(logits: jax.Array, p: jax.Array) -> jax.Array:
    top = jnp.max(logits, axis=-1, keepdims=True)
    return jnp.where((logits >= top + jnp.log(p)) | (p <= 0), logits, -jnp.inf)
