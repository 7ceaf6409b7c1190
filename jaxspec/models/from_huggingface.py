"""`ModelConfig` from a Hugging Face `config.json`. What is not honoured is refused by name."""

from collections.abc import Mapping
from typing import Any

from jaxspec.models.config import ModelConfig, RopeScaling

FAMILIES = {
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
}

HONOURED = frozenset(
    "model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "head_dim max_position_embeddings rms_norm_eps rope_theta rope_scaling rope_parameters rope_local_base_freq "
    "sliding_window use_sliding_window max_window_layers layer_types sliding_window_pattern _sliding_window_pattern "
    "attention_bias mlp_bias hidden_act hidden_activation query_pre_attn_scalar tie_word_embeddings "
    "final_logit_softcapping attn_logit_softcapping use_bidirectional_attention text_config".split()
)

# Of training, of files, or of text: nothing a forward pass sees.
WITHOUT_EFFECT = frozenset(
    "architectures attention_dropout attn_implementation _attn_implementation_autoset auto_map bos_token_id "
    "cache_implementation chunk_size_feed_forward dtype eos_token_id id2label initializer_range is_decoder "
    "is_encoder_decoder is_llama_config label2id output_attentions output_hidden_states pad_token_id pretraining_tp "
    "return_dict rope_interleaved torch_dtype transformers.js_config transformers_version use_cache _name_or_path "
    "problem_type name_or_path add_cross_attention cross_attention_hidden_size decoder_start_token_id "
    "tie_encoder_decoder finetuning_task prefix pruned_heads sep_token_id task_specific_params tokenizer_class "
    "torchscript unsloth_fixed unsloth_version".split()
)

# Wrappers of a text model (Gemma 3 with vision) also describe parts that text never meets.
BESIDE_TEXT = frozenset(
    "vision_config mm_tokens_per_image boi_token_index eoi_token_index image_token_index boi_token_id eoi_token_id "
    "image_token_id".split()
)


