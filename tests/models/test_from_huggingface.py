"""Published `config.json` files, with old and new field names, and everything that must be refused by name."""

import math

import pytest

from jaxspec.models.config import RopeScaling
from jaxspec.models.from_huggingface import config_from_huggingface

SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 49152,
}
LLAMA3_ROPE = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA_3_2 = SMOLLM2 | {
    "head_dim": 64,
    "hidden_size": 2048,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rope_scaling": LLAMA3_ROPE,
    "rope_theta": 500000.0,
    "eos_token_id": [128001, 128008, 128009],
}
R1_DISTILL = {  # of Qwen2.5-Math-1.5B
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 131072,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.44.0",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
GEMMA3_270M = {
    "_sliding_window_pattern": 6,
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 640,
    "intermediate_size": 2048,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "use_bidirectional_attention": False,
    "vocab_size": 262144,
}
GEMMA3_4B = {  # wrapped with vision; its text part relies on the family's defaults
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}


def test_smollm2() -> None:
    config = config_from_huggingface(SMOLLM2)
    assert (config.family, config.vocabulary, config.width, config.mlp_width) == ("llama", 49152, 576, 1536)
    assert (config.layers, config.query_heads, config.key_heads, config.head_width) == (30, 9, 3, 64)
    assert (config.context, config.norm_epsilon, config.rope_theta) == (8192, 1e-5, 100_000.0)
    assert config.tied and not (config.qkv_bias or config.output_bias or config.mlp_bias)
    assert config.rope_scaling is None and config.query_scale is None and config.window is None
    assert config.activation == "silu" and config.embedding_scale == 1.0 and not config.norm_offset


def test_llama3_rope_scaling() -> None:
    config = config_from_huggingface(LLAMA_3_2)
    assert config.rope_scaling == RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    assert (config.rope_theta, config.head_width) == (500_000.0, 64)


def test_qwen2_has_biases_on_queries_keys_and_values_alone() -> None:
    config = config_from_huggingface(R1_DISTILL)
    assert config.qkv_bias and not config.output_bias and not config.mlp_bias and not config.tied
    assert config.window is None and config.sliding == ()  # use_sliding_window is false
    assert not config.query_key_norm


def test_qwen2_windows_begin_at_a_layer() -> None:
    config = config_from_huggingface(R1_DISTILL | {"use_sliding_window": True})
    assert config.window == 4096 and config.sliding == (False,) * 21 + (True,) * 7


def test_qwen3_has_head_norms_and_a_head_width_of_its_own() -> None:
    config = config_from_huggingface(QWEN3)
    assert config.query_key_norm and not config.norm_offset and not config.sandwich_norm
    assert config.head_width == 128 != config.width // config.query_heads
    without = {name: value for name, value in QWEN3.items() if name != "head_dim"}
    assert config_from_huggingface(without).head_width == 128
    biased = config_from_huggingface(QWEN3 | {"attention_bias": True})
    assert biased.qkv_bias and biased.output_bias


def test_gemma3_text() -> None:
    config = config_from_huggingface(GEMMA3_270M)
    assert (config.family, config.head_width, config.key_heads, config.window) == ("gemma3", 256, 1, 512)
    assert config.sliding == ((True,) * 5 + (False,)) * 3
    assert config.norm_offset and config.sandwich_norm and config.query_key_norm and config.tied
    assert (config.rope_theta, config.local_rope_theta) == (1e6, 1e4)
    assert config.embedding_scale == math.sqrt(640) and config.query_scale == 1 / 16
    assert config.activation == "gelu_tanh"


def test_gemma3_with_vision_reads_its_text_part() -> None:
    config = config_from_huggingface(GEMMA3_4B)
    assert (config.vocabulary, config.width, config.layers, config.window) == (262_208, 2560, 34, 1024)
    assert (config.query_heads, config.key_heads, config.head_width) == (8, 4, 256)
    assert config.rope_scaling == RopeScaling("linear", 8.0) and config.local_rope_theta == 10_000.0
    assert config.sliding == tuple((layer + 1) % 6 != 0 for layer in range(34)) and config.tied


def test_gemma3_27b_scales_queries_by_its_own_number() -> None:
    text = GEMMA3_4B["text_config"] | {"query_pre_attn_scalar": 168, "head_dim": 128}
    assert config_from_huggingface(GEMMA3_4B | {"text_config": text}).query_scale == 168**-0.5


def test_mistral_slides_on_every_layer_or_on_none() -> None:
    config = config_from_huggingface(MISTRAL)
    assert config.window == 4096 and config.sliding == (True,) * 32
    assert config_from_huggingface(MISTRAL | {"sliding_window": None}).sliding == ()
    unsaid = {name: value for name, value in MISTRAL.items() if name != "sliding_window"}
    assert config_from_huggingface(unsaid).window == 4096  # what the family means by silence


def modern(published: dict, rope: dict) -> dict:
    """The same file as transformers 5 writes it."""
    old = {"rope_theta", "rope_scaling", "rope_local_base_freq", "torch_dtype"}
    kept = {name: value for name, value in published.items() if name not in old}
    return kept | {"rope_parameters": rope, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("old", "rope"),
    [
        (SMOLLM2, {"rope_type": "default", "rope_theta": 100000}),
        (LLAMA_3_2, LLAMA3_ROPE | {"rope_theta": 500000.0}),
        (R1_DISTILL, {"rope_type": "default", "rope_theta": 10000}),
        (
            GEMMA3_270M,
            {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        ),
    ],
)
def test_old_and_new_field_names_say_the_same(old: dict, rope: dict) -> None:
    assert config_from_huggingface(modern(old, rope)) == config_from_huggingface(old)


def test_new_field_names_of_a_scaled_gemma() -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = config_from_huggingface(modern(GEMMA3_270M, rope))
    assert config.rope_scaling == RopeScaling("linear", 8.0) and config.local_rope_theta == 1e4


def test_layers_one_by_one() -> None:
    listed = {"layer_types": ["sliding_attention"] + ["full_attention"] * 27, "sliding_window": 8}
    config = config_from_huggingface(QWEN3 | listed | {"use_sliding_window": True})
    assert config.sliding == (True,) + (False,) * 27 and config.window == 8


@pytest.mark.slow  # importing transformers imports PyTorch where there is one
@pytest.mark.parametrize(
    "name", ["LlamaConfig", "MistralConfig", "Qwen2Config", "Qwen3Config", "Gemma3TextConfig", "Gemma3Config"]
)
def test_what_transformers_writes_is_understood(name: str) -> None:
    import transformers

    made = getattr(transformers, name)()
    config = config_from_huggingface(made.to_dict())
    text = made.get_text_config()
    assert (config.layers, config.width, config.vocabulary) == (
        text.num_hidden_layers,
        text.hidden_size,
        text.vocab_size,
    )


def test_the_oldest_name_of_a_rope_type() -> None:
    config = config_from_huggingface(SMOLLM2 | {"rope_scaling": {"type": "linear", "factor": 4.0}})
    assert config.rope_scaling == RopeScaling("linear", 4.0)


def test_llama3_scaling_without_an_original_context_means_the_whole() -> None:
    rope = {name: value for name, value in LLAMA3_ROPE.items() if name != "original_max_position_embeddings"}
    config = config_from_huggingface(LLAMA_3_2 | {"rope_scaling": rope})
    assert config.rope_scaling is not None and config.rope_scaling.original_context == 131072


def test_fields_without_a_value_say_nothing() -> None:
    assert config_from_huggingface(SMOLLM2 | {"quantization_config": None, "some_new_field": None}) == (
        config_from_huggingface(SMOLLM2)
    )
    multi_head = config_from_huggingface(SMOLLM2 | {"num_key_value_heads": None, "head_dim": None})
    assert (multi_head.key_heads, multi_head.head_width) == (9, 64)


REFUSED = [
    (SMOLLM2, "model_type", "mixtral"),
    (SMOLLM2, "model_type", None),
    (SMOLLM2, "num_experts", 8),
    (SMOLLM2, "num_local_experts", 8),
    (SMOLLM2, "quantization_config", {"quant_method": "gptq", "bits": 4}),
    (SMOLLM2, "hidden_act", "relu"),
    (SMOLLM2, "partial_rotary_factor", 0.5),
    (SMOLLM2, "rope_interleaved", True),
    (SMOLLM2, "sliding_window", 128),
    (SMOLLM2, "embedding_multiplier", 12.0),
    (SMOLLM2, "logits_scaling", 8.0),
    (SMOLLM2, "attention_multiplier", 0.1),
    (SMOLLM2, "hidden_size", "576"),
    (SMOLLM2, "vocab_size", 0),
    (SMOLLM2, "key_heads", 5),
    (SMOLLM2, "num_key_value_heads", 0),
    (SMOLLM2, "num_hidden_layers", None),
    (SMOLLM2, "rms_norm_eps", -1.0),
    (SMOLLM2, "rope_theta", 0),
    (SMOLLM2, "layer_types", ["sliding_attention"] * 30),
    (SMOLLM2, "layer_types", ["chunked_attention"] * 30),
    (SMOLLM2, "final_logit_softcapping", 30.0),
    (R1_DISTILL, "use_mrope", True),
    (R1_DISTILL, "attention_bias", True),
    (R1_DISTILL, "layer_types", ["sliding_attention"] * 28),
    (QWEN3, "mlp_bias", True),
    (QWEN3, "layer_types", ["linear_attention"] * 28),
    (GEMMA3_270M, "attn_logit_softcapping", 50.0),
    (GEMMA3_270M, "use_bidirectional_attention", True),
    (GEMMA3_270M, "hidden_activation", "gelu"),
    (GEMMA3_270M, "sliding_window", None),
    (MISTRAL, "attention_bias", True),
    (MISTRAL, "layer_types", ["full_attention"] * 32),
    (GEMMA3_4B, "quantization_config", {"bits": 4}),
    (GEMMA3_4B, "model_type", "llava"),
    (GEMMA3_4B, "audio_config", {"hidden_size": 8}),
]


@pytest.mark.parametrize(("base", "name", "value"), REFUSED, ids=[f"{name}={value}"[:40] for _, name, value in REFUSED])
def test_what_is_not_honoured_is_refused_by_name(base: dict, name: str, value) -> None:
    with pytest.raises(ValueError, match=name):
        config_from_huggingface(base | {name: value})


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, "yarn"),
        ({"type": "dynamic", "factor": 2.0}, "dynamic"),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}, "longrope"),
        ({"type": "mrope", "mrope_section": [16, 24, 24]}, "mrope"),
        ({"rope_type": "default", "mrope_section": [16, 24, 24]}, "mrope_section"),
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "linear", "factor": 0}, "factor"),
        ({"rope_type": "linear", "factor": 2.0, "attention_factor": 0.5}, "attention_factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.25}, "partial_rotary_factor"),
        (LLAMA3_ROPE | {"high_freq_factor": 1.0}, "high_freq_factor"),
        ({name: value for name, value in LLAMA3_ROPE.items() if name != "low_freq_factor"}, "low_freq_factor"),
        ({"full_attention": {"rope_type": "default"}}, "full_attention"),
        ("linear", "linear"),
    ],
)
@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_rope_types_that_are_not_honoured(field: str, rope, named: str) -> None:
    base = {name: value for name, value in SMOLLM2.items() if name != "rope_scaling"}
    with pytest.raises(ValueError, match=named):
        config_from_huggingface(base | {field: rope})


def test_gemma_ropes_that_are_not_honoured() -> None:
    base = modern(GEMMA3_270M, {})
    with pytest.raises(ValueError, match="sliding layers are scaled"):
        config_from_huggingface(base | {"rope_parameters": {"sliding_attention": {"type": "linear", "factor": 2.0}}})
    with pytest.raises(ValueError, match="chunked_attention"):
        config_from_huggingface(base | {"rope_parameters": {"chunked_attention": {}, "full_attention": {}}})
    with pytest.raises(ValueError, match="both rope_scaling and rope_parameters"):
        both = {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"full_attention": {"a": 1}}}
        config_from_huggingface(base | both)


def test_every_unknown_field_is_named_at_once_and_long_values_are_cut() -> None:
    with pytest.raises(ValueError, match="moe_layers.*router_bias") as caught:
        config_from_huggingface(SMOLLM2 | {"router_bias": True, "moe_layers": list(range(500))})
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
