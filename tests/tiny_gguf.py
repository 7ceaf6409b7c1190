"""Writes small GGUF files the way published ones are: names, row order, norms and metadata of the format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def published_to_gguf(name: str, *, gemma: bool) -> str:
    """`model.layers.3.mlp.up_proj.weight` to `blk.3.ffn_up.weight`."""
    norms = {"post_attention_layernorm": "post_attention_norm" if gemma else "ffn_norm"}
    norms |= {"pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}
    names = NAMES | norms
    stem, kind = name.rsplit(".", 1)
    if not stem.startswith("model.layers."):
        return f"{names[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{names[part]}.{kind}"


def interleave(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of every head from two halves to alternating pairs, as converters of Llama store them."""
    head = tensor.shape[0] // heads
    out = np.empty_like(tensor)
    for h in range(heads):
        for row in range(head // 2):
            out[h * head + 2 * row] = tensor[h * head + row]
            out[h * head + 2 * row + 1] = tensor[h * head + head // 2 + row]
    return out


def write_gguf(
    path: Path,
    architecture: str,
    weights: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    *,
    heads: tuple[int, int] = (1, 1),
    quantised: gguf.GGMLQuantizationType | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Writes published tensors and metadata.

    Args:
      path: of the file.
      architecture: goes before the names of its own metadata.
      weights: by Hugging Face names.
      metadata: names with `tokenizer.` or `general.` as they are, others of the architecture.
      heads: of queries and of keys.
      quantised: type of the matrices; the others stay float32.
      extra: tensors by GGUF names, written as they are.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in metadata.items():
        key = name if name.startswith(("tokenizer.", "general.", "split.")) else f"{architecture}.{name}"
        _add(writer, key, value)
    for name, tensor in weights.items():
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            tensor = interleave(tensor, heads[".k_proj." in name])
        if architecture == "gemma3" and name.endswith("norm.weight"):
            tensor = tensor + np.float32(1)
        theirs = published_to_gguf(name, gemma=architecture == "gemma3")
        if quantised is None or tensor.ndim == 1:
            writer.add_tensor(theirs, tensor.astype(np.float32))
        else:
            writer.add_tensor(theirs, gguf.quantize(tensor.astype(np.float32), quantised), raw_dtype=quantised)
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
