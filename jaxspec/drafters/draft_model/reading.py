"""What a draft model reads of the committed text.

Its cache holds a prefix of the text. Tokens that were drafted and committed stay in it, and the rest is rolled back
by its length. After a draft that was accepted whole, the last drafted token was never read, so that the first block of
a draft has two tokens, of which it may need both. Those that follow have one.

B lanes, L tokens, V vocabulary of the target.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.prefill import read_blocks
from jaxspec.decode.types import Context
from jaxspec.drafters.vocabulary import Translation
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import ModelFn, Params

BLOCK = 2  # tokens of the first block


class DraftModelParams(NamedTuple):
    """Attributes:
    weights: of the draft model.
    translation: from the target's ids to its own; None where they are the same.
    """

    weights: Params
    translation: Translation | None


def translated(translation: Translation | None, ids: jax.Array) -> jax.Array:
    """`ids` of the target as the draft model's."""
    return ids if translation is None else jnp.asarray(translation.draft_id)[ids]


def read_text(
    model: ModelFn, params: DraftModelParams, cache: kv_cache.KVCache, context: Context, width: int
) -> kv_cache.KVCache:
    """`cache` with every live lane's text but for its last tokens, as many as a block holds.

    Args:
      model, params: the draft model.
      cache: with a prefix of every text.
      context: the texts.
      width: tokens a pass.
    """

    def unread(cache: kv_cache.KVCache) -> jax.Array:
        return jnp.where(context.live, context.length - 1 - cache.length, 0)

    def read_one(cache: kv_cache.KVCache) -> kv_cache.KVCache:
        missing = unread(cache)
        lane = jnp.argmax(missing >= BLOCK).astype(jnp.int32)
        ids = jax.lax.dynamic_slice(context.tokens, (lane, cache.length[lane]), (1, width))
        ids = translated(params.translation, ids)
        return read_blocks(model, params.weights, ids, lane, missing[lane][None], cache).cache

    return jax.lax.while_loop(lambda cache: jnp.any(unread(cache) >= BLOCK), read_one, cache)
