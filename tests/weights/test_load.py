"""One model in every format gives the same parameters; what cannot be loaded is refused before weights are read."""

import json
import shutil

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model
from safetensors.numpy import load_file, save_file
from tiny_gguf import write_gguf

from jaxspec.models.from_huggingface import config_from_huggingface
from jaxspec.weights.load import read_model
from jaxspec.weights.orbax import save_params
from jaxspec.weights.parameters import entries, partition

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
GEMMA = SMALL | {"model_type": "gemma3_text", "query_pre_attn_scalar": 8, "sliding_window": 16}
FAMILIES = {
    "llama": SMALL | {"model_type": "llama"},
    "qwen2": SMALL | {"model_type": "qwen2"},
    "qwen3": SMALL | {"model_type": "qwen3", "tie_word_embeddings": True},
    "gemma3": GEMMA,
}


def write_folder(folder, described: dict) -> dict[str, np.ndarray]:
    """A Hugging Face folder with random weights; returns them."""
    tiny_model.write_folder(folder)
    size = tiny_model.build_tokenizer().get_vocab_size()
    (folder / "config.json").write_text(json.dumps(described | {"vocab_size": size}))
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(size=shape).astype(np.float32)
        for entry in entries(config_from_huggingface(described | {"vocab_size": size}))
        for name, shape in zip(entry.names, entry.shapes, strict=True)
    }
    save_file(weights, folder / "model.safetensors")
    return weights


def tokenizer_metadata() -> dict:
    backend = json.loads(tiny_model.build_tokenizer().to_str())
    vocabulary = backend["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    said = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [3 if token in tiny_model.SPECIAL else 1 for token in tokens],
        "merges": [" ".join(merge) for merge in backend["model"]["merges"]],
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in said.items()} | {
        "tokenizer.chat_template": tiny_model.CHAT_TEMPLATE
    }


def gguf_metadata(family: str) -> dict:
    said = {
        "block_count": 2,
        "context_length": 128,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 8,
        "attention.value_length": 8,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6 if family == "gemma3" else 1e4,
    }
    return said | ({"attention.sliding_window": 16} if family == "gemma3" else {}) | tokenizer_metadata()


@pytest.mark.parametrize("family", FAMILIES)
def test_folder_and_gguf_file_are_one_model(tmp_path, family: str) -> None:
    weights = write_folder(tmp_path / "folder", FAMILIES[family])
    path = write_gguf(tmp_path / "x.gguf", family, weights, gguf_metadata(family), heads=(4, 2))
    config, params, tokenizer = read_model(tmp_path / "folder", dtype=jnp.float32)
    other_config, other_params, other_tokenizer = read_model(path, dtype=jnp.float32)
    assert (config.family, config.window, config.sliding) == (family, other_config.window, other_config.sliding)
    assert other_config.norm_epsilon == pytest.approx(config.norm_epsilon)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, other_params)
    assert tokenizer is not None and other_tokenizer is not None
    text = "the cat sat <|im_end|> déjà"
    assert tokenizer.encode(text) == other_tokenizer.encode(text)
    assert tokenizer.chat("hi") == other_tokenizer.chat("hi") and tokenizer.eos_ids == other_tokenizer.eos_ids


def test_quantised_files_load_close_by(tmp_path) -> None:
    weights = write_folder(tmp_path / "folder", FAMILIES["llama"])
    kind = gguf.GGMLQuantizationType.Q8_0
    path = write_gguf(tmp_path / "x.gguf", "llama", weights, gguf_metadata("llama"), heads=(4, 2), quantised=kind)
    _, params, _ = read_model(tmp_path / "folder", dtype=jnp.float32)
    _, quantised, _ = read_model(path, dtype=jnp.bfloat16)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b.astype(a.dtype), atol=0.05), params, quantised)


def test_llama3_divisors_in_a_file(tmp_path) -> None:
    weights = write_folder(tmp_path / "folder", FAMILIES["llama"])
    metadata = gguf_metadata("llama") | {"rope.freq_base": 500000.0}
    path = write_gguf(
        tmp_path / "x.gguf",
        "llama",
        weights,
        metadata,
        heads=(4, 2),
        extra={"rope_freqs.weight": np.full(4, 3.0, np.float32)},
    )
    with pytest.raises(ValueError, match="rope_freqs.weight"):
        read_model(path, dtype=jnp.float32)


