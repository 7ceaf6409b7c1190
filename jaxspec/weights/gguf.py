"""GGUF files: tensors of every type the `gguf` library can dequantise, under Hugging Face names.

Two conventions of the format are undone here: llama's query and key rows are stored in the order of interleaved
rotation, and Gemma's norms as one plus the scale.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from jaxspec.models.config import ModelConfig
from jaxspec.weights.gguf_header import check_header
from jaxspec.weights.safetensors import GIT_LFS

GLOBAL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
GEMMA_LAYER = IN_LAYER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
ROPE_FACTORS = "rope_freqs.weight"


class GGUFFile:
    """An open file: metadata, and tensors by their own names."""

    def __init__(self, path: Path) -> None:
        """Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a GGUF file, is cut short, or says of itself what cannot be.
        """
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(len(GIT_LFS))
        if start == GIT_LFS:
            raise ValueError(f"{path} is a git-lfs pointer, not weights; run `git lfs pull`")
        if start[:4] != b"GGUF":
            raise ValueError(
                f"{path} is not a GGUF file: its {size} bytes do not begin with GGUF; safetensors go by their folder"
            )
        try:
            check_header(path)
            reader = gguf.GGUFReader(path)
            metadata = {name: field.contents() for name, field in reader.fields.items()}
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"{path} is truncated or corrupt, fetch it again: {error}") from None
        for tensor in reader.tensors:
            if int(tensor.data_offset) + int(tensor.n_bytes) > size:
                raise ValueError(f"{path} is truncated: tensor {tensor.name} ends beyond its {size} bytes")
        self.path = path
        self.metadata: Mapping[str, Any] = metadata
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32, (out, in).

        Raises:
          ValueError: of a quantised type the `gguf` library does not know.
        """
        tensor = self.tensors[name]
        try:
            return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except NotImplementedError:
            raise ValueError(f"{self.path}: {name} has type {tensor.tensor_type.name}, not supported") from None


class GGUFSource:
    """A GGUF file's tensors under Hugging Face names and conventions."""

    def __init__(self, file: GGUFFile, config: ModelConfig) -> None:
        self._file = file
        self._config = config
        layer = GEMMA_LAYER if config.family == "gemma3" else IN_LAYER
        self._names = {_published(name, layer): name for name in file.tensors if name != ROPE_FACTORS}
        if config.tied:
            self._names.pop("lm_head.weight", None)

    def names(self) -> Iterable[str]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self._file.tensors[self._names[name]].shape))

    def read(self, name: str) -> np.ndarray:
        tensor = self._file.read(self._names[name])
        if self._config.family in ("llama", "mistral"):
            if ".q_proj." in name:
                return _halves(tensor, self._config.query_heads)
            if ".k_proj." in name:
                return _halves(tensor, self._config.key_heads)
        if self._config.norm_offset and name.endswith("norm.weight"):
            return tensor - 1.0
        return tensor


def _published(name: str, layer: Mapping[str, str]) -> str:
    if name in GLOBAL:
        return GLOBAL[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match and match[2] in layer:
        return f"model.layers.{match[1]}.{layer[match[2]]}.{match[3]}"
    return name


def _halves(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows (or entries of a bias) of every head from interleaved pairs to first and second halves."""
    pairs = tensor.reshape(heads, -1, 2, *tensor.shape[1:])
    return np.swapaxes(pairs, 1, 2).reshape(tensor.shape)
