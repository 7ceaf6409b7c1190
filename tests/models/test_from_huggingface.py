"""Published configs, old and new spellings, and refusals by name."""

import pytest

from jaxspec.models.config import ModelConfig, RopeScaling
from jaxspec.models.from_huggingface import config_from_huggingface

LLAMA = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=2048, intermediate_size=8192,
    num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64, vocab_size=128256,
    max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True,
    hidden_act="silu", attention_bias=False, mlp_bias=False, torch_dtype="bfloat16", use_cache=True,
    rope_scaling=dict(factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0,
                      original_max_position_embeddings=8192, rope_type="llama3"),
)  # fmt: skip
QWEN2 = dict(
    model_type="qwen2", hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
    num_key_value_heads=2, vocab_size=151936, max_position_embeddings=32768, rms_norm_eps=1e-6, rope_theta=1e6,
    tie_word_embeddings=True, hidden_act="silu", sliding_window=32768, max_window_layers=21, use_sliding_window=False,
)  # fmt: skip
QWEN3 = QWEN2 | dict(model_type="qwen3", head_dim=128, attention_bias=False, sliding_window=None)
GEMMA = dict(
    model_type="gemma3_text", hidden_size=640, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=4,
    num_key_value_heads=1, head_dim=256, vocab_size=262144, max_position_embeddings=32768, rms_norm_eps=1e-6,
    query_pre_attn_scalar=256, sliding_window=512, rope_theta=1e6, rope_local_base_freq=10000.0,
    hidden_activation="gelu_pytorch_tanh", attn_logit_softcapping=None, final_logit_softcapping=None,
    _sliding_window_pattern=6,
)  # fmt: skip
MISTRAL = dict(
    model_type="mistral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, vocab_size=32000, max_position_embeddings=32768, rms_norm_eps=1e-5, rope_theta=10000.0,
    sliding_window=4096, hidden_act="silu", tie_word_embeddings=False,
)  # fmt: skip


def test_llama_with_scaled_rotation() -> None:
    config = config_from_huggingface(LLAMA)
    assert config == ModelConfig(
        "llama", 128256, 2048, 8192, 16, 32, 8, 64, 131072, 1e-5, rope_theta=500000.0, tied=True,
        rope_scaling=RopeScaling("llama3", 32.0, 1.0, 4.0, 8192),
    )  # fmt: skip
    new = {name: value for name, value in LLAMA.items() if name not in ("rope_theta", "rope_scaling")}
    new["rope_parameters"] = LLAMA["rope_scaling"] | {"rope_theta": 500000.0}
    assert config_from_huggingface(new) == config


def test_qwen_biases_and_norms() -> None:
    second, third = config_from_huggingface(QWEN2), config_from_huggingface(QWEN3)
    assert second.qkv_bias and not second.output_bias and not second.query_key_norm and second.head_width == 64
    assert third.query_key_norm and not third.qkv_bias and third.head_width == 128 and not third.sliding


def test_windows_of_each_family() -> None:
    assert config_from_huggingface(MISTRAL).sliding == (True,) * 32
    assert config_from_huggingface(MISTRAL | dict(sliding_window=None)).window is None
    sliding = config_from_huggingface(QWEN2 | dict(use_sliding_window=True, sliding_window=100)).sliding
    assert sliding == (False,) * 21 + (True,) * 3
    assert config_from_huggingface(GEMMA).sliding == ((True,) * 5 + (False,)) * 2
    listed = QWEN3 | dict(
        layer_types=["sliding_attention"] + ["full_attention"] * 23, sliding_window=8, use_sliding_window=True
    )
    assert config_from_huggingface(listed).sliding[:2] == (True, False)


def test_gemma_and_its_wrapper_with_vision() -> None:
    config = config_from_huggingface(GEMMA)
    assert config.norm_offset and config.sandwich_norm and config.tied and config.activation == "gelu_tanh"
    assert config.embedding_scale == 640**0.5 and config.query_scale == 1 / 16
    assert (config.rope_theta, config.local_rope_theta, config.window) == (1e6, 1e4, 512)
    wrapped = dict(model_type="gemma3", text_config=GEMMA, vision_config={}, mm_tokens_per_image=256)
    assert config_from_huggingface(wrapped) == config
    new = {name: value for name, value in GEMMA.items() if not name.startswith("rope")} | dict(
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
            sliding_attention=dict(rope_type="default", rope_theta=1e4),
        )
    )
    assert config_from_huggingface(new).rope_scaling == RopeScaling("linear", 8.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(model_type="mixtral"), "model_type='mixtral' is not supported"),
        (dict(num_experts=8), "not honoured: num_experts=8"),
        (dict(quantization_config={"bits": 4}), "quantization_config"),
        (dict(rope_scaling={"rope_type": "yarn", "factor": 4.0}), "rope_type='yarn' is not supported"),
        (dict(rope_scaling={"rope_type": "linear", "factor": 4.0, "beta": 1}), "beta"),
        (dict(hidden_act="relu"), "hidden_act='relu'"),
        (dict(attn_logit_softcapping=50.0), "attn_logit_softcapping=50.0"),
        (dict(layer_types=["chunked_attention"]), "chunked_attention"),
        (dict(hidden_size=None), "hidden_size=None"),
        (dict(vocab_size="many"), "vocab_size='many'"),
        (dict(num_key_value_heads=5), "query_heads=32 is not a multiple of key_heads=5"),
    ],
)
def test_what_is_not_honoured_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_huggingface(LLAMA | change)


@pytest.mark.parametrize("name", ["LlamaConfig", "MistralConfig", "Qwen2Config", "Qwen3Config", "Gemma3TextConfig"])
def test_what_transformers_writes_is_understood(name: str) -> None:
    import transformers

    config = config_from_huggingface(getattr(transformers, name)().to_dict())
    assert config.layers > 0
