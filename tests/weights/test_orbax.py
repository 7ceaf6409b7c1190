"""Our own checkpoints come back bit by bit, in any type, on any mesh; what is none is refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.models.config import ModelConfig, RopeScaling
from jaxspec.weights.orbax import CONFIG_FILE, restore_params, save_params
from jaxspec.weights.parameters import parameter_shapes, partition

CONFIG = ModelConfig(
    "gemma3",
    24,
    16,
    32,
    2,
    4,
    2,
    8,
    rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 8192),
    window=5,
    sliding=(True, False),
    local_rope_theta=100.0,
    final_softcap=30.0,
    query_key_norm=True,
    sandwich_norm=True,
)


def random_params(dtype=jnp.float32):
    shapes = parameter_shapes(CONFIG, dtype)
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    made = [jax.random.normal(key, leaf.shape, dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, made)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_params(folder, CONFIG, random_params())
    return folder


def test_round_trip(folder) -> None:
    config, params = restore_params(folder, dtype=jnp.float32)
    assert config == CONFIG and hash(config) == hash(CONFIG)
    jax.tree.map(np.testing.assert_array_equal, params, random_params())


def test_in_another_type(folder) -> None:
    _, params = restore_params(folder, dtype=jnp.bfloat16)
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), random_params())
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_onto_a_mesh(folder) -> None:
    mesh = jax.make_mesh((4,), ("model",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    _, params = restore_params(folder, dtype=jnp.float32, sharding=partition(mesh))
    kernel = params["layer_0"]["mlp"]["down"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (8, 16)
    jax.tree.map(np.testing.assert_array_equal, params, random_params())


def test_a_checkpoint_is_not_overwritten(folder) -> None:
    with pytest.raises(FileExistsError, match="already holds a checkpoint"):
        save_params(folder, CONFIG, random_params())


def test_a_folder_without_one(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=CONFIG_FILE):
        restore_params(tmp_path, dtype=jnp.float32)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", CONFIG_FILE),
        ("[]", CONFIG_FILE),
        ("{}", CONFIG_FILE),
        (json.dumps(dataclasses.asdict(CONFIG) | {"experts": 8}), "does not know: experts"),
        (json.dumps(dataclasses.asdict(CONFIG) | {"key_heads": 3}), "key_heads=3"),
    ],
)
def test_a_damaged_description(tmp_path, content: str, said: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(content)
    with pytest.raises(ValueError, match=said):
        restore_params(tmp_path, dtype=jnp.float32)


@pytest.mark.parametrize("change", [{"mlp_width": 48}, {"tied": True}, {"layers": 1, "sliding": [True]}])
def test_parameters_of_another_model(folder, tmp_path, change: dict) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / CONFIG_FILE).write_text(json.dumps(dataclasses.asdict(CONFIG) | change))
    with pytest.raises(ValueError, match="does not hold the parameters"):
        restore_params(copy, dtype=jnp.float32)


def test_damaged_parameters(folder, tmp_path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    largest = max((path for path in (copy / "params").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(ValueError, match="does not hold the parameters"):
        restore_params(copy, dtype=jnp.float32)
    shutil.rmtree(copy / "params")
    with pytest.raises(ValueError, match="does not hold the parameters"):
        restore_params(copy, dtype=jnp.float32)