def config_from_huggingface(published: Mapping[str, Any]) -> ModelConfig:
    """The description a `config.json` stands for.

    Args:
      published: the parsed file, with the field names of transformers 4 or 5.

    Raises:
      ValueError: the architecture, a field or a value is not honoured, or a needed field is missing.
    """
    known = HONOURED | WITHOUT_EFFECT
    if "text_config" in published:
        text = {"tie_word_embeddings": published.get("tie_word_embeddings", True)} | dict(published["text_config"])
        _refuse_unknown(published, known | BESIDE_TEXT)
        published = text
    kind = published.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"model_type={kind!r} is not supported; supported: {', '.join(FAMILIES)}")
    _refuse_unknown(published, known)
    family = FAMILIES[kind]
    fields = _Fields(published)
    gemma = family == "gemma3"
    heads, width = fields.need("num_attention_heads"), fields.need("hidden_size")
    layers = fields.need("num_hidden_layers")
    head_width = fields.get("head_dim", 256 if gemma else width // heads)
    theta, local_theta, scaling = _rope(fields, gemma=gemma)
    window, sliding = _windows(fields, family, layers)
    fields.expect("attn_logit_softcapping", None)
    fields.expect("use_bidirectional_attention", False)
    return ModelConfig(
        family=family,
        vocabulary=fields.need("vocab_size"),
        width=width,
        mlp_width=fields.need("intermediate_size"),
        layers=layers,
        query_heads=heads,
        key_heads=fields.get("num_key_value_heads", heads),
        head_width=head_width,
        context=fields.get("max_position_embeddings", 131_072 if gemma else 2048),
        norm_epsilon=float(fields.get("rms_norm_eps", 1e-6)),
        norm_offset=gemma,
        query_scale=float(fields.get("query_pre_attn_scalar", 256)) ** -0.5 if gemma else None,
        rope_theta=theta,
        rope_scaling=scaling,
        local_rope_theta=local_theta,
        window=window,
        sliding=sliding,
        qkv_bias=family == "qwen2" or bool(fields.get("attention_bias", False)),
        output_bias=family != "qwen2" and bool(fields.get("attention_bias", False)),
        mlp_bias=bool(fields.get("mlp_bias", False)),
        query_key_norm=family in ("qwen3", "gemma3"),
        sandwich_norm=gemma,
        embedding_scale=width**0.5 if gemma else 1.0,
        activation=_activation(fields, gemma=gemma),
        tied=bool(fields.get("tie_word_embeddings", gemma)),
        final_softcap=fields.get("final_logit_softcapping", None),
    )


class _Fields:
    """A published config with errors that name the field."""

    def __init__(self, published: Mapping[str, Any]) -> None:
        self.published = published

    def get(self, name: str, default: Any) -> Any:
        value = self.published.get(name)
        return default if value is None else value

    def need(self, name: str) -> int:
        value = self.published.get(name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"config field {name}={value!r}; a positive integer is needed")
        return value

    def expect(self, name: str, only: Any) -> None:
        value = self.published.get(name)
        if value is not None and value != only:
            raise ValueError(f"config field {name}={value!r} is not supported, only {only!r}")


def _refuse_unknown(published: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(published) - known)
    if unknown:
        shown = ", ".join(f"{name}={published[name]!r}" for name in unknown)
        raise ValueError(f"config fields that are not honoured: {shown}")


def _activation(fields: _Fields, *, gemma: bool) -> str:
    name = fields.get("hidden_activation" if gemma else "hidden_act", "gelu_pytorch_tanh" if gemma else "silu")
    names = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
    if name not in names:
        raise ValueError(f"hidden_act={name!r} is not supported; supported: {', '.join(names)}")
    return names[name]


def _rope(fields: _Fields, *, gemma: bool) -> tuple[float, float | None, RopeScaling | None]:
    """Base of global layers, base of local layers, scaling of global layers."""
    parameters = fields.get("rope_parameters", None)
    if parameters is None:
        theta = fields.get("rope_theta", 1_000_000.0 if gemma else 10_000.0)
        local = fields.get("rope_local_base_freq", 10_000.0) if gemma else None
        return float(theta), local, _scaling(fields.get("rope_scaling", None))
    if gemma:
        whole, part = parameters["full_attention"], parameters["sliding_attention"]
        if _scaling(part) is not None:
            raise ValueError(f"rope_parameters of sliding layers are scaled ({part!r}), which is not supported")
        return float(whole["rope_theta"]), float(part["rope_theta"]), _scaling(whole)
    return float(parameters.get("rope_theta", 10_000.0)), None, _scaling(parameters)


def _scaling(published: Mapping[str, Any] | None) -> RopeScaling | None:
    if not published:
        return None
    kind = published.get("rope_type", published.get("type", "default"))
    if kind == "default":
        known = {"rope_type", "type", "rope_theta"}
    elif kind == "linear":
        known = {"rope_type", "type", "rope_theta", "factor"}
    elif kind == "llama3":
        known = {"rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor"}
        known |= {"original_max_position_embeddings"}
    else:
        raise ValueError(f"rope_type={kind!r} is not supported; supported: default, linear, llama3")
    unknown = sorted(set(published) - known)
    if unknown:
        raise ValueError(f"rope scaling {kind!r} has fields that are not honoured: {', '.join(unknown)}")
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", float(published["factor"]))
    return RopeScaling(
        "llama3",
        float(published["factor"]),
        float(published["low_freq_factor"]),
        float(published["high_freq_factor"]),
        int(published["original_max_position_embeddings"]),
    )


def _windows(fields: _Fields, family: str, layers: int) -> tuple[int | None, tuple[bool, ...]]:
    """Window and which layers slide."""
    window = fields.get("sliding_window", None)
    types = fields.get("layer_types", None)
    if types is not None:
        unknown = set(types) - {"full_attention", "sliding_attention"}
        if unknown:
            raise ValueError(f"layer_types holds {sorted(unknown)}; only full and sliding attention are supported")
        sliding = tuple(kind == "sliding_attention" for kind in types)
    elif family == "gemma3":
        pattern = fields.get("sliding_window_pattern", fields.get("_sliding_window_pattern", 6))
        sliding = tuple((index + 1) % pattern != 0 for index in range(layers))
    elif family == "mistral":
        sliding = (window is not None,) * layers
    elif family in ("qwen2", "qwen3") and fields.get("use_sliding_window", False):
        full = fields.get("max_window_layers", 28)
        sliding = tuple(index >= full for index in range(layers))
    else:
        sliding = ()
    if not any(sliding):
        return None, ()
    return fields.need("sliding_window"), sliding
