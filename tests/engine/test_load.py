"""A loaded model decodes, whole or split over a mesh, and settings it cannot have are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec
from jaxspec.engine import load as module
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import chain_block
from jaxspec.models.quantized_kernel import QuantizedKernel
from jaxspec.weights.orbax import save_params
from jaxspec.weights.quantize import quantize, quantize_kernel
from jaxspec.weights.safetensors import SafetensorsFolder

PROMPTS = ["the cat sat on", "def add(a, b):", "one two three one two"]


@functools.lru_cache
def loaded(folder, devices: int = 1) -> jaxspec.LanguageModel:
    if devices == 1:
        return jaxspec.load(folder, dtype="float32")
    axes = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((devices,), ("model",), axis_types=axes, devices=jax.devices()[:devices])
    return jaxspec.load(folder, dtype="float32", sharding=jaxspec.partition(mesh))


def logits(lm: jaxspec.LanguageModel) -> np.ndarray:
    """Of a chain of nine tokens in two lanes, on top of a prefix of four."""
    ids = jnp.asarray(np.random.default_rng(0).integers(0, lm.config.vocabulary, (2, 13)), jnp.int32)
    cache = kv_cache.init_cache(lm.config, 2, 128, lm.cache_dtype)
    prefix = chain_block(ids[:, :4])
    output = jax.jit(lm.model)(lm.params, prefix, cache)
    cache = kv_cache.commit(cache, output.keys, output.values, prefix.depth, jnp.asarray([4, 3], jnp.int32))
    return np.asarray(jax.jit(lm.model)(lm.params, chain_block(ids[:, 4:]), cache).logits)


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_model_split_over_devices_says_the_same(tiny_model_folder, devices: int) -> None:
    whole, split = loaded(tiny_model_folder), loaded(tiny_model_folder, devices)
    kernels = [leaf for leaf in jax.tree.leaves(split.params) if leaf.ndim == 2]
    assert all(len(kernel.sharding.device_set) == devices for kernel in kernels)
    assert any(not kernel.sharding.is_fully_replicated for kernel in kernels)
    np.testing.assert_allclose(logits(split), logits(whole), atol=1e-5)


def test_a_model_lives_on_the_device_it_is_given(tiny_model_folder) -> None:
    device = jax.devices()[1]
    for place in (device, jax.sharding.SingleDeviceSharding(device)):
        lm = jaxspec.load(tiny_model_folder, dtype="float32", sharding=place)
        assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(lm.params))
    text = jaxspec.generate(lm, PROMPTS[0], max_new_tokens=4, ignore_eos=True)
    assert text.ids == jaxspec.generate(loaded(tiny_model_folder), PROMPTS[0], max_new_tokens=4, ignore_eos=True).ids


@pytest.mark.slow
def test_a_model_split_over_devices_generates(tiny_model_folder) -> None:
    whole, split = loaded(tiny_model_folder), loaded(tiny_model_folder, 4)
    drafter = jaxspec.drafters.context_ngram(width=3)
    expected = jaxspec.generate(whole, PROMPTS, max_new_tokens=24, ignore_eos=True)
    got = jaxspec.generate(split, PROMPTS, drafter=drafter, max_new_tokens=24, ignore_eos=True)
    assert got.ids == expected.ids and got.texts == expected.texts


@pytest.mark.parametrize(("name", "dtype"), [("float32", jnp.float32), ("bfloat16", jnp.bfloat16)])
def test_types(tiny_model_folder, name: str, dtype) -> None:
    lm = jaxspec.load(tiny_model_folder, dtype=name)
    assert lm.dtype == dtype and all(leaf.dtype == dtype for leaf in jax.tree.leaves(lm.params))
    assert lm.name == str(tiny_model_folder) and lm.tokenizer is not None


def test_auto_is_float32_on_cpu(tiny_model_folder) -> None:
    expected = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    assert jaxspec.load(tiny_model_folder).dtype == expected


@pytest.mark.parametrize("dtype", ["float16", "int8", ""])
def test_other_types_are_refused_before_anything_is_read(dtype: str) -> None:
    with pytest.raises(ValueError, match=f"dtype='{dtype}' is not one of float32, bfloat16 or auto"):
        jaxspec.load("no/such/model", dtype=dtype)


def test_of_kernels_to_be_quantised_one_is_held_at_a_time(tiny_model_folder, monkeypatch) -> None:
    float_model = jaxspec.load(tiny_model_folder, dtype="float32")
    kernels = {leaf.shape for leaf in jax.tree.leaves(float_model.params) if leaf.ndim == 2}
    expected = quantize(float_model, "int4:group=16")
    before = {id(array) for array in jax.live_arrays()}
    held = []

    def recorded(kernel, *settings):
        held.append(sum(array.shape in kernels and id(array) not in before for array in jax.live_arrays()))
        return quantize_kernel(kernel, *settings)

    monkeypatch.setattr(module, "quantize_kernel", recorded)
    lm = jaxspec.load(tiny_model_folder, dtype="float32", quantize="int4:group=16")
    assert held == [1] * 10  # four of each layer, the embedding and the head
    assert lm.name == expected.name and lm.cache_dtype == expected.cache_dtype and lm.model == expected.model
    assert jax.tree.structure(lm.params) == jax.tree.structure(expected.params)
    jax.tree.map(np.testing.assert_array_equal, lm.params, expected.params)


def test_our_own_checkpoints_are_quantised_as_they_are_loaded(tmp_path, tiny_model_folder) -> None:
    lm = loaded(tiny_model_folder)
    save_params(tmp_path / "own", lm.config, lm.params)
    own = jaxspec.load(tmp_path / "own", dtype="float32", quantize="int4:group=16")
    expected = quantize(lm, "int4:group=16").params
    assert isinstance(own.params["embedding"]["kernel"], QuantizedKernel)
    jax.tree.map(np.testing.assert_array_equal, own.params, expected)


def test_groups_that_do_not_divide_are_refused_before_weights_are_read(tiny_model_folder, monkeypatch) -> None:
    def read(self, name):
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(SafetensorsFolder, "read", read)
    with pytest.raises(ValueError, match="group=24 does not divide the 32 inputs of .*; use a divisor of 32"):
        jaxspec.load(tiny_model_folder, quantize="int4:group=24")
    with pytest.raises(AssertionError, match="was read"):
        jaxspec.load(tiny_model_folder, quantize="int4:group=16")
