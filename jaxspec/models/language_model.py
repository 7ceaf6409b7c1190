"""A model ready to decode: description, function, weights and tokenizer."""

import dataclasses
from typing import Any

import jax

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import ModelFn, Params
from jaxspec.models.transformer import transformer_fn


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
    """Attributes:
    config: what the model is; caches are shaped by it.
    model: the `ModelFn`.
    params: its weights, on their devices.
    tokenizer: text to ids and back, or None for a model of bare ids.
    dtype: of activations.
    cache_dtype: of keys and values.
    name: for reports.
    """

    config: ModelConfig
    model: ModelFn
    params: Params
    tokenizer: Any
    dtype: jax.typing.DTypeLike
    cache_dtype: jax.typing.DTypeLike
    name: str = "model"

    def strict_model(self) -> ModelFn:
        """The `ModelFn` whose logits do not depend on how a text is split into blocks."""
        return transformer_fn(self.config, self.dtype, strict=True)
