"""A written folder is the model that was written, for this library and for others."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model

import jaxspec
from jaxspec.models.config import ModelConfig, RopeScaling
from jaxspec.models.from_huggingface import config_from_huggingface
from jaxspec.models.to_huggingface import config_to_huggingface
from jaxspec.tasks.sql_vocabulary import tokenizer
from jaxspec.train.forward import forward, init_params
from jaxspec.weights.save import save_model

LLAMA = ModelConfig("llama", tokenizer().vocabulary_size, 16, 24, 2, 4, 2, 4, context=64)
GEMMA = ModelConfig(
    "gemma3", 248, 16, 24, 2, 4, 1, 8, context=64, norm_offset=True, query_scale=16.0**-0.5, rope_theta=1e6,
    local_rope_theta=500.0, window=5, sliding=(True, False), query_key_norm=True, sandwich_norm=True,
    embedding_scale=4.0, activation="gelu_tanh", tied=True,
)  # fmt: skip
CONFIGS = {
    "llama": LLAMA,
    "llama_scaled": dataclasses.replace(LLAMA, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 32)),
    "llama_linear": dataclasses.replace(LLAMA, rope_scaling=RopeScaling("linear", 2.0), tied=True),
    "llama_biases": dataclasses.replace(LLAMA, qkv_bias=True, output_bias=True, mlp_bias=True),
    "mistral": dataclasses.replace(LLAMA, family="mistral"),
    "mistral_window": dataclasses.replace(LLAMA, family="mistral", window=9, sliding=(True, True)),
    "qwen2": dataclasses.replace(LLAMA, family="qwen2", qkv_bias=True),
    "qwen2_window": dataclasses.replace(LLAMA, family="qwen2", qkv_bias=True, window=9, sliding=(False, True)),
    "qwen3": dataclasses.replace(LLAMA, family="qwen3", query_key_norm=True, head_width=8),
    "gemma3": GEMMA,
    "gemma3_global": dataclasses.replace(GEMMA, window=None, sliding=(), final_softcap=30.0),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_come_back(name: str) -> None:
    published = json.loads(json.dumps(config_to_huggingface(CONFIGS[name])))
    assert config_from_huggingface(published) == CONFIGS[name]


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(ValueError, match="family='toy' has no Hugging Face form"):
        config_to_huggingface(dataclasses.replace(LLAMA, family="toy"))
    with pytest.raises(ValueError, match="cannot express all of"):
        config_to_huggingface(dataclasses.replace(LLAMA, query_key_norm=True))


@pytest.mark.parametrize("name", ["llama_biases", "qwen3", "gemma3"])
def test_a_saved_model_loads_bit_for_bit(name: str, tmp_path) -> None:
    config = CONFIGS[name]
    params = init_params(config, jax.random.key(0))
    save_model(tmp_path / "model", config, params, tokenizer())
    lm = jaxspec.load(tmp_path / "model")
    assert lm.config == config
    assert jax.tree.structure(lm.params) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), lm.params, params))
    assert lm.tokenizer.eos_ids == tokenizer().eos_ids
    ids = lm.tokenizer.encode("tables: singer(id, name)")
    out = jaxspec.generate(lm, "tables: singer(id, name)", max_new_tokens=4, ignore_eos=True)
    first = np.argmax(np.asarray(forward(params, config, jnp.asarray([ids], jnp.int32)))[0, -1])
    assert out.ids[0][0] == first


def test_bfloat16_halves_the_file(tmp_path) -> None:
    params = init_params(LLAMA, jax.random.key(0))
    save_model(tmp_path / "wide", LLAMA, params, tokenizer())
    save_model(tmp_path / "narrow", LLAMA, params, tokenizer(), dtype=jnp.bfloat16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("wide", "narrow")]
    assert sizes[1] < 0.6 * sizes[0]
    kernel = jaxspec.load(tmp_path / "narrow").params["head"]["kernel"]
    assert np.array_equal(kernel, params["head"]["kernel"].astype(jnp.bfloat16).astype(jnp.float32))


def test_a_loaded_model_saves_as_it_was(tiny_model_folder, tmp_path) -> None:
    lm = jaxspec.load(tiny_model_folder)
    save_model(tmp_path / "again", lm.config, lm.params, lm.tokenizer)
    again = jaxspec.load(tmp_path / "again")
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), lm.params, again.params))
    prompt = tiny_model.CORPUS[0]
    assert again.tokenizer.encode(prompt) == lm.tokenizer.encode(prompt)


def test_nothing_is_overwritten_and_wrong_parameters_are_named(tmp_path) -> None:
    params = init_params(LLAMA, jax.random.key(0))
    wrong = params | {"head": {"kernel": jnp.zeros((16, 3))}}
    with pytest.raises(ValueError, match=r"head/kernel has shape \(16, 3\); the config needs \(16, \d+\)"):
        save_model(tmp_path / "model", LLAMA, wrong, tokenizer())
    with pytest.raises(ValueError, match="layer_1/attention_norm/scale has shape None"):
        save_model(tmp_path / "model", LLAMA, params | {"layer_1": {}}, tokenizer())
    assert not (tmp_path / "model").exists()
    save_model(tmp_path / "model", LLAMA, params, tokenizer())
    with pytest.raises(FileExistsError, match="already holds a model"):
        save_model(tmp_path / "model", LLAMA, params, tokenizer())
