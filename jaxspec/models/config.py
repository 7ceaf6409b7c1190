"""What a decoder-only transformer is, as one frozen, hashable description.

Families differ in the values of these fields, never in code paths of their own; `from_huggingface` and
`from_gguf` (modules of those names) translate published metadata and refuse by name whatever is not honoured.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for long contexts.

    `linear` divides every frequency by `factor`. `llama3` divides only the low frequencies, and blends between
    `low_frequency_factor` and `high_frequency_factor`, measured against `original_context` (tokens).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Description of one decoder-only transformer.

    Attributes:
      family: name of the published architecture (`llama`, `qwen2`, `qwen3`, `gemma3`, `mistral`).
      vocabulary: rows of the embedding, V.
      width: size of the residual stream, W.
      mlp_width: size of the gated hidden layer, F.
      layers: number of blocks.
      query_heads: attention heads, Q.
      key_heads: key and value heads, K; divides `query_heads`.
      head_width: size of a head, H.
      context: longest position the model was trained for, in tokens.
      norm_epsilon: added to the mean square in RMS norms.
      norm_offset: RMS norms multiply by `1 + scale` (Gemma) instead of `scale`.
      query_scale: factor on queries before the dot product, `head_width ** -0.5` when None.
      rope_theta: base of the rotary frequencies of global layers.
      rope_scaling: scaling of the global frequencies.
      local_rope_theta: base for sliding layers, `rope_theta` when None; never scaled.
      window: a sliding layer sees keys with `query_position - key_position < window`; None without such layers.
      sliding: for each layer, whether it is a sliding one; empty when none is.
      qkv_bias, output_bias, mlp_bias: which projections carry a bias.
      query_key_norm: RMS norm on each head of queries and keys (Qwen3, Gemma 3).
      sandwich_norm: RMS norm also after attention and after the MLP (Gemma 3).
      embedding_scale: factor on embeddings (Gemma: sqrt(width)), rounded to the compute type as published.
      activation: the gate's non-linearity.
      tied: the output projection is the embedding.
      outputs: None for a language model; else a scoring model puts out so many numbers a token instead of logits,
        through a head with a bias of its own (`v_head.summary` in published files).
      final_softcap: `cap * tanh(logits / cap)` on logits; None for none.
    """

    family: str
    vocabulary: int
    width: int
    mlp_width: int
    layers: int
    query_heads: int
    key_heads: int
    head_width: int
    context: int = 2048
    norm_epsilon: float = 1e-5
    norm_offset: bool = False
    query_scale: float | None = None
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float | None = None
    window: int | None = None
    sliding: tuple[bool, ...] = ()
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_key_norm: bool = False
    sandwich_norm: bool = False
    embedding_scale: float = 1.0
    activation: Literal["silu", "gelu_tanh"] = "silu"
    tied: bool = False
    final_softcap: float | None = None
    outputs: int | None = None

    def __post_init__(self) -> None:
        if self.query_heads % self.key_heads:
            raise ValueError(
                f"query_heads={self.query_heads} is not a multiple of key_heads={self.key_heads}; "
                "grouped-query attention needs whole groups"
            )
        if self.sliding and len(self.sliding) != self.layers:
            raise ValueError(f"sliding names {len(self.sliding)} layers but layers={self.layers}")
        if any(self.sliding) and not self.window:
            raise ValueError("sliding layers need window, the number of tokens they see")
        if self.head_width % 2:
            raise ValueError(f"head_width={self.head_width} is odd; rotary embeddings rotate pairs")
        if self.outputs is not None and (self.outputs < 1 or self.tied or self.final_softcap is not None):
            raise ValueError(
                f"outputs={self.outputs} with tied={self.tied} and final_softcap={self.final_softcap}: a scoring model "
                "has one output at least, from a head of its own, without a cap"
            )

    def is_sliding(self, layer: int) -> bool:
        """Whether layer `layer` attends within `window` only."""
        return bool(self.sliding) and self.sliding[layer]
