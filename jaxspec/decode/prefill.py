"""Reading texts into a cache, in blocks wide enough to fill the machine."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import ModelFn, Params, chain_block


class Reading(NamedTuple):
    """Attributes:
    cache: with what was read behind the prefixes.
    logits: (b, W, V) of the model after every token, or None if they were not wanted.
    count: (b,) int32 tokens read.
    broken: (b,) bool texts whose keys are no numbers.
    """

    cache: kv_cache.KVCache
    logits: jax.Array | None
    count: jax.Array
    broken: jax.Array


def read_blocks(
    model_fn: ModelFn,
    params: Params,
    ids: jax.Array,
    lane: jax.Array,
    unread: jax.Array,
    cache: kv_cache.KVCache,
    with_logits: bool = False,
) -> Reading:
    """The next tokens of some lanes, in one pass.

    Args:
      model_fn, params: the model.
      ids: (b, W) int32 each lane's text from its prefix on.
      lane: (b,) int32 different lanes, or () int32 for the b lanes from there on.
      unread: (b,) int32 tokens to read in all; the first W of them, or fewer, are read now.
      cache: of B lanes.
      with_logits: whether they are wanted.
    """
    output = model_fn(params, chain_block(ids, lane), cache, with_logits=with_logits)
    # A text with a key that is no number is past saving, and may take half blocks. What that does is tie the writes
    # to the pass: XLA would copy the cache to be safe if it could not see that all reads come first.
    broken = jnp.isnan(output.keys[-1][:, 0, 0, 0])
    count = jnp.minimum(unread, jnp.where(broken, (ids.shape[1] + 1) // 2, ids.shape[1]))
    lanes = lane if lane.ndim else lane + jnp.arange(ids.shape[0], dtype=jnp.int32)
    return Reading(kv_cache.append(cache, output.keys, output.values, count, lanes), output.logits, count, broken)
