"""Models as Hugging Face folders: `config.json`, `model.safetensors`, tokenizer; `load` and others open them."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Params
from jaxspec.models.to_huggingface import config_to_huggingface
from jaxspec.weights.parameters import entries
from jaxspec.weights.safetensors import SINGLE
from jaxspec.weights.tokenizer import Tokenizer

DESCRIPTION = "config.json"


def save_model(
    folder: str | Path,
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> None:
    """Writes a model into a folder that `jaxspec.load` opens.

    Args:
      folder: new, or without a model.
      config: what the model is.
      params: its parameters, of any float type.
      tokenizer: saved beside them.
      dtype: of the weights in the file.

    Raises:
      FileExistsError: the folder already holds a model.
      ValueError: the config cannot be expressed in Hugging Face's form, or a parameter is missing or has another
        shape than the config says. Nothing is written then.
    """
    folder = Path(folder)
    if (folder / DESCRIPTION).exists() or (folder / SINGLE).exists():
        raise FileExistsError(f"{folder} already holds a model; choose another folder")
    published = config_to_huggingface(config) | {"dtype": str(jnp.dtype(dtype))}
    tensors = published_tensors(config, params, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    (folder / DESCRIPTION).write_text(json.dumps(published, indent=2) + "\n")


def published_tensors(config: ModelConfig, params: Params, dtype: jax.typing.DTypeLike) -> dict[str, np.ndarray]:
    """Every parameter under its published names, matrices as (out, in): the way back of `parameters.assemble`.

    Raises:
      ValueError: a parameter is missing or has another shape than the config says.
    """
    tensors: dict[str, np.ndarray] = {}
    for entry in entries(config):
        node = params
        for part in entry.path:
            node = node.get(part) if isinstance(node, dict) else None
        shape = None if node is None else np.shape(node)
        if shape != entry.shape:
            raise ValueError(f"parameter {'/'.join(entry.path)} has shape {shape}; the config needs {entry.shape}")
        rows = np.asarray(node).astype(jnp.dtype(dtype)).T
        ends = np.cumsum([part[0] for part in entry.shapes])[:-1]
        for name, part in zip(entry.names, np.split(rows, ends), strict=True):
            tensors[name] = np.ascontiguousarray(part)
    return tensors
