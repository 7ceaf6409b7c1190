"""The one contract between a language model and the loops: a pure function from a block of nodes to logits.

Shapes: B lanes, N block nodes, S cache slots, K key heads, H head width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxspec.models.cache import KVCache

Params = Any


class Block(NamedTuple):
    """A token tree per lane, on top of that lane's committed prefix.

    Attributes:
      ids: (B, N) int32 token ids; node 0 is the root, the last committed token, not yet in the cache.
      depth: (B, N) int32 distance from the root; a node's position is `cache.length + depth`.
      ancestors: (B, N, N) bool; `ancestors[b, i, j]` iff node j is node i or above it.
      lane: () int32; row b of the block belongs to lane `lane + b` of the cache. Zero except in prefill, which
        works on one lane of many. Or (B,) int32, the lane of every row, for passes over some lanes.
    """

    ids: jax.Array
    depth: jax.Array
    ancestors: jax.Array
    lane: jax.Array


class BlockOutput(NamedTuple):
    """What a model says of a block.

    Attributes:
      logits: (B, N, V) float32, or None when they were not asked for.
      keys, values: per layer, (B, K, N, H): the nodes' entries for the cache. Nothing is written by the model;
        `cache.commit` writes the accepted ones.
    """

    logits: jax.Array | None
    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


class ModelFn(Protocol):
    """`(params, block, cache, with_logits) -> BlockOutput`, pure. Must be hashable and built once: it is a static
    argument of every compiled loop, so a fresh closure for every call would compile for every call."""

    def __call__(self, params: Params, block: Block, cache: KVCache, *, with_logits: bool = True) -> BlockOutput: ...


def chain_block(ids: jax.Array, lane: jax.Array | int = 0) -> Block:
    """A block whose nodes follow one another: `ids` (B, N), depth 0 to N - 1."""
    lanes, nodes = ids.shape
    depth = jnp.broadcast_to(jnp.arange(nodes, dtype=jnp.int32), (lanes, nodes))
    ancestors = jnp.broadcast_to(jnp.tril(jnp.ones((nodes, nodes), bool)), (lanes, nodes, nodes))
    return Block(ids, depth, ancestors, jnp.asarray(lane, jnp.int32))


def rows_of(values: jax.Array, lane: jax.Array, rows: int) -> jax.Array:
    """The entries of `values` (lanes, ...) that belong to a block's rows, see `Block.lane`."""
    if lane.ndim == 1:
        return values[lane]
    return values if rows == values.shape[0] else jax.lax.dynamic_slice_in_dim(values, lane, rows)


def from_nnx(module: Any) -> tuple[Callable[..., BlockOutput], Params]:
    """`(model_fn, params)` from an NNX module called as `module(block, cache, with_logits=...) -> BlockOutput`.

    The graph definition is hashable, so the returned function is a stable static argument: keep it.
    """
    from flax import nnx

    graph, params = nnx.split(module)
    return _NnxModelFn(graph), params


class _NnxModelFn:
    def __init__(self, graph: Any) -> None:
        self.graph = graph

    def __call__(self, params: Params, block: Block, cache: KVCache, *, with_logits: bool = True) -> BlockOutput:
        from flax import nnx

        return nnx.merge(self.graph, params)(block, cache, with_logits=with_logits)

    def __hash__(self) -> int:
        return hash(self.graph)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NnxModelFn) and self.graph == other.graph
