"""From a name, folder, GGUF file or hub id to config, parameters and tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path

import jax

from jaxspec.models.config import ModelConfig
from jaxspec.models.from_gguf import config_from_gguf
from jaxspec.models.from_huggingface import config_from_huggingface
from jaxspec.models.model_fn import Params
from jaxspec.weights.folder_tokenizer import has_tokenizer, tokenizer_from_folder
from jaxspec.weights.gguf import ROPE_FACTORS, GGUFFile, GGUFSource
from jaxspec.weights.gguf_tokenizer import tokenizer_from_gguf
from jaxspec.weights.orbax import CONFIG_FILE, restore_params
from jaxspec.weights.parameters import Conversion, Sharding, assemble
from jaxspec.weights.pull import pull
from jaxspec.weights.safetensors import SafetensorsFolder
from jaxspec.weights.tokenizer import Tokenizer


def read_model(
    source: str | Path,
    *,
    dtype: jax.typing.DTypeLike,
    sharding: Sharding | None = None,
    folder: str | Path = "checkpoints",
    conversion: Callable[[ModelConfig], Conversion] | None = None,
) -> tuple[ModelConfig, Params, Tokenizer | None]:
    """Reads a model.

    Args:
      source: an existing folder (Hugging Face layout, or one of `save_params`) or `.gguf` file; or a name for
        `pull`.
      dtype: of the parameters.
      sharding: from a parameter's path and shape to where it goes.
      folder: where pulled models are kept.
      conversion: of every parameter as soon as it is there, see `assemble`; built of the config before weights are
        read. One of our own checkpoints is read whole before.

    Raises:
      FileNotFoundError: the source does not exist, or lacks a file.
      ValueError: its description or its weights are not honoured.
      ConnectionError: it would have to be fetched and cannot be.
    """
    path = Path(source).expanduser()
    if not path.exists():
        if path.suffix == ".gguf" or path.is_absolute() or str(source).startswith("."):
            raise FileNotFoundError(f"{source} does not exist")
        path = pull(str(source), folder)
    if path.is_file():
        return _read_gguf(path, dtype, sharding, conversion)
    if (path / CONFIG_FILE).exists():
        config, params = restore_params(path, dtype=dtype, sharding=sharding)
        if conversion is not None:
            _convert(params, conversion(config))
        tokenizer = tokenizer_from_folder(path) if has_tokenizer(path) else None
        return config, params, tokenizer
    return _read_folder(path, dtype, sharding, conversion)


def _convert(params: Params, convert: Conversion, path: tuple[str, ...] = ()) -> None:
    """Replaces the parameters in `params` one by one, so that each is let go before the next is converted."""
    for name, node in params.items():
        if isinstance(node, dict):
            _convert(node, convert, (*path, name))
        else:
            params[name] = convert((*path, name), node)


def _read_gguf(
    path: Path,
    dtype: jax.typing.DTypeLike,
    sharding: Sharding | None,
    conversion: Callable[[ModelConfig], Conversion] | None,
) -> tuple[ModelConfig, Params, Tokenizer]:
    file = GGUFFile(path)
    factors = file.read(ROPE_FACTORS).tolist() if ROPE_FACTORS in file.tensors else None
    config = config_from_gguf(file.metadata, file.tensors.keys(), factors)
    convert = None if conversion is None else conversion(config)
    tokenizer = tokenizer_from_gguf(file.metadata)
    source = GGUFSource(file, config)
    return config, assemble(source, config, dtype=dtype, sharding=sharding, convert=convert), tokenizer


def _read_folder(
    path: Path,
    dtype: jax.typing.DTypeLike,
    sharding: Sharding | None,
    conversion: Callable[[ModelConfig], Conversion] | None,
) -> tuple[ModelConfig, Params, Tokenizer]:
    described = path / "config.json"
    if not described.exists():
        raise FileNotFoundError(f"{path} has no config.json; it is not a Hugging Face model folder")
    try:
        published = json.loads(described.read_text())
    except ValueError:
        raise ValueError(f"{described} is not JSON; fetch it again") from None
    if not isinstance(published, dict):
        raise ValueError(f"{described} is not a JSON object; fetch it again")
    config = config_from_huggingface(published)
    convert = None if conversion is None else conversion(config)
    tokenizer = tokenizer_from_folder(path)
    source = SafetensorsFolder(path, text_only="text_config" in published)
    return config, assemble(source, config, dtype=dtype, sharding=sharding, convert=convert), tokenizer
