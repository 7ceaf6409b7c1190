"""Reading a text into a cache, in blocks wide enough to fill the machine."""

import functools

import jax
import jax.numpy as jnp

from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import ModelFn, Params, chain_block


def read_block(
    model_fn: ModelFn, params: Params, ids: jax.Array, lane: jax.Array, unread: jax.Array, cache: kv_cache.KVCache
) -> kv_cache.KVCache:
    """`cache` with the next tokens of one lane behind its prefix.

    Args:
      model_fn, params: the model.
      ids: (1, W) int32 the lane's text from its prefix on.
      lane: () int32.
      unread: () int32 tokens to read in all; the first W of them, or fewer, are read now.
      cache: of B lanes.
    """
    output = model_fn(params, chain_block(ids, lane), cache, with_logits=False)
    # A text with a key that is no number is past saving, so the rest of it is skipped. What that also does is tie
    # the writes to the pass: XLA would copy the cache to be safe if it could not see that all reads come first.
    broken = jnp.isnan(output.keys[-1][0, 0, 0, 0])
    count = jnp.where(broken, unread, jnp.minimum(unread, ids.shape[1]))
    start = cache.length[lane]
    write = functools.partial(kv_cache.write, lane=lane[None], start=start[None], count=count[None])
    return kv_cache.KVCache(
        tuple(map(write, cache.keys, output.keys)),
        tuple(map(write, cache.values, output.values)),
        cache.length.at[lane].add(count),
    )
