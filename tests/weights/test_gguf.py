"""GGUF files: every type the library can read, the format's own conventions undone, damage refused."""

import dataclasses

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from tiny_gguf import write_gguf

from jaxspec.models.config import ModelConfig
from jaxspec.weights.gguf import GGUFFile, GGUFSource
from jaxspec.weights.parameters import entries

LLAMA = ModelConfig("llama", 24, 32, 64, 2, 4, 2, 8)
GEMMA = dataclasses.replace(
    LLAMA, family="gemma3", query_key_norm=True, sandwich_norm=True, norm_offset=True, tied=True
)
QWEN = dataclasses.replace(LLAMA, family="qwen2", qkv_bias=True)
QUANTISED = [Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.TQ1_0, Type.TQ2_0]


def published(config: ModelConfig) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.normal(size=shape).astype(np.float32)
        for entry in entries(config)
        for name, shape in zip(entry.names, entry.shapes, strict=True)
    }


@pytest.mark.parametrize("config", [LLAMA, GEMMA, QWEN], ids=lambda config: config.family)
def test_names_row_order_and_norms_come_back(tmp_path, config: ModelConfig) -> None:
    weights = published(config)
    path = write_gguf(tmp_path / "x.gguf", config.family, weights, {"block_count": 2}, heads=(4, 2))
    source = GGUFSource(GGUFFile(path), config)
    assert set(source.names()) == set(weights)
    for name, tensor in weights.items():
        assert source.shape(name) == tensor.shape
        np.testing.assert_allclose(source.read(name), tensor, atol=1e-6)  # gemma: (1 + w) - 1


def test_biases_of_llama_rows_come_back_too(tmp_path) -> None:
    config = dataclasses.replace(LLAMA, qkv_bias=True)
    weights = published(config)
    source = GGUFSource(GGUFFile(write_gguf(tmp_path / "x.gguf", "llama", weights, {}, heads=(4, 2))), config)
    for part in "qkv":
        name = f"model.layers.1.self_attn.{part}_proj.bias"
        np.testing.assert_array_equal(source.read(name), weights[name])


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_quantised_types(tmp_path, kind: Type) -> None:
    tensor = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32)
    raw = gguf.quantize(tensor, kind)
    path = write_gguf(tmp_path / "x.gguf", "qwen2", {"lm_head.weight": tensor}, {}, quantised=kind)
    read = GGUFFile(path).read("output.weight")
    assert read.dtype == np.float32 and read.shape == tensor.shape
    np.testing.assert_array_equal(read, gguf.dequantize(raw, kind))
    if kind not in (Type.TQ1_0, Type.TQ2_0):  # of three values
        np.testing.assert_allclose(read, tensor, atol=0.5)


def stored(tmp_path, kind: Type, rows: int = 2, seed: int = 0) -> tuple[GGUFFile, np.ndarray]:
    """A tensor of 256 columns whose blocks hold random bytes; scales are kept finite."""
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    per_row = 256 // gguf.GGML_QUANT_SIZES[kind][0] * block_bytes
    raw = np.random.default_rng(seed).integers(0, 60, (rows, per_row), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("x", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GGUFFile(tmp_path / "x.gguf"), raw


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ2_XXS", "IQ3_S"])
def test_types_that_can_only_be_read(tmp_path, name: str) -> None:
    file, raw = stored(tmp_path, Type[name])
    np.testing.assert_array_equal(file.read("x"), gguf.dequantize(raw, Type[name]))
    assert file.read("x").shape == (2, 256)


def test_q8_0_worked_out_by_hand(tmp_path) -> None:
    file, raw = stored(tmp_path, Type.Q8_0)
    blocks = raw.reshape(-1, 34)
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    expected = (scales * blocks[:, 2:].view(np.int8).astype(np.float32)).reshape(2, 256)
    np.testing.assert_array_equal(file.read("x"), expected)


def test_a_type_the_library_cannot_read(tmp_path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("x", np.ones((2, 4), np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="x has type I32"):
        GGUFFile(tmp_path / "x.gguf").read("x")


def test_metadata(tmp_path) -> None:
    said = {"block_count": 2, "rope.freq_base": 0.5, "general.name": "naïve", "tokenizer.ggml.tokens": ["a", "ж"]}
    metadata = GGUFFile(write_gguf(tmp_path / "x.gguf", "llama", {}, said)).metadata
    assert metadata["general.architecture"] == "llama" and metadata["llama.block_count"] == 2
    assert metadata["llama.rope.freq_base"] == 0.5 and metadata["general.name"] == "naïve"
    assert metadata["tokenizer.ggml.tokens"] == ["a", "ж"]


def test_a_file_cut_anywhere_is_refused(tmp_path) -> None:
    weights = {"model.norm.weight": np.ones(64, np.float32), "lm_head.weight": np.ones((3, 32), np.float16)}
    said = {"block_count": 2, "tokenizer.ggml.tokens": ["a", "bc"] * 4, "general.name": "x"}
    whole = write_gguf(tmp_path / "whole.gguf", "llama", weights, said).read_bytes()
    used = max(int(t.data_offset + t.n_bytes) for t in gguf.GGUFReader(tmp_path / "whole.gguf").tensors)
    path = tmp_path / "cut.gguf"
    for size in [*range(0, 400, 3), *range(400, used, 17), used - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut.gguf"):
            GGUFFile(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes do not begin with GGUF"),
        (b"PK\x03\x04 a zip archive", "do not begin with GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"GGUF", "truncated or corrupt"),
        (b"GGUF\x63\0\0\0" + bytes(40), "truncated or corrupt"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 40, "truncated or corrupt"),
    ],
)
def test_other_files(tmp_path, content: bytes, said: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=f"x.gguf.*{said}"):
        GGUFFile(tmp_path / "x.gguf")


def test_no_file(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="none.gguf does not exist"):
        GGUFFile(tmp_path / "none.gguf")


def test_leftover_tensors_keep_their_names(tmp_path) -> None:
    extra = {"blk.0.ssm_a": np.ones(4, np.float32), "rope_freqs.weight": np.ones(4, np.float32)}
    path = write_gguf(tmp_path / "x.gguf", "llama", published(LLAMA), {}, heads=(4, 2), extra=extra)
    names = set(GGUFSource(GGUFFile(path), LLAMA).names())
    assert "blk.0.ssm_a" in names and "rope_freqs.weight" not in names
