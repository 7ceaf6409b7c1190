"""`ModelConfig` from the metadata of a GGUF file. What is not honoured is refused by name."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxspec.models.config import ModelConfig, RopeScaling
from jaxspec.models.rope import frequencies

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")

HONOURED = frozenset(
    "block_count context_length embedding_length feed_forward_length vocab_size attention.head_count "
    "attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon "
    "attention.sliding_window attention.sliding_window_pattern rope.dimension_count rope.freq_base "
    "rope.scaling.type rope.scaling.factor rope.local.freq_base rope.freq_base_swa final_logit_softcapping".split()
)
GEMMA_PERIOD = 6  # every sixth layer is global


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
    fields = {
        name.removeprefix(f"{family}."): value
        for name, value in metadata.items()
        if name.startswith(f"{family}.")
    }
    unknown = sorted(set(fields) - HONOURED)
    if unknown:
        raise ValueError(f"metadata that is not honoured: {', '.join(f'{n}={fields[n]!r}' for n in unknown)}")

    def need(name: str) -> int:
        if name not in fields:
            raise ValueError(f"metadata field {family}.{name} is missing")
        return int(fields[name])

    gemma = family == "gemma3"
    heads, width, layers = need("attention.head_count"), need("embedding_length"), need("block_count")
    head_width = int(fields.get("attention.key_length", width // heads))
    if int(fields.get("attention.value_length", head_width)) != head_width:
        raise ValueError(f"attention.value_length={fields['attention.value_length']} differs from the key length")
    if int(fields.get("rope.dimension_count", head_width)) != head_width:
        raise ValueError(
            f"rope.dimension_count={fields['rope.dimension_count']} rotates a part of a head of {head_width}"
        )
    window, sliding = _windows(fields, layers, gemma=gemma)
    config = ModelConfig(
        family=family,
        vocabulary=_vocabulary(metadata, fields),
        width=width,
        mlp_width=need("feed_forward_length"),
        layers=layers,
        query_heads=heads,
        key_heads=int(fields.get("attention.head_count_kv", heads)),
        head_width=head_width,
        context=need("context_length"),
        norm_epsilon=float(fields.get("attention.layer_norm_rms_epsilon", 1e-6)),
        norm_offset=gemma,
        # The published query scale of Gemma 3 is the head width's, except in the 27B model (5376 wide).
        query_scale=(width / heads) ** -0.5 if gemma and width == 5376 else None,
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
        final_softcap=fields.get("final_logit_softcapping"),
    )
    if factors is not None:
        _check_factors(config, np.asarray(factors))
    return config


def _vocabulary(metadata: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
    if "vocab_size" in fields:
        return int(fields["vocab_size"])
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        raise ValueError("metadata holds neither a vocabulary size nor tokenizer.ggml.tokens")
    return len(tokens)


def _local_theta(fields: Mapping[str, Any]) -> float:
    return float(fields.get("rope.local.freq_base", fields.get("rope.freq_base_swa", 10_000.0)))


def _windows(fields: Mapping[str, Any], layers: int, *, gemma: bool) -> tuple[int | None, tuple[bool, ...]]:
    window = int(fields.get("attention.sliding_window", 0))
    if not gemma or not window:
        if window:
            raise ValueError(f"attention.sliding_window={window} is not honoured outside gemma3")
        return None, ()
    pattern = fields.get("attention.sliding_window_pattern", GEMMA_PERIOD)
    if isinstance(pattern, (list, tuple)):
        return window, tuple(bool(value) for value in pattern)
    return window, tuple((index + 1) % int(pattern) != 0 for index in range(layers))


def _scaling(fields: Mapping[str, Any], factors: Collection[float] | None) -> RopeScaling | None:
    kind = fields.get("rope.scaling.type", "none")
    factor = float(fields.get("rope.scaling.factor", 1.0))
    if kind not in ("none", "linear"):
        raise ValueError(f"rope.scaling.type={kind!r} is not supported; supported: none, linear")
    if factors is not None:
        return _llama3(list(factors))
    return RopeScaling("linear", factor) if kind == "linear" and factor != 1.0 else None


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
    if factors.shape != plain.shape or not np.allclose(
        plain / factors, frequencies(config, sliding=False), rtol=1e-4
    ):
        raise ValueError("rope_freqs.weight is not the llama3 scaling of 1 to 4 rotations in 8192 tokens")
