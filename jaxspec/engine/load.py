"""`load`: from a name, folder, GGUF file or hub id to a model ready to decode."""

import dataclasses
import functools
import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import Params
from jaxspec.models.quantized_kernel import QuantizedKernel
from jaxspec.models.self_draft import SELF, self_draft
from jaxspec.models.transformer import cache_dtype, transformer_fn
from jaxspec.weights.parameters import Conversion, parameter_shapes
from jaxspec.weights.quantize import parse_quantization, quantize_kernel
from jaxspec.weights.quantize import quantize as quantized

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def load(
    source: str | Path,
    *,
    dtype: str = "auto",
    quantize: str | None = None,
    sharding: Any = None,
    folder: str | Path = "checkpoints",
) -> LanguageModel:
    """Reads a model and its tokenizer.

    Args:
      source: a known name (`smollm2-135m`), a Hugging Face folder, a `.gguf` file, or a hub id.
      dtype: `float32`, `bfloat16`, or `auto`: float32 on CPU, bfloat16 elsewhere.
      quantize: `int8`, `int4` or `int3` kernels, or `int4:group=64`, see `jaxspec.quantize`; None leaves them in
        `dtype`. Published kernels are quantised as they are read: the device need only hold the quantised model.
      sharding: from a parameter's path and shape to where it lives, `jaxspec.partition(mesh)` for one; or a device
        or sharding for all of them; None for the default device.
      folder: where named models are kept.

    Raises:
      ValueError: unknown `dtype` or `quantize`, or an architecture or field that is not honoured.
      FileNotFoundError: no such model, or one without weights or tokenizer.
    """
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)} or auto")
    if quantize is not None:
        parse_quantization(quantize)  # refused before anything is read
    from jaxspec.weights.load import read_model  # tokenizers and file formats, which bare arrays do not need

    compute = DTYPES[dtype]

    def assembled(config: ModelConfig, params: Params, tokenizer: Any = None) -> LanguageModel:
        return LanguageModel(
            config=config,
            model=transformer_fn(config, compute),
            params=params,
            tokenizer=tokenizer,
            dtype=jnp.dtype(compute),
            cache_dtype=cache_dtype(compute),
            name=str(source),
        )

    place = _placement(sharding)
    if quantize is None:
        return assembled(*read_model(source, dtype=compute, sharding=place, folder=folder))

    def conversion(config: ModelConfig) -> Conversion:
        return _like(quantized(assembled(config, parameter_shapes(config, compute)), quantize).params)

    lm = assembled(*read_model(source, dtype=compute, sharding=place, folder=folder, conversion=conversion))
    return dataclasses.replace(lm, name=f"{lm.name} {quantize}")


def _like(planned: Params) -> Conversion:
    """Quantises every kernel as the shapes in `planned` say."""

    def convert(path: tuple[str, ...], parameter: jax.Array) -> Any:
        wanted = functools.reduce(operator.getitem, path, planned)
        if not isinstance(wanted, QuantizedKernel):
            return parameter
        # Waited for, or reading would run ahead and hold several kernels in their full width.
        return jax.block_until_ready(quantize_kernel(parameter, wanted.bits, wanted.group))

    return convert


def load_pair(draft: str, target: str, *, dtype: str = "auto") -> tuple[LanguageModel, LanguageModel]:
    """A draft and its target.

    Args:
      draft: what `load` takes; or, after `self:`, a cheaper version of the target: `self:int4`, `self:layers=12`.
      target: what `load` takes.
      dtype: of both, see `load`.

    Raises:
      ValueError, FileNotFoundError: see `load` and `self_draft`.
    """
    if not draft.startswith(SELF):
        return load(draft, dtype=dtype), load(target, dtype=dtype)
    lm = load(target, dtype=dtype)
    return self_draft(lm, draft.removeprefix(SELF)), lm


def _placement(sharding: Any) -> Any:
    """From a parameter's path and shape to where it lives, also where all of them live in one place."""
    if sharding is None or callable(sharding):
        return sharding
    whole = isinstance(sharding, jax.sharding.Sharding)
    place = sharding if whole else jax.sharding.SingleDeviceSharding(sharding)
    return lambda path, shape: place
