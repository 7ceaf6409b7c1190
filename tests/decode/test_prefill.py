"""What a lane held for an earlier request never reaches a later one, whatever becomes of its own text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import CONFIG, small_transformer

import jaxspec
from jaxspec.decode.prefill import read_blocks
from jaxspec.models import cache as kv_cache
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.transformer import transformer_fn

UNKNOWN = 9  # an id whose embedding is no number


@pytest.fixture(scope="module")
def sliding() -> LanguageModel:
    """Every layer of it sees four tokens."""
    lm = small_transformer()
    config = dataclasses.replace(CONFIG, window=4, sliding=(True, True), tied=False)
    kernel = lm.params["embedding"]["kernel"]
    params = lm.params | {"embedding": {"kernel": kernel.at[:, UNKNOWN].set(jnp.nan)}, "head": {"kernel": kernel}}
    return dataclasses.replace(lm, config=config, model=transformer_fn(config), params=params)


def test_a_broken_text_on_a_used_lane_says_what_it_says_on_a_fresh_one(sliding) -> None:
    """Its first token lies so far back that no pass sees it once the prompt counts as read."""
    other = np.random.default_rng(0).integers(0, UNKNOWN, 200).tolist()
    broken = [UNKNOWN, *other[1:]]
    alone = jaxspec.generate(sliding, [broken], max_new_tokens=8, cache=256)
    after = jaxspec.generate(sliding, [other[::-1], broken], max_new_tokens=8, lanes=1, cache=256)
    assert alone.ids[0] == after.ids[1]
    assert alone.finish[0] == after.finish[1] == "numerical"
    assert after.finish[0] == "length"


@pytest.mark.parametrize("first", [1, UNKNOWN])
def test_all_that_counts_as_read_is_written(sliding, first: int) -> None:
    ids = jnp.asarray([[first, 2, 3, 4, 5, 6, 7, 8]], jnp.int32)
    cache = kv_cache.init_cache(sliding.config, 1, 128, jnp.float32)
    read = jax.jit(read_blocks, static_argnums=0)
    unread, passes = jnp.asarray([20], jnp.int32), 0
    while int(unread[0]):
        reading = read(sliding.model, sliding.params, ids, jnp.int32(0), unread, cache)
        assert bool(reading.broken[0]) == (first == UNKNOWN)
        cache, unread, passes = reading.cache, unread - reading.count, passes + 1
    assert cache.length.tolist() == [20] and passes == (5 if first == UNKNOWN else 3)
    keys = np.asarray(cache.keys[0])[0, 0, :, 0]
    assert (keys[:20] != 0).all() and (keys[20:] == 0).all()
