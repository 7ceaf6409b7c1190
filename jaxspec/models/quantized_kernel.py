"""Kernels of few bits, packed in bytes, and products with them that never hold the whole kernel in a wide type.

As many weights share a word as fill whole bytes: one of eight bits a byte, two of four bits a byte, eight of three
bits three bytes. Those of one word stand g / P rows apart in a group. Unpacking then gives whole slabs of rows, and a
product is the sum over slabs of plain products, with nothing to interleave.

Shapes: W fan-in, F fan-out, g rows a group, G = W / g groups, P weights a word of Q bytes, T columns a tile.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

TILE = 256  # columns widened at a time on CPU: they stay in the cache of a core
BITS = (3, 4, 8)


@functools.partial(jax.tree_util.register_dataclass, data_fields=("packed", "scale"), meta_fields=("bits",))
@dataclasses.dataclass(frozen=True)
class QuantizedKernel:
    """A (W, F) matrix of weights `(u - 2 ** (bits - 1)) * scale`, u being unsigned integers of `bits` bits.

    Attributes:
      packed: (G, Q * g / P, F) uint8; word i of column f holds rows i, i + g / P, ... of a group, the first in its
        low bits, and its bytes are in rows i, i + g / P, ..., the lowest first.
      scale: (G, F) float, of every group of every output channel.
      bits: of a weight.
    """

    packed: jax.Array
    scale: jax.Array
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        """(W, F)."""
        groups, rows, columns = self.packed.shape
        return groups * rows * 8 // self.bits, columns

    @property
    def group(self) -> int:
        """g, the rows that share a scale."""
        return self.shape[0] // self.packed.shape[0]

    def astype(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """The whole kernel (W, F) as plain numbers."""
        slabs = unpack(self.packed, self.scale, self.bits, dtype)
        return jnp.stack(slabs, axis=1).reshape(self.shape)


def weights_per_word(bits: int) -> int:
    """P, how many weights of `bits` bits fill whole bytes."""
    return 8 // math.gcd(8, bits)


def pack(levels: jax.Array, bits: int, group: int) -> jax.Array:
    """(G, Q * g / P, F) uint8 from `levels` (W, F), integers from -2 ** (bits - 1) to 2 ** (bits - 1) - 1."""
    weights = weights_per_word(bits)
    shape = (levels.shape[0] // group, weights, group // weights, levels.shape[1])
    unsigned = (levels + 2 ** (bits - 1)).astype(jnp.int32).reshape(shape)
    words = functools.reduce(jnp.bitwise_or, (unsigned[:, slab] << (bits * slab) for slab in range(weights)))
    return jnp.concatenate([(words >> (8 * byte)).astype(jnp.uint8) for byte in range(weights * bits // 8)], axis=1)


def unpack(packed: jax.Array, scale: jax.Array, bits: int, dtype: jax.typing.DTypeLike) -> list[jax.Array]:
    """The P slabs of rows, each (G, g / P, F) of `dtype`, multiplied out in float32."""
    weights = weights_per_word(bits)
    planes = jnp.split(packed.astype(jnp.int32), weights * bits // 8, axis=1)
    words = functools.reduce(jnp.bitwise_or, (plane << (8 * byte) for byte, plane in enumerate(planes)))
    wide = scale.astype(jnp.float32)[:, None]
    levels = ((words >> (bits * slab)) & (2**bits - 1) for slab in range(weights))
    return [((level - 2 ** (bits - 1)).astype(jnp.float32) * wide).astype(dtype) for level in levels]


def quantized_matmul(
    x: jax.Array, kernel: QuantizedKernel, multiply: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """`x (..., W) @ kernel` as float32.

    XLA on CPU writes out a widened kernel before it multiplies, ten times the cost of the product, or keeps a wide
    copy of all kernels across a loop. Tiles prevent both; elsewhere the compiler unpacks inside the product.

    Args:
      x: activations; weights are rounded to their type.
      kernel: (W, F).
      multiply: the plain product of (..., W) and (W, F).
    """
    groups, columns = kernel.scale.shape
    weights_a_word = weights_per_word(kernel.bits)
    rows = kernel.group // weights_a_word
    slabs = x.reshape(*x.shape[:-1], groups, weights_a_word, rows)

    def product(packed: jax.Array, scale: jax.Array) -> jax.Array:
        weights = unpack(packed, scale, kernel.bits, x.dtype)
        parts = (
            multiply(slabs[..., index, :].reshape(*x.shape[:-1], -1), weight.reshape(groups * rows, -1))
            for index, weight in enumerate(weights)
        )
        return functools.reduce(jnp.add, parts)

    if jax.default_backend() != "cpu" or columns <= TILE:
        return product(kernel.packed, kernel.scale)

    def add_tile(index: jax.Array, y: jax.Array) -> jax.Array:
        start = jnp.minimum(index * TILE, columns - TILE)  # the last tile may repeat columns of the one before
        packed = jax.lax.dynamic_slice_in_dim(kernel.packed, start, TILE, axis=2)
        scale = jax.lax.dynamic_slice_in_dim(kernel.scale, start, TILE, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(y, product(packed, scale), start, axis=y.ndim - 1)

    return jax.lax.fori_loop(0, -(-columns // TILE), add_tile, jnp.zeros((*x.shape[:-1], columns), jnp.float32))


def quantized_columns(kernel: QuantizedKernel, ids: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Columns `ids` (B, N) of a (W, V) kernel, as (B, N, W)."""
    packed = jnp.take(kernel.packed, ids, axis=2, mode="clip").reshape(*kernel.packed.shape[:2], -1)
    scale = jnp.take(kernel.scale, ids, axis=1, mode="clip").reshape(kernel.scale.shape[0], -1)
    columns = QuantizedKernel(packed, scale, kernel.bits).astype(dtype)
    return columns.T.reshape(*ids.shape, -1)