def test_a_wrapped_text_model(tmp_path) -> None:
    weights = write_folder(tmp_path / "plain", GEMMA)
    write_folder(tmp_path / "wrapped", GEMMA)
    described = json.loads((tmp_path / "plain" / "config.json").read_text())
    around = {"model_type": "gemma3", "text_config": described, "vision_config": {"hidden_size": 8}}
    (tmp_path / "wrapped" / "config.json").write_text(json.dumps(around))
    beside = {"vision_tower.embeddings.weight": np.ones((2, 2), np.float32)}
    renamed = {f"language_model.{name}": tensor for name, tensor in weights.items()}
    save_file(renamed | beside, tmp_path / "wrapped" / "model.safetensors")
    config, params, _ = read_model(tmp_path / "plain", dtype=jnp.float32)
    wrapped_config, wrapped_params, _ = read_model(tmp_path / "wrapped", dtype=jnp.float32)
    assert wrapped_config == config
    jax.tree.map(np.testing.assert_array_equal, params, wrapped_params)


def test_our_own_checkpoints_with_and_without_a_tokenizer(tmp_path, tiny_model_folder) -> None:
    config, params, tokenizer = read_model(tiny_model_folder, dtype=jnp.float32)
    save_params(tmp_path / "own", config, params)
    again, same, nothing = read_model(tmp_path / "own", dtype=jnp.float32)
    assert again == config and nothing is None
    jax.tree.map(np.testing.assert_array_equal, params, same)
    assert tokenizer is not None
    tokenizer.save(tmp_path / "own")
    _, _, reread = read_model(tmp_path / "own", dtype=jnp.float32)
    assert reread is not None and reread.chat("hi") == tokenizer.chat("hi")


def test_onto_a_mesh(tiny_model_folder) -> None:
    mesh = jax.make_mesh((4,), ("model",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    _, params, _ = read_model(tiny_model_folder, dtype=jnp.float32, sharding=partition(mesh))
    _, whole, _ = read_model(tiny_model_folder, dtype=jnp.float32)
    assert params["layer_0"]["mlp"]["gate_up"]["kernel"].addressable_shards[0].data.shape == (32, 32)
    jax.tree.map(np.testing.assert_array_equal, params, whole)


def test_a_pulled_model_goes_by_its_name(tmp_path, tiny_model_folder) -> None:
    shutil.copytree(tiny_model_folder, tmp_path / "checkpoints" / "owner--model")
    config, _, _ = read_model("owner/model", dtype=jnp.float32, folder=tmp_path / "checkpoints")
    assert config.family == "llama"


@pytest.fixture
def copy(tmp_path, tiny_model_folder):
    return shutil.copytree(tiny_model_folder, tmp_path / "copy")


def test_a_missing_description(copy) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no config.json"):
        read_model(copy, dtype=jnp.float32)


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_damaged_description(copy, content: str) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json is not"):
        read_model(copy, dtype=jnp.float32)


def test_a_missing_tokenizer_is_said_before_weights_are_read(copy) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="tokenizer.json is missing"):
        read_model(copy, dtype=jnp.float32)


def test_weights_cut_short(copy) -> None:
    raw = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(raw[:-1])
    with pytest.raises(ValueError, match="model.safetensors is truncated"):
        read_model(copy, dtype=jnp.float32)


def test_weights_of_another_model(copy) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ValueError, match="missing model.norm.weight"):
        read_model(copy, dtype=jnp.float32)


def test_an_architecture_that_is_not_honoured(copy) -> None:
    described = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(described | {"num_experts": 4}))
    with pytest.raises(ValueError, match="num_experts=4"):
        read_model(copy, dtype=jnp.float32)


@pytest.mark.parametrize("source", ["none.gguf", "./none", "/nowhere/at/all"])
def test_paths_that_do_not_exist(tmp_path, source: str) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_model(source, dtype=jnp.float32, folder=tmp_path)


def test_a_name_nobody_knows(tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown model 'gpt-5'.*smollm2-135m"):
        read_model("gpt-5", dtype=jnp.float32, folder=tmp_path)


def test_a_safetensors_file_instead_of_its_folder(tiny_model_folder) -> None:
    with pytest.raises(ValueError, match="not a GGUF file.*folder"):
        read_model(tiny_model_folder / "model.safetensors", dtype=jnp.float32)
