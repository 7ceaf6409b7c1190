"""GGUF metadata of every family, and everything that must be refused by name."""

import math

import numpy as np
import pytest

from jaxspec.models.config import RopeScaling
from jaxspec.models.from_gguf import config_from_gguf

LLAMA = {
    "general.architecture": "llama",
    "general.name": "Smollm2 135M",
    "general.file_type": 3,
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.rope.freq_base": 100000.0,
    "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
    "llama.vocab_size": 49152,
    "llama.rope.dimension_count": 64,
}
QWEN2 = {
    "general.architecture": "qwen2",
    "qwen2.block_count": 24,
    "qwen2.context_length": 32768,
    "qwen2.embedding_length": 896,
    "qwen2.feed_forward_length": 4864,
    "qwen2.attention.head_count": 14,
    "qwen2.attention.head_count_kv": 2,
    "qwen2.rope.freq_base": 1000000.0,
    "qwen2.attention.layer_norm_rms_epsilon": 1e-6,
    "tokenizer.ggml.tokens": ["a"] * 151936,
}
QWEN3 = {name.replace("qwen2", "qwen3"): value for name, value in QWEN2.items()} | {
    "general.architecture": "qwen3",
    "qwen3.attention.key_length": 128,
    "qwen3.attention.value_length": 128,
}
GEMMA3 = {
    "general.architecture": "gemma3",
    "gemma3.context_length": 32768,
    "gemma3.embedding_length": 640,
    "gemma3.block_count": 18,
    "gemma3.feed_forward_length": 2048,
    "gemma3.attention.head_count": 4,
    "gemma3.attention.head_count_kv": 1,
    "gemma3.attention.layer_norm_rms_epsilon": 1e-6,
    "gemma3.attention.key_length": 256,
    "gemma3.attention.value_length": 256,
    "gemma3.rope.freq_base": 1000000.0,
    "gemma3.attention.sliding_window": 512,
    "tokenizer.ggml.tokens": ["a"] * 262144,
}
QWEN2_TENSORS = ["output.weight", "blk.0.attn_q.bias", "blk.0.attn_q.weight"]
NORM_TENSORS = ["blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight"]


def test_llama() -> None:
    config = config_from_gguf(LLAMA, ["token_embd.weight"])
    assert (config.family, config.vocabulary, config.width, config.mlp_width) == ("llama", 49152, 576, 1536)
    assert (config.layers, config.query_heads, config.key_heads, config.head_width) == (30, 9, 3, 64)
    assert (config.context, config.rope_theta) == (8192, 100_000.0)
    assert config.norm_epsilon == pytest.approx(1e-5)
    assert config.tied and not config.qkv_bias and config.rope_scaling is None and config.window is None


def test_an_output_tensor_means_untied_and_biases_are_seen_in_the_tensors() -> None:
    config = config_from_gguf(QWEN2, QWEN2_TENSORS)
    assert not config.tied and config.qkv_bias and not config.output_bias and not config.mlp_bias
    assert (config.vocabulary, config.head_width) == (151936, 64)


def test_qwen3_has_head_norms_and_a_head_width_of_its_own() -> None:
    config = config_from_gguf(QWEN3, NORM_TENSORS)
    assert config.query_key_norm and config.head_width == 128 and not config.norm_offset


def test_gemma3() -> None:
    config = config_from_gguf(GEMMA3, NORM_TENSORS)
    assert config.norm_offset and config.sandwich_norm and config.query_key_norm and config.tied
    assert config.window == 512 and config.sliding == ((True,) * 5 + (False,)) * 3
    assert (config.rope_theta, config.local_rope_theta) == (1e6, 1e4)
    assert config.embedding_scale == math.sqrt(640) and config.query_scale is None
    assert config.activation == "gelu_tanh"


def test_gemma3_layers_by_period_or_one_by_one() -> None:
    field = "gemma3.attention.sliding_window_pattern"
    assert config_from_gguf(GEMMA3 | {field: 3}, []).sliding == (True, True, False) * 6
    listed = [True, False] * 9
    assert config_from_gguf(GEMMA3 | {field: listed}, []).sliding == tuple(listed)


