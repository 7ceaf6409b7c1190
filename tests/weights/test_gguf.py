"""GGUF files written here: quantised types, the format's own conventions, and broken files."""

import gguf
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.models.config import ModelConfig
from jaxspec.models.from_gguf import config_from_gguf
from jaxspec.weights.gguf import GEMMA_LAYER, GLOBAL, IN_LAYER, GGUFFile, GGUFSource
from jaxspec.weights.parameters import assemble, entries

LLAMA = ModelConfig("llama", 13, 64, 32, 2, 4, 2, 16, context=128, norm_epsilon=1e-5, tied=True)
GEMMA = ModelConfig(
    "gemma3", 13, 64, 32, 2, 4, 1, 16, context=128, norm_offset=True, query_key_norm=True, sandwich_norm=True,
    embedding_scale=8.0, activation="gelu_tanh", tied=True, rope_theta=1e6, local_rope_theta=1e4, window=8,
    sliding=(True, True), norm_epsilon=1e-6,
)  # fmt: skip


def interleave(tensor: np.ndarray, heads: int) -> np.ndarray:
    """What converters do to llama's query and key rows."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def write(path, config: ModelConfig, quantised=gguf.GGMLQuantizationType.F32, **extra) -> dict[str, np.ndarray]:
    """A file of random weights; returns them under their Hugging Face names."""
    writer = gguf.GGUFWriter(path, config.family)
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.query_heads)
    writer.add_head_count_kv(config.key_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocabulary)
    if config.window:
        writer.add_sliding_window(config.window)
    for name, value in extra.items():
        writer.add_string(f"{config.family}.{name}", value)
    layer = {theirs: ours for ours, theirs in (GEMMA_LAYER if config.family == "gemma3" else IN_LAYER).items()}
    outer = {theirs: ours for ours, theirs in GLOBAL.items()}
    rng = np.random.default_rng(0)
    tensors = {}
    for entry in entries(config):
        for name, shape in zip(entry.names, entry.shapes, strict=True):
            tensor = rng.normal(size=shape).astype(np.float32)
            stored = tensor
            if config.family == "llama" and (".q_proj." in name or ".k_proj." in name):
                stored = interleave(tensor, config.query_heads if ".q_proj." in name else config.key_heads)
            if config.norm_offset and name.endswith("norm.weight"):
                stored = tensor + 1
            if name in outer:
                target = outer[name]
            else:
                _, _, index, *middle, kind = name.split(".")
                target = f"blk.{index}.{layer['.'.join(middle)]}.{kind}"
            if len(shape) == 2 and quantised != gguf.GGMLQuantizationType.F32:
                packed = gguf.quantize(stored, quantised)
                tensor_back = gguf.dequantize(packed, quantised)
                if stored is not tensor:
                    heads = config.query_heads if ".q_proj." in name else config.key_heads
                    tensor_back = tensor_back.reshape(heads, -1, 2, shape[1]).swapaxes(1, 2).reshape(shape)
                tensors[name] = tensor_back
                writer.add_tensor(target, packed, raw_dtype=quantised)
            else:
                tensors[name] = tensor
                writer.add_tensor(target, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_llama_tensors_come_back(tmp_path, kind: str) -> None:
    path = tmp_path / "m.gguf"
    tensors = write(path, LLAMA, gguf.GGMLQuantizationType[kind])
    file = GGUFFile(path)
    config = config_from_gguf(file.metadata, file.tensors)
    assert config.norm_epsilon == pytest.approx(1e-5)
    source = GGUFSource(file, config)
    assert set(source.names()) == set(tensors)
    for name, tensor in tensors.items():
        assert source.shape(name) == tensor.shape
        np.testing.assert_allclose(source.read(name), tensor, atol=1e-6, err_msg=name)
    assert assemble(source, config, dtype=jnp.float32)["layer_0"]["mlp"]["down"]["kernel"].shape == (32, 64)


def test_gemma_norms_lose_their_one(tmp_path) -> None:
    path = tmp_path / "m.gguf"
    tensors = write(path, GEMMA)
    file = GGUFFile(path)
    config = config_from_gguf(file.metadata, file.tensors)
    assert (config.sliding, config.window, config.local_rope_theta) == ((True, True), 8, 1e4)
    assert config.embedding_scale == 8.0 and config.sandwich_norm and config.query_key_norm
    source = GGUFSource(file, config)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(source.read(name), tensor, atol=1e-6, err_msg=name)


def test_unknown_metadata_is_refused(tmp_path) -> None:
    path = tmp_path / "m.gguf"
    write(path, LLAMA, **{"expert_magic": "yes"})
    file = GGUFFile(path)
    with pytest.raises(ValueError, match="not honoured: (llama.)?expert_magic='yes'"):
        config_from_gguf(file.metadata, file.tensors)
    with pytest.raises(ValueError, match="general.architecture='mamba'"):
        config_from_gguf({"general.architecture": "mamba"}, [])
    with pytest.raises(ValueError, match="llama.embedding_length is missing"):
        config_from_gguf({"general.architecture": "llama", "llama.attention.head_count": 2}, [])


def test_truncated_files_are_refused(tmp_path) -> None:
    path = tmp_path / "m.gguf"
    write(path, LLAMA)
    whole = path.read_bytes()
    for size in (*range(0, 40, 3), 100, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not a GGUF file|truncated|corrupt"):
            GGUFFile(path)


def test_what_is_no_gguf_file_is_refused(tmp_path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"PK\x03\x04" * 20)
    with pytest.raises(ValueError, match="not a GGUF file"):
        GGUFFile(path)
    with pytest.raises(FileNotFoundError, match="absent.gguf does not exist"):
        GGUFFile(tmp_path / "absent.gguf")


def test_llama3_factors_are_honoured_or_refused(tmp_path) -> None:
    path = tmp_path / "m.gguf"
    write(path, LLAMA)
    file = GGUFFile(path)
    import dataclasses

    from jaxspec.models.config import RopeScaling
    from jaxspec.models.rope import frequencies

    plain = config_from_gguf(file.metadata, file.tensors)
    scaled = dataclasses.replace(plain, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 8192))
    factors = frequencies(plain, sliding=False) / frequencies(scaled, sliding=False)
    assert config_from_gguf(file.metadata, file.tensors, factors.tolist()) == scaled
    with pytest.raises(ValueError, match="rope_freqs.weight is not"):
        config_from_gguf(file.metadata, file.tensors, (factors * np.linspace(1, 2, 8)).tolist())
