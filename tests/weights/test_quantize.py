"""Quantised kernels hold the bytes they should, and mean the numbers that a plain NumPy reference says."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from small_transformer import CONFIG, small_transformer
from toy_model import toy_model

import jaxspec
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import chain_block
from jaxspec.models.quantized_kernel import TILE, QuantizedKernel, quantized_columns
from jaxspec.models.transformer import matmul
from jaxspec.weights.parameters import parameter_shapes
from jaxspec.weights.quantize import Quantization, parse_quantization, quantize, quantize_kernel

OF_BYTES = [(8, None), (8, 16), (4, None), (4, 16)]
CASES = [*OF_BYTES, (3, None), (3, 16)]
WORDS = {8: (1, 1), 4: (2, 1), 3: (8, 3)}  # weights and bytes


def unpacked(kernel: QuantizedKernel) -> np.ndarray:
    """The numbers a packed kernel stands for, byte by byte as its docstring says."""
    packed, scale = np.asarray(kernel.packed), np.asarray(kernel.scale.astype(jnp.float32))
    weights, width = WORDS[kernel.bits]
    groups, rows, columns = packed.shape
    height = rows // width
    out = np.zeros((groups * height * weights, columns), np.float32)
    for group in range(groups):
        for row in range(height):
            word = sum(packed[group, byte * height + row].astype(int) << (8 * byte) for byte in range(width))
            for slab in range(weights):
                unsigned = (word >> (kernel.bits * slab)) % 2**kernel.bits
                level = (unsigned - 2 ** (kernel.bits - 1)).astype(np.float32)
                out[group * height * weights + slab * height + row] = level * scale[group]
    return out


def random_kernel(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def logits(lm: jaxspec.LanguageModel) -> np.ndarray:
    """Of three chains of nine tokens on top of a prefix of four."""
    ids = jnp.asarray(np.random.default_rng(0).integers(0, lm.config.vocabulary, (3, 13)), jnp.int32)
    cache = kv_cache.init_cache(lm.config, 3, 128, lm.cache_dtype)
    prefix = chain_block(ids[:, :4])
    output = jax.jit(lm.model)(lm.params, prefix, cache)
    cache = kv_cache.commit(cache, output.keys, output.values, prefix.depth, jnp.asarray([4, 3, 4], jnp.int32))
    return np.asarray(jax.jit(lm.model)(lm.params, chain_block(ids[:, 4:]), cache).logits)


def with_unpacked_weights(lm: jaxspec.LanguageModel) -> jaxspec.LanguageModel:
    """A quantised model with plain kernels in place of its own."""

    def replace(leaf):
        return jnp.asarray(unpacked(leaf), lm.dtype) if isinstance(leaf, QuantizedKernel) else leaf

    params = jax.tree.map(replace, lm.params, is_leaf=lambda leaf: isinstance(leaf, QuantizedKernel))
    return dataclasses.replace(lm, params=params)


@functools.lru_cache
def untied() -> jaxspec.LanguageModel:
    """A transformer with a head of its own, biases and a vocabulary wider than a tile."""
    config = dataclasses.replace(
        CONFIG,
        family="qwen2",
        vocabulary=TILE + 61,
        tied=False,
        qkv_bias=True,
        mlp_width=2 * TILE,
        layers=1,
        sliding=(),
    )
    model = jaxspec.transformer_fn(config)
    cache = kv_cache.init_cache(config, 1, 128, jnp.float32)
    params = model.module.init(jax.random.key(0), chain_block(jnp.zeros((1, 1), jnp.int32)), cache)["params"]
    noise = iter(jax.random.split(jax.random.key(1), 100))
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(next(noise), p.shape), params)
    return jaxspec.LanguageModel(config, model, params, None, jnp.float32, jnp.dtype(jnp.float32), "untied")


@pytest.mark.parametrize(("bits", "group"), CASES)
def test_every_weight_goes_to_the_nearest_level(bits: int, group: int | None) -> None:
    kernel = random_kernel(48, 5)
    kernel[:, 2] = 0
    quantized = quantize_kernel(jnp.asarray(kernel), bits, group)
    assert quantized.shape == (48, 5) and quantized.group == (group or 48)
    grouped = kernel.reshape(-1, quantized.group, 5)
    largest = np.abs(grouped).max(axis=1)
    scale = np.asarray(quantized.scale.astype(jnp.float32))
    wanted = np.where(largest > 0, largest / (2 ** (bits - 1) - 0.5), 1)
    np.testing.assert_allclose(scale, wanted, rtol=2**-8 if group else 1e-6)
    off = np.abs(unpacked(quantized).reshape(grouped.shape) - grouped) / scale[:, None]
    assert off.max() <= (0.5 + 2 ** (bits - 9) if group else 0.5 + 1e-4)  # a rounded scale may miss the largest
    np.testing.assert_array_equal(unpacked(quantized)[:, 2], 0)


@pytest.mark.parametrize(("bits", "group"), OF_BYTES)
def test_levels_and_scales_are_those_of_qwix(bits: int, group: int | None) -> None:
    kernel = jnp.asarray(random_kernel(64, 7, seed=1))
    theirs = qwix.quantize(
        kernel,
        {8: jnp.int8, 4: jnp.int4}[bits],
        channelwise_axes=(1,),
        tiled_axes={0: group} if group else None,
        scale_dtype=jnp.bfloat16 if group else None,
    )
    ours = quantize_kernel(kernel, bits, group)
    scale = np.asarray(ours.scale.astype(jnp.float32))
    np.testing.assert_allclose(scale, np.asarray(theirs.scale, np.float32).reshape(scale.shape), rtol=1e-6)
    levels = unpacked(dataclasses.replace(ours, scale=jnp.ones_like(ours.scale)))
    apart = np.abs(levels - np.asarray(theirs.qvalue, np.float32))
    # They round to levels of the scale before it is rounded: of a weight near a midpoint to the other side.
    assert apart.max() <= 1 and np.mean(apart) <= (bits / 80 if group else 0.005)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("bits", "group"), CASES)
@pytest.mark.parametrize("columns", [5, TILE, 2 * TILE + 3])
def test_products_with_a_kernel(bits: int, group: int | None, columns: int, dtype) -> None:
    """Whole tiles, a last tile that overlaps, fewer columns than a tile; one row and several."""
    kernel = random_kernel(32, columns, seed=2)
    quantized = quantize_kernel(jnp.asarray(kernel), bits, group)
    meant = np.asarray(jnp.asarray(unpacked(quantized)).astype(dtype).astype(jnp.float32), np.float64)
    for shape in ((1, 1, 32), (2, 3, 32)):
        x = jnp.asarray(np.random.default_rng(3).normal(size=shape), dtype)
        got = jax.jit(matmul)(x, quantized)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, np.asarray(x.astype(jnp.float32), np.float64) @ meant, atol=1e-4)


@pytest.mark.parametrize(("bits", "group"), CASES)
def test_columns_of_a_kernel(bits: int, group: int | None) -> None:
    kernel = random_kernel(32, 11, seed=4)
    ids = jnp.asarray([[3, 0, 10], [7, 7, 1]], jnp.int32)
    quantized = quantize_kernel(jnp.asarray(kernel), bits, group)
    expected = unpacked(quantized)
    np.testing.assert_array_equal(quantized.astype(jnp.float32), expected)
    np.testing.assert_array_equal(quantized_columns(quantized, ids, jnp.float32), expected.T[np.asarray(ids)])


@pytest.mark.parametrize("weights", ["int8", "int4", "int3", "int4:group=8"])
@pytest.mark.parametrize("build", [small_transformer, untied])
def test_logits_equal_those_of_the_unpacked_weights(build, weights: str) -> None:
    quantized = quantize(build(), weights)
    expected = logits(with_unpacked_weights(quantized))
    np.testing.assert_allclose(logits(quantized), expected, atol=2e-4)
    assert np.abs(expected - logits(build())).max() > 1e-3  # it is not the model it was


def test_more_bits_and_smaller_groups_are_nearer_to_the_model() -> None:
    lm = untied()
    errors = [
        float(np.mean((logits(quantize(lm, weights)) - logits(lm)) ** 2))
        for weights in ("int8", "int4:group=4", "int4", "int3")
    ]
    assert errors == sorted(errors) and errors[0] < errors[2] / 50 and errors[3] > 2 * errors[2]


@pytest.mark.parametrize(("bits", "group"), CASES)
def test_a_weight_that_is_no_number_shows_in_its_scale_alone(bits: int, group: int | None) -> None:
    kernel = random_kernel(32, 11, seed=5)
    kernel[:, 2] = 0.0
    sound = unpacked(quantize_kernel(jnp.asarray(kernel), bits, group))
    kernel[3, 7] = np.nan
    damaged = unpacked(quantize_kernel(jnp.asarray(kernel), bits, group))
    lost = np.zeros(kernel.shape, bool)
    lost[: group or 32, 7] = True
    np.testing.assert_array_equal(np.isnan(damaged), lost)
    np.testing.assert_array_equal(damaged[~lost], sound[~lost])
    assert not damaged[:, 2].any()


def test_a_damaged_model_ends_as_it_does_unquantised() -> None:
    lm = small_transformer()
    mlp = dict(lm.params["layer_0"]["mlp"])
    mlp["down"] = {"kernel": mlp["down"]["kernel"].at[3, 5].set(jnp.nan)}
    broken = dataclasses.replace(lm, params=dict(lm.params) | {"layer_0": dict(lm.params["layer_0"]) | {"mlp": mlp}})
    for damaged in (broken, quantize(broken, "int4:group=8")):
        out = jaxspec.generate(damaged, [[1, 2, 3]], max_new_tokens=4, cache=128)
        assert out.finish == ["numerical"]


@pytest.mark.parametrize(
    ("weights", "bits", "scale_bytes"),
    [("int8", 8, "channel"), ("int4", 4, "channel"), ("int3", 3, "channel"), ("int4:group=8", 4, "group")],
)
def test_bytes_are_what_they_should_be_and_what_is_planned(weights: str, bits: int, scale_bytes: str) -> None:
    lm = untied()
    quantized = quantize(lm, weights)
    expected = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(lm.params):
        if path[-1].key != "kernel":
            expected += leaf.nbytes
        elif path[0].key in ("embedding", "head"):
            expected += leaf.size + 4 * leaf.shape[1]
        else:
            scales = 4 * leaf.shape[1] if scale_bytes == "channel" else 2 * leaf.size // 8
            expected += leaf.size * bits // 8 + scales
    real = sum(shard.data.nbytes for leaf in jax.tree.leaves(quantized.params) for shard in leaf.addressable_shards)
    plan = jaxspec.plan(quantized, lanes=2, cache=128, block=4)
    assert real == expected
    assert abs(plan.weights - real) <= 0.05 * real
    shapes = dataclasses.replace(lm, params=parameter_shapes(lm.config, jnp.float32))
    planned = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), quantize(shapes, weights).params)
    assert planned == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), quantized.params)


def test_decoding_keeps_no_wide_copy_of_the_weights() -> None:
    """A compiler that moved the widening out of the loop would take more memory than without quantisation."""
    config = dataclasses.replace(untied().config, width=512, mlp_width=2048, layers=2)
    shapes = dataclasses.replace(
        untied(),
        config=config,
        model=jaxspec.transformer_fn(config),
        params=parameter_shapes(config, jnp.float32),
    )
    plain = jaxspec.plan(shapes, cache=128)
    for weights, share in (("int4:group=32", 0.25), ("int3", 0.2)):
        plan = jaxspec.plan(quantize(shapes, weights), cache=128)
        assert plan.weights < share * plain.weights
        assert plan.peak < plain.peak / 2


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_drafters_change_nothing_that_a_quantised_model_says(strict: bool) -> None:
    lm = quantize(small_transformer(), "int4:group=8")
    prompts = [[1, 2, 3, 1, 2], [5], [4, 9, 9, 4, 9, 9]]
    settings = dict(max_new_tokens=24, cache=128, strict=strict)
    plain = jaxspec.generate(lm, prompts, **settings)
    drafter = jaxspec.drafters.context_ngram(width=4)
    assert jaxspec.generate(lm, prompts, drafter=drafter, **settings).ids == plain.ids


def test_a_model_is_quantised_as_it_is_loaded(tiny_model_folder) -> None:
    weights = "int4:group=16"
    lm = jaxspec.load(tiny_model_folder, dtype="float32", quantize=weights)
    later = quantize(jaxspec.load(tiny_model_folder, dtype="float32"), weights)
    assert lm.name == later.name == f"{tiny_model_folder} {weights}"
    for ours, theirs in zip(jax.tree.leaves(lm.params), jax.tree.leaves(later.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    out = jaxspec.generate(lm, "the cat sat", max_new_tokens=5)
    assert len(out.ids[0]) <= 5


def test_a_model_split_over_devices_is_quantised_where_it_lies(tiny_model_folder) -> None:
    mesh = jax.make_mesh((2,), ("model",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    settings = dict(dtype="float32", quantize="int4:group=16")
    whole = jaxspec.load(tiny_model_folder, **settings)
    split = jaxspec.load(tiny_model_folder, sharding=jaxspec.partition(mesh), **settings)
    packed = split.params["layer_0"]["mlp"]["gate_up"]["kernel"].packed
    assert len(packed.sharding.device_set) == 2 and not packed.sharding.is_fully_replicated
    np.testing.assert_allclose(logits(split), logits(whole), atol=1e-4)


def test_names() -> None:
    assert parse_quantization("int8") == Quantization(8)
    assert parse_quantization(" int4:group=64 ") == Quantization(4, 64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "quantize='' is not one of int3, int4, int8"),
        ("int2", "quantize='int2' is not one of int3, int4, int8"),
        ("INT8", "quantize='INT8' is not one of"),
        ("int4:64", "'64' is not of the form group=NUMBER"),
        ("int4:", "'' is not of the form group=NUMBER"),
        ("int4:group=-2", "'group=-2' is not of the form"),
        ("int4:group=3", "group=3 must be a positive multiple of 2"),
        ("int3:group=4", "group=4 must be a positive multiple of 8"),
        ("int8:group=0", "group=0 must be a positive multiple of 1"),
        (4, "quantize=4 is not one of int3, int4, int8"),
    ],
)
def test_other_names_are_refused_before_anything_is_read(text: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_quantization(text)
    with pytest.raises(ValueError, match=said):
        jaxspec.load("no/such/model", quantize=text)


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="group=6 does not divide the 32 inputs of layer_0/attention/output/kernel"):
        quantize(small_transformer(), "int4:group=6")
    odd = dataclasses.replace(CONFIG, width=15)
    shapes = dataclasses.replace(small_transformer(), params=parameter_shapes(odd, jnp.float32))
    with pytest.raises(ValueError, match="has 15 inputs, which do not fill bytes of int4"):
        quantize(shapes, "int4")


def test_models_that_cannot_be_quantised_are_refused() -> None:
    with pytest.raises(ValueError, match="toy is not a model over transformer_fn"):
        quantize(toy_model(), "int8")
    with pytest.raises(ValueError, match="small int8 is quantised already"):
        quantize(quantize(small_transformer(), "int8"), "int4")


def test_a_kernel_of_another_shape_is_refused() -> None:
    lm = quantize(small_transformer(), "int8")
    params = dict(lm.params) | {"embedding": {"kernel": quantize_kernel(jnp.ones((16, 18)), 8)}}
    assert isinstance(params["embedding"]["kernel"], QuantizedKernel)
    with pytest.raises(ValueError, match=r"quantised kernel of embedding is \(16, 18\), not \(16, 17\)"):
        logits(dataclasses.replace(lm, params=params))