def test_gemma3_27b_scales_queries_by_its_own_number() -> None:
    large = {"block_count": 62, "embedding_length": 5376, "attention.head_count": 32}
    config = config_from_gguf(GEMMA3 | {f"gemma3.{name}": value for name, value in large.items()}, [])
    assert config.query_scale == pytest.approx(168**-0.5)


def test_linear_scaling() -> None:
    scaled = {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0}
    assert config_from_gguf(GEMMA3 | scaled, []).rope_scaling == RopeScaling("linear", 8.0)
    older = {"llama.rope.scale_linear": 4.0}
    assert config_from_gguf(LLAMA | older, []).rope_scaling == RopeScaling("linear", 4.0)
    unscaled = {"llama.rope.scaling.type": "none", "llama.rope.scaling.finetuned": False}
    assert config_from_gguf(LLAMA | unscaled, []).rope_scaling is None


def llama3_divisors(theta: float, head: int, factor: float, low: float = 1.0, high: float = 4.0, context: int = 8192):
    """What files of Llama 3.1 and later hold: the divisor of every rotary frequency, worked out one by one."""
    divisors = []
    for pair in range(head // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / head)
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recognised_in_its_divisors(factor: float) -> None:
    metadata = LLAMA | {"llama.rope.freq_base": 500000.0}
    config = config_from_gguf(metadata, [], llama3_divisors(500000.0, 64, factor))
    assert config.rope_scaling == RopeScaling("llama3", factor, 1.0, 4.0, 8192)


def test_divisors_of_one_are_no_scaling() -> None:
    assert config_from_gguf(LLAMA, [], [1.0] * 32).rope_scaling is None


@pytest.mark.parametrize(
    "divisors",
    [
        llama3_divisors(100000.0, 64, 8.0, context=4096),
        llama3_divisors(100000.0, 64, 8.0, high=8.0),
        np.linspace(1, 8, 32),
        np.ones(16),
        np.full(32, 4.0),
    ],
)
def test_other_divisors_are_refused(divisors) -> None:
    with pytest.raises(ValueError, match="rope_freqs.weight"):
        config_from_gguf(LLAMA, [], divisors)


REFUSED = [
    (LLAMA, "general.architecture", "phi3"),
    (LLAMA, "llama.expert_count", 8),
    (LLAMA, "llama.rope.scaling.type", "yarn"),
    (LLAMA, "llama.rope.scaling.factor", 4.0),
    (LLAMA, "llama.rope.scaling.attn_factor", 1.5),
    (LLAMA, "llama.rope.dimension_count", 32),
    (LLAMA, "llama.attention.sliding_window", 4096),
    (LLAMA, "llama.attention.value_length", 32),
    (LLAMA, "llama.attention.head_count_kv", [3, 3, 1]),
    (LLAMA, "llama.attention.causal", False),
    (LLAMA, "llama.attention.clamp_kqv", 8.0),
    (LLAMA, "llama.logit_scale", 0.1),
    (LLAMA, "llama.block_count", 0),
    (LLAMA, "llama.block_count", "30"),
    (QWEN2, "qwen2.rope.dimension_sections", [16, 24, 24, 0]),
    (GEMMA3, "gemma3.attn_logit_softcapping", 50.0),
    (GEMMA3, "split.count", 3),
]


@pytest.mark.parametrize(("base", "name", "value"), REFUSED, ids=[f"{n}={v}"[:50] for _, n, v in REFUSED])
def test_what_is_not_honoured_is_refused_by_name(base: dict, name: str, value) -> None:
    shown = name.split(".", 1)[1] if name != "split.count" else "parts"
    with pytest.raises(ValueError, match=shown):
        config_from_gguf(base | {name: value}, [])


@pytest.mark.parametrize(
    "name", ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"]
)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"llama.{name} is missing"):
        config_from_gguf({field: value for field, value in LLAMA.items() if field != f"llama.{name}"}, [])


def test_a_vocabulary_must_come_from_somewhere() -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        config_from_gguf({field: value for field, value in LLAMA.items() if not field.endswith("vocab_size")}, [])


def test_values_without_effect_and_equal_values_a_layer() -> None:
    harmless = {"llama.expert_count": 0, "llama.attention.head_count_kv": [3] * 30}
    assert config_from_gguf(LLAMA | harmless, []) == config_from_gguf(LLAMA, [])
