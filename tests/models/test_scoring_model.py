"""Scoring models: outputs instead of logits, the same with and without a cache, from and to files."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec
from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.from_huggingface import config_from_huggingface
from jaxspec.models.model_fn import chain_block
from jaxspec.models.to_huggingface import config_to_huggingface
from jaxspec.models.transformer import transformer_fn
from jaxspec.tasks.arithmetic import tokenizer
from jaxspec.train.forward import forward, init_params
from jaxspec.weights.save import published_tensors, save_model

CONFIG = ModelConfig("qwen2", tokenizer().vocabulary_size, 16, 24, 2, 4, 2, 4, context=64, qkv_bias=True, outputs=3)
IDS = jnp.asarray(np.random.default_rng(0).integers(0, CONFIG.vocabulary, (1, 6)), jnp.int32)


def params(config: ModelConfig):
    tree = init_params(config, jax.random.key(0))
    tree["head"]["bias"] = jnp.arange(config.outputs, dtype=jnp.float32)
    return tree


def test_outputs_with_a_cache_equal_outputs_of_a_whole_text() -> None:
    tree = params(CONFIG)
    whole = forward(tree, CONFIG, IDS)
    assert whole.shape == (1, 6, 3)
    cache = kv_cache.init_cache(CONFIG, 1, 128, jnp.float32)
    output = transformer_fn(CONFIG)(tree, chain_block(IDS), cache)
    np.testing.assert_allclose(output.logits, whole, atol=1e-5)
    without = {name: leaf for name, leaf in tree.items() if name != "head"} | {"head": {**tree["head"]}}
    without["head"]["bias"] = jnp.zeros(3)
    np.testing.assert_allclose(whole - forward(without, CONFIG, IDS), jnp.broadcast_to(jnp.arange(3.0), whole.shape))


def test_a_saved_scoring_model_loads_bit_for_bit(tmp_path) -> None:
    tree = params(CONFIG)
    save_model(tmp_path, CONFIG, tree, tokenizer())
    lm = jaxspec.load(tmp_path)
    assert lm.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, lm.params, tree)


def test_a_published_process_reward_model_is_known_by_its_architecture(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, outputs=1)
    save_model(tmp_path, config, params(config), tokenizer())
    described = json.loads((tmp_path / "config.json").read_text())
    del described["score_outputs"]
    described |= {"architectures": ["Qwen2ForPrmModel"], "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert jaxspec.load(tmp_path).config == config


def test_configs_of_scoring_models() -> None:
    assert config_from_huggingface(config_to_huggingface(CONFIG)) == CONFIG
    with pytest.raises(ValueError, match="score_outputs=0"):
        config_from_huggingface(config_to_huggingface(CONFIG) | {"score_outputs": 0})
    for change in ({"outputs": 0}, {"tied": True}, {"final_softcap": 3.0}):
        with pytest.raises(ValueError, match="a head of its own"):
            dataclasses.replace(CONFIG, **change)


def test_a_language_model_is_no_scoring_model_and_the_reverse() -> None:
    language = dataclasses.replace(CONFIG, outputs=None)
    with pytest.raises(ValueError, match="head/kernel has shape"):
        published_tensors(CONFIG, init_params(language, jax.random.key(0)), jnp.float32)
