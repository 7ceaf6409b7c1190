"""Hugging Face folders read as the safetensors library wrote them; damaged ones are refused before use."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxspec.weights.safetensors import SafetensorsFolder

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.int16, np.int8, np.uint8, bool]


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "a.weight": random.normal(size=(3, 5)).astype(np.float32),
        "b.bias": random.normal(size=7).astype(np.float16),
        "c.scalar": np.array(2.5, np.float32),
        "d.empty": np.zeros((0, 4), np.float32),
    }


def same(folder, expected: dict[str, np.ndarray]) -> None:
    source = SafetensorsFolder(folder)
    assert set(source.names()) == set(expected)
    for name, tensor in expected.items():
        assert source.shape(name) == tensor.shape
        read = source.read(name)
        assert read.dtype == tensor.dtype
        np.testing.assert_array_equal(read, tensor)


def test_one_file(tmp_path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    same(tmp_path, tensors())


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_type(tmp_path, dtype) -> None:
    expected = {"x": np.arange(-6, 6).reshape(3, 4).astype(dtype), "y": np.ones(1, dtype)}
    save_file(expected, tmp_path / "model.safetensors")
    same(tmp_path, expected)


def shards(folder, first=("a.weight", "d.empty")) -> dict[str, np.ndarray]:
    everything = tensors()
    names = {name: f"model-0000{1 if name in first else 2}-of-00002.safetensors" for name in everything}
    for shard in set(names.values()):
        save_file({name: everything[name] for name in names if names[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return everything


def test_shards(tmp_path) -> None:
    same(tmp_path, shards(tmp_path))


def test_a_missing_shard_is_named(tmp_path) -> None:
    shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors"):
        SafetensorsFolder(tmp_path)


def test_a_tensor_in_two_shards(tmp_path) -> None:
    shards(tmp_path)
    save_file(tensors(), tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(ValueError, match="repeats tensor a.weight"):
        SafetensorsFolder(tmp_path)


@pytest.mark.parametrize("index", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../x"}}'])
def test_a_bad_index(tmp_path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match="model.safetensors.index.json"):
        SafetensorsFolder(tmp_path)


def test_a_folder_without_weights(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="neither model.safetensors nor"):
        SafetensorsFolder(tmp_path)


def test_a_file_cut_anywhere_is_refused(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(tensors(), path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="model.safetensors.*(truncated|corrupt)"):
            SafetensorsFolder(tmp_path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="truncated or corrupt"):
        SafetensorsFolder(tmp_path)


def test_a_git_lfs_pointer(tmp_path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 269060552\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(ValueError, match="git lfs pull"):
        SafetensorsFolder(tmp_path)


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD_HEADERS = {
    "not JSON": b"{{",
    "not UTF-8": b"\xff\xfe",
    "a list": b"[1]",
    "an entry that is none": {"x": 3},
    "no offsets": {"x": {"dtype": "F32", "shape": [2]}},
    "no shape": {"x": {"dtype": "F32", "data_offsets": [0, 8]}},
    "one offset": {"x": GOOD | {"data_offsets": [0]}},
    "offsets of text": {"x": GOOD | {"data_offsets": ["0", "8"]}},
    "a negative shape": {"x": GOOD | {"shape": [-2, -1]}},
    "too large a shape": {"x": GOOD | {"shape": [3]}},
    "offsets beyond the file": {"x": GOOD | {"shape": [4], "data_offsets": [0, 16]}},
    "a gap": {"x": GOOD | {"shape": [1], "data_offsets": [4, 8]}},
    "an overlap": {"x": GOOD, "y": GOOD},
    "an unknown type": {"x": GOOD | {"dtype": "F4"}},
    "deep nesting": b"[" * 100_000,
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_headers_that_describe_nothing(tmp_path, case: str) -> None:
    header = BAD_HEADERS[case]
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))
    with pytest.raises(ValueError, match="model.safetensors"):
        SafetensorsFolder(tmp_path)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_wrapped_model(tmp_path, prefix: str) -> None:
    one = np.ones(2, np.float32)
    text = {f"{prefix}embed_tokens.weight": one, f"{prefix}layers.0.mlp.up_proj.weight": 2 * one}
    beside = {"vision_tower.x": one, "model.vision_tower.y": one, "multi_modal_projector.z": one}
    save_file(text | beside | {"surprise.weight": one}, tmp_path / "model.safetensors")
    source = SafetensorsFolder(tmp_path, text_only=True)
    assert set(source.names()) == {
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "surprise.weight",
    }
    np.testing.assert_array_equal(source.read("model.layers.0.mlp.up_proj.weight"), 2 * one)
