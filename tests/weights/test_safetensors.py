"""Folders of safetensors: every type, shards, and every way a file can be broken."""

import json
import struct

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxspec.models.config import ModelConfig
from jaxspec.weights.parameters import assemble, entries
from jaxspec.weights.safetensors import SafetensorsFolder

CONFIG = ModelConfig("qwen2", 13, 8, 12, 2, 4, 2, 2, qkv_bias=True)


def tensors_of(config: ModelConfig, dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(dtype)
        for entry in entries(config)
        for name, shape in zip(entry.names, entry.shapes, strict=True)
    }


def write(folder, tensors) -> None:
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_every_parameter_lands_where_it_belongs(tmp_path, dtype) -> None:
    tensors = tensors_of(CONFIG, dtype)
    write(tmp_path, tensors)
    params = assemble(SafetensorsFolder(tmp_path), CONFIG, dtype=jnp.float32)
    layer, theirs = params["layer_1"], "model.layers.1."
    q, k, v = (tensors[f"{theirs}self_attn.{part}_proj.weight"].astype(np.float32) for part in "qkv")
    np.testing.assert_array_equal(layer["attention"]["qkv"]["kernel"], np.concatenate([q, k, v]).T)
    bias = [tensors[f"{theirs}self_attn.{part}_proj.bias"].astype(np.float32) for part in "qkv"]
    np.testing.assert_array_equal(layer["attention"]["qkv"]["bias"], np.concatenate(bias))
    down = tensors[f"{theirs}mlp.down_proj.weight"].astype(np.float32)
    np.testing.assert_array_equal(layer["mlp"]["down"]["kernel"], down.T)
    np.testing.assert_array_equal(params["head"]["kernel"], tensors["lm_head.weight"].astype(np.float32).T)


def test_shards_are_joined_by_their_index(tmp_path) -> None:
    tensors = tensors_of(CONFIG)
    names = sorted(tensors)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    source = SafetensorsFolder(tmp_path)
    assert all(np.array_equal(source.read(name), tensors[name]) for name in names)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="two.safetensors, which is missing"):
        SafetensorsFolder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(ValueError, match="outside the folder"):
        SafetensorsFolder(tmp_path)


def test_all_that_does_not_fit_is_named_at_once(tmp_path) -> None:
    tensors = tensors_of(CONFIG)
    del tensors["model.norm.weight"]
    tensors["model.extra.weight"] = np.zeros(3, np.float32)
    tensors["lm_head.weight"] = np.zeros((2, 2), np.float32)
    write(tmp_path, tensors)
    with pytest.raises(ValueError) as caught:
        assemble(SafetensorsFolder(tmp_path), CONFIG, dtype=jnp.float32)
    for part in ("missing model.norm.weight", "unexpected model.extra.weight", "lm_head.weight has shape (2, 2)"):
        assert part in str(caught.value)


def test_every_truncation_is_refused(tmp_path) -> None:
    write(tmp_path, {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.float32)})
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated|corrupt"):
            SafetensorsFolder(tmp_path)
    path.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match="truncated or corrupt"):
        SafetensorsFolder(tmp_path)


def header(**tensors) -> bytes:
    raw = json.dumps(tensors).encode()
    return struct.pack("<Q", len(raw)) + raw


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
        (struct.pack("<Q", 2**40) + b"{}", "header claims"),
        (struct.pack("<Q", 4) + b"nope", "corrupt: its header"),
        (header(a=dict(dtype="F4", shape=[1], data_offsets=[0, 4])) + b"0000", "type F4"),
        (header(a=dict(dtype="F32", shape=[2], data_offsets=[0, 4])) + b"0000", "tensor a does not fill"),
        (
            header(
                a=dict(dtype="F32", shape=[1], data_offsets=[0, 4]), b=dict(dtype="F32", shape=[1], data_offsets=[0, 4])
            )
            + b"0000",
            "tensor b does not fill",
        ),
    ],
)
def test_broken_headers_are_refused(tmp_path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        SafetensorsFolder(tmp_path)


def test_a_folder_without_weights_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="neither model.safetensors nor"):
        SafetensorsFolder(tmp_path)
