"""A small random transformer without a tokenizer, for tests of real arithmetic."""

import functools

import jax
import jax.numpy as jnp

from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import chain_block
from jaxspec.models.transformer import cache_dtype, transformer_fn

CONFIG = ModelConfig(
    "gemma3",
    17,
    16,
    24,
    2,
    4,
    2,
    8,
    context=512,
    query_key_norm=True,
    window=20,
    sliding=(True, False),
    tied=True,
)


@functools.lru_cache
def small_transformer(dtype: str = "float32", seed: int = 0) -> LanguageModel:
    """Seventeen ids and sharp logits, so that texts repeat themselves and drafts are accepted."""
    fn = transformer_fn(CONFIG, jnp.dtype(dtype))
    empty = kv_cache.init_cache(CONFIG, 1, 128, jnp.float32)
    key = jax.random.key(seed)
    params = fn.module.init(key, chain_block(jnp.zeros((1, 1), jnp.int32)), empty)["params"]
    noise = iter(jax.random.split(key, 100))
    params = jax.tree.map(lambda p: p + (0.4 * jax.random.normal(next(noise), p.shape)).astype(p.dtype), params)
    return LanguageModel(CONFIG, fn, params, None, jnp.dtype(dtype), cache_dtype(dtype), "small")
