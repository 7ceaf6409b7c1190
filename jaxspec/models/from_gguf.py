"""`ModelConfig` from the metadata of a GGUF file. What is not honoured is refused by name."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jaxspec.models.config import ModelConfig, RopeScaling
from jaxspec.models.rope import frequencies

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")

HONOURED = frozenset(
    "block_count context_length embedding_length feed_forward_length vocab_size attention.head_count "
    "attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon "
    "attention.sliding_window attention.sliding_window_pattern rope.dimension_count rope.freq_base "
    "rope.scaling.type rope.scaling.factor rope.scale_linear rope.local.freq_base rope.freq_base_swa "
    "final_logit_softcapping".split()
)
# Of fine-tuning, or only read with a scaling that is refused.
WITHOUT_EFFECT = frozenset({"rope.scaling.original_context_length", "rope.scaling.finetuned"})
# Honoured with this value alone.
FIXED = {"expert_count": 0, "expert_used_count": 0, "attention.causal": True, "use_parallel_residual": False}
GEMMA_PERIOD = 6  # every sixth layer is global
GEMMA_27B_LAYERS = 62  # the one Gemma 3 whose query scale does not follow from the head width


def config_from_gguf(
    metadata: Mapping[str, Any], tensors: Collection[str], factors: Collection[float] | None = None
) -> ModelConfig:
    """The description a GGUF file stands for.

    Args:
      metadata: its key-value pairs.
      tensors: names of its tensors.
      factors: its `rope_freqs.weight`, if any: what each rotary frequency is divided by.

    Raises:
      ValueError: the architecture or a field is not honoured, or a needed field is missing.
    """
    family = metadata.get("general.architecture")
    if family not in FAMILIES:
        raise ValueError(f"general.architecture={family!r} is not supported; supported: {', '.join(FAMILIES)}")
    if int(metadata.get("split.count", 1)) > 1:
        raise ValueError(f"the file is one of {metadata['split.count']} parts; merge them with gguf-split --merge")
    fields = _Fields(family, metadata)
    gemma = family == "gemma3"
    heads, width, layers = (
        fields.integer(name) for name in ("attention.head_count", "embedding_length", "block_count")
    )
    head_width = fields.integer("attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if fields.integer(name, head_width) != head_width:
            raise ValueError(f"{family}.{name}={fields[name]} differs from the head width {head_width}; not supported")
    window, sliding = _windows(fields, layers, gemma=gemma)
    config = ModelConfig(
        family=family,
        vocabulary=_vocabulary(metadata, fields),
        width=width,
        mlp_width=fields.integer("feed_forward_length"),
        layers=layers,
        query_heads=heads,
        key_heads=fields.integer("attention.head_count_kv", heads),
        head_width=head_width,
        context=fields.integer("context_length"),
        norm_epsilon=float(fields.get("attention.layer_norm_rms_epsilon", 1e-6)),
        norm_offset=gemma,
        query_scale=(width / heads) ** -0.5 if gemma and layers == GEMMA_27B_LAYERS else None,
        rope_theta=float(fields.get("rope.freq_base", 1_000_000.0 if gemma else 10_000.0)),
        rope_scaling=_scaling(fields, factors),
        local_rope_theta=_local_theta(fields) if gemma else None,
        window=window,
        sliding=sliding,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        query_key_norm="blk.0.attn_q_norm.weight" in tensors,
        sandwich_norm=gemma,
        embedding_scale=width**0.5 if gemma else 1.0,
        activation="gelu_tanh" if gemma else "silu",
        tied="output.weight" not in tensors,
        final_softcap=fields.get("final_logit_softcapping", None),
    )
    if factors is not None:
        _check_factors(config, np.asarray(factors, np.float32))
    return config


class _Fields:
    """The architecture's own metadata, with errors that name the field.

    Raises:
      ValueError: a field is not honoured.
    """

    def __init__(self, family: str, metadata: Mapping[str, Any]) -> None:
        prefix = f"{family}."
        own = {name.removeprefix(prefix): value for name, value in metadata.items() if name.startswith(prefix)}
        unknown = own.keys() - HONOURED - WITHOUT_EFFECT - FIXED.keys()
        unknown |= {name for name, only in FIXED.items() if own.get(name, only) != only}
        if unknown:
            shown = ", ".join(f"{prefix}{name}={own[name]!r}" for name in sorted(unknown))
            raise ValueError(f"metadata that is not honoured: {shown}")
        self._prefix = prefix
        self._fields = own

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str, default: Any) -> Any:
        return self._fields.get(name, default)

    def integer(self, name: str, default: int | None = None) -> int:
        """A positive integer; a list of one value a layer is one if all are equal."""
        value = self._fields.get(name, default)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(set(value)) == 1:
            value = value[0]
        if value is None:
            raise ValueError(f"metadata field {self._prefix}{name} is missing")
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"metadata field {self._prefix}{name}={value!r}; one positive integer is needed")
        return int(value)


def _vocabulary(metadata: Mapping[str, Any], fields: _Fields) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None and fields.get("vocab_size", None) is None:
        raise ValueError("metadata holds neither a vocabulary size nor tokenizer.ggml.tokens")
    return fields.integer("vocab_size", None if tokens is None else len(tokens))


def _local_theta(fields: _Fields) -> float:
    return float(fields.get("rope.local.freq_base", fields.get("rope.freq_base_swa", 10_000.0)))


def _windows(fields: _Fields, layers: int, *, gemma: bool) -> tuple[int | None, tuple[bool, ...]]:
    if not fields.get("attention.sliding_window", 0):
        return None, ()
    window = fields.integer("attention.sliding_window")
    if not gemma:
        raise ValueError(f"attention.sliding_window={window} is not honoured outside gemma3")
    pattern = fields.get("attention.sliding_window_pattern", GEMMA_PERIOD)
    if isinstance(pattern, (list, tuple)):
        return window, tuple(bool(value) for value in pattern)
    return window, tuple((index + 1) % int(pattern) != 0 for index in range(layers))


def _scaling(fields: _Fields, factors: Collection[float] | None) -> RopeScaling | None:
    kind = fields.get("rope.scaling.type", "none")
    factor = float(fields.get("rope.scaling.factor", 1.0))
    if "rope.scale_linear" in fields:  # the older name
        kind, factor = "linear", float(fields["rope.scale_linear"])
    if kind not in ("none", "linear"):
        raise ValueError(f"rope.scaling.type={kind!r} is not supported; supported: none, linear")
    if kind == "none" and factor != 1.0:
        raise ValueError(f"rope.scaling.factor={factor} comes without a rope.scaling.type")
    linear = RopeScaling("linear", factor) if factor != 1.0 else None
    if factors is None:
        return linear
    if linear is not None:
        raise ValueError(f"rope_freqs.weight beside linear scaling by {factor} is not supported")
    return _llama3(list(factors))


def _llama3(factors: list[float]) -> RopeScaling | None:
    """Llama 3's published scaling, which files state only by its effect on each frequency.

    High frequencies are divided by 1 and low ones by the factor; with the published blend between them (1 to 4
    rotations within 8192 tokens) the largest divisor says everything, which `_check_factors` makes sure of.
    """
    largest = max(factors)
    if largest == 1.0:
        return None
    return RopeScaling("llama3", float(largest), 1.0, 4.0, 8192)


def _check_factors(config: ModelConfig, factors: np.ndarray) -> None:
    plain = frequencies(dataclasses.replace(config, rope_scaling=None), sliding=False)
    if factors.shape != plain.shape or not np.allclose(plain / factors, frequencies(config, sliding=False), rtol=1e-4):
        raise ValueError("rope_freqs.weight is not the llama3 scaling of 1 to 4 rotations in 8192 tokens")
