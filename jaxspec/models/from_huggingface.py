"""`ModelConfig` from a Hugging Face `config.json`. What is not honoured is refused by name."""

from collections.abc import Mapping
from typing import Any, Literal

from jaxspec.models.config import ModelConfig, RopeScaling

FAMILIES = {
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
}

# What a family means by a field that its file leaves out.
COMMON: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "max_window_layers": 28,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": COMMON | {"max_position_embeddings": 2048, "sliding_window": None},
    "mistral": COMMON | {"max_position_embeddings": 131_072, "num_key_value_heads": 8},
    "qwen2": COMMON | {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
    "qwen3": COMMON | {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
    "gemma3": COMMON
    | {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "query_pre_attn_scalar": 256,
        "sliding_window_pattern": 6,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
}
NULLABLE = frozenset({"sliding_window", "head_dim", "num_key_value_heads"})  # null means something of its own

# Fields of a family that another reads; there they are honoured only when null or false.
FOREIGN = {
    "llama": ("sliding_window", "use_sliding_window", "final_logit_softcapping"),
    "mistral": ("attention_bias", "mlp_bias", "use_sliding_window", "layer_types", "final_logit_softcapping"),
    "qwen2": ("attention_bias", "mlp_bias", "final_logit_softcapping"),
    "qwen3": ("mlp_bias", "final_logit_softcapping"),
    "gemma3": ("mlp_bias", "use_sliding_window"),
}

# Fields that change a forward pass and are honoured with this value alone, or null.
FIXED = {
    "attn_logit_softcapping": None,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "rope_interleaved": False,
    "use_bidirectional_attention": False,
    "use_mrope": False,
}

OUTPUTS = "score_outputs"  # this library's own field: a scoring model, and its outputs a token
PRM_ARCHITECTURES = ("Qwen2ForPrmModel",)  # Skywork-o1-Open-PRM: one output a token

HONOURED = frozenset(
    "model_type text_config vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim max_position_embeddings rms_norm_eps rope_theta rope_scaling rope_parameters "
    "rope_local_base_freq sliding_window use_sliding_window max_window_layers layer_types sliding_window_pattern "
    "_sliding_window_pattern attention_bias mlp_bias hidden_act hidden_activation query_pre_attn_scalar "
    "tie_word_embeddings final_logit_softcapping score_outputs".split()
)

# Of training, of files, of text or of sampling: nothing a forward pass sees.
WITHOUT_EFFECT = frozenset(
    "_attn_implementation_autoset _name_or_path add_cross_attention architectures attention_dropout "
    "attn_implementation auto_map bos_token_id cache_implementation chunk_size_feed_forward "
    "cross_attention_hidden_size decoder_start_token_id dtype eos_token_id finetuning_task id2label "
    "initializer_range is_decoder is_encoder_decoder is_llama_config label2id max_length max_sequence_length "
    "name_or_path output_attentions output_hidden_states pad_token_id prefix pretraining_tp problem_type "
    "pruned_heads return_dict sep_token_id task_specific_params tie_encoder_decoder tokenizer_class torch_dtype "
    "torchscript transformers.js_config transformers_version unsloth_fixed unsloth_version use_cache".split()
)

# Wrappers of a text model (Gemma 3 with vision) also describe parts that text never meets.
BESIDE_TEXT = frozenset(
    "vision_config mm_tokens_per_image boi_token_index eoi_token_index image_token_index boi_token_id eoi_token_id "
    "image_token_id".split()
)

ACTIVATIONS: dict[Any, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
}
ROPE_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def config_from_huggingface(published: Mapping[str, Any]) -> ModelConfig:
    """The description a `config.json` stands for.

    Args:
      published: the parsed file, with the field names of transformers 4 or 5.

    Raises:
      ValueError: the architecture, a field or a value is not honoured, or a needed field is missing.
    """
    if published.get("text_config") is not None:
        if published.get("model_type") != "gemma3":
            raise ValueError(f"model_type={published.get('model_type')!r} is not supported around a text_config")
        _refuse_unknown(published, BESIDE_TEXT)
        tied = published.get("tie_word_embeddings")
        published = {"tie_word_embeddings": tied} | dict(published["text_config"])
    kind = published.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"model_type={kind!r} is not supported; supported: {', '.join(FAMILIES)}")
    _refuse_unknown(published, frozenset())
    family = FAMILIES[kind]
    for name in FOREIGN[family]:
        if published.get(name) not in (None, False):
            raise ValueError(f"config field {name}={published[name]!r} has no meaning for model_type={kind!r}")
    fields = _Fields(DEFAULTS[family], published)
    gemma = family == "gemma3"
    heads, width = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    layers = fields.integer("num_hidden_layers")
    bias = bool(fields["attention_bias"])
    theta, local_theta, scaling = _rope(fields, gemma=gemma)
    window, sliding = _windows(fields, family, layers)
    outputs = _outputs(fields)
    return ModelConfig(
        family=family,
        vocabulary=fields.integer("vocab_size"),
        width=width,
        mlp_width=fields.integer("intermediate_size"),
        layers=layers,
        query_heads=heads,
        key_heads=fields.integer("num_key_value_heads", heads),
        head_width=fields.integer("head_dim", width // heads),
        context=fields.integer("max_position_embeddings"),
        norm_epsilon=fields.number("rms_norm_eps"),
        norm_offset=gemma,
        query_scale=fields.number("query_pre_attn_scalar") ** -0.5 if gemma else None,
        rope_theta=theta,
        rope_scaling=scaling,
        local_rope_theta=local_theta,
        window=window,
        sliding=sliding,
        qkv_bias=bias or family == "qwen2",
        output_bias=bias,
        mlp_bias=bool(fields["mlp_bias"]),
        query_key_norm=family in ("qwen3", "gemma3"),
        sandwich_norm=gemma,
        embedding_scale=width**0.5 if gemma else 1.0,
        activation=_activation(fields, "hidden_activation" if gemma else "hidden_act"),
        tied=bool(fields["tie_word_embeddings"]) and outputs is None,
        outputs=outputs,
        final_softcap=None if fields["final_logit_softcapping"] is None else fields.number("final_logit_softcapping"),
    )


class _Fields:
    """A published config over its family's defaults, with errors that name the field."""

    def __init__(self, defaults: Mapping[str, Any], published: Mapping[str, Any]) -> None:
        said = {name: value for name, value in published.items() if value is not None or name in NULLABLE}
        self._fields = dict(defaults) | said

    def __getitem__(self, name: str) -> Any:
        return self._fields.get(name)

    def integer(self, name: str, default: int | None = None) -> int:
        value = self[name]
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"config field {name}={value!r}; a positive integer is needed")
        return value

    def number(self, name: str) -> float:
        return _number(name, self[name])


def _outputs(fields: _Fields) -> int | None:
    """Outputs of a scoring model; None for a language model."""
    if fields[OUTPUTS] is not None:
        return fields.integer(OUTPUTS)
    return 1 if any(name in PRM_ARCHITECTURES for name in fields["architectures"] or ()) else None


def _number(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"config field {name}={value!r}; a positive number is needed")
    return float(value)


def _refuse_unknown(published: Mapping[str, Any], beside: frozenset[str]) -> None:
    """Refuses fields that are neither honoured nor without effect; null ones say nothing."""
    known = HONOURED | WITHOUT_EFFECT | beside | frozenset(FIXED)
    unknown = {name for name, value in published.items() if name not in known and value is not None}
    unknown |= {name for name, only in FIXED.items() if published.get(name) not in (None, only)}
    if unknown:
        shown = ", ".join(f"{name}={_short(published[name])}" for name in sorted(unknown))
        raise ValueError(f"config fields that are not honoured: {shown}")


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _activation(fields: _Fields, name: str) -> Literal["silu", "gelu_tanh"]:
    if fields[name] not in ACTIVATIONS:
        raise ValueError(f"{name}={fields[name]!r} is not supported; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[fields[name]]


def _rope(fields: _Fields, *, gemma: bool) -> tuple[float, float | None, RopeScaling | None]:
    """Base of global layers, base of sliding layers where it is another, scaling of global layers."""
    theta, local = fields["rope_theta"], fields["rope_local_base_freq"]
    if fields["rope_scaling"] and fields["rope_parameters"]:
        raise ValueError("the config has both rope_scaling and rope_parameters, its older and its newer name")
    published = fields["rope_scaling"] or fields["rope_parameters"] or {}
    if not isinstance(published, Mapping):
        raise ValueError(f"rope parameters {published!r} are not a record of fields")
    if gemma and fields["rope_parameters"]:
        unknown = sorted(published.keys() - {"full_attention", "sliding_attention"})
        if unknown:
            raise ValueError(f"rope_parameters has fields that are not honoured: {', '.join(unknown)}")
        part = published.get("sliding_attention") or {}
        published = published.get("full_attention") or {}
        if _scaling(part, fields) is not None:
            raise ValueError(f"rope_parameters of sliding layers are scaled ({part!r}), which is not supported")
        local = part.get("rope_theta", local)
    theta = published.get("rope_theta", theta)
    scaling = _scaling(published, fields)
    return _number("rope_theta", theta), _number("rope_local_base_freq", local) if gemma else None, scaling


def _scaling(published: Mapping[str, Any], fields: _Fields) -> RopeScaling | None:
    kind = published.get("rope_type") or published.get("type") or "default"
    if kind not in ROPE_FIELDS:
        raise ValueError(f"rope_type={kind!r} is not supported; supported: {', '.join(ROPE_FIELDS)}")
    unknown = sorted(published.keys() - {"rope_type", "type", "rope_theta", *ROPE_FIELDS[kind]})
    if unknown == ["partial_rotary_factor"] and published["partial_rotary_factor"] == 1.0:
        unknown = []
    if unknown:
        shown = ", ".join(f"{name}={_short(published[name])}" for name in unknown)
        raise ValueError(f"rope_type={kind!r} has fields that are not honoured: {shown}")
    original = {"original_max_position_embeddings": fields["max_position_embeddings"]}
    values = {name: _number(name, (original | dict(published)).get(name)) for name in ROPE_FIELDS[kind]}
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", values["factor"])
    factor, low, high, context = values.values()
    if high <= low:
        raise ValueError(f"rope high_freq_factor={high} must be greater than low_freq_factor={low}")
    return RopeScaling("llama3", factor, low, high, int(context))


def _windows(fields: _Fields, family: str, layers: int) -> tuple[int | None, tuple[bool, ...]]:
    """The window, and which layers have one."""
    types = fields["layer_types"]
    qwen = family in ("qwen2", "qwen3")
    if types is not None:
        unknown = set(types) - {"full_attention", "sliding_attention"}
        if unknown:
            raise ValueError(f"layer_types holds {sorted(unknown)}; only full and sliding attention are supported")
        sliding = tuple(kind == "sliding_attention" for kind in types)
        if family != "gemma3" and any(sliding) and not fields["use_sliding_window"]:
            raise ValueError("layer_types holds sliding_attention, but use_sliding_window is not true")
    elif family == "gemma3":
        period = fields.integer("_sliding_window_pattern", fields.integer("sliding_window_pattern"))
        sliding = tuple((index + 1) % period != 0 for index in range(layers))
    elif family == "mistral":
        sliding = (fields["sliding_window"] is not None,) * layers
    elif qwen and fields["use_sliding_window"] and fields["sliding_window"] is not None:
        sliding = tuple(index >= fields["max_window_layers"] for index in range(layers))
    else:
        sliding = ()
    if not any(sliding):
        return None, ()
    return fields.integer("sliding_window"), sliding
