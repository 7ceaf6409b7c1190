"""A loaded model decodes, whole or split over a mesh, and settings it cannot have are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import chain_block

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
