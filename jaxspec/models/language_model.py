"""A model ready to decode: description, function, weights and tokenizer."""

import dataclasses
from typing import Any

import jax

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import ModelFn, Params
from jaxspec.models.transformer import LinenModelFn, Transformer, transformer_fn


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
        """The `ModelFn` whose logits do not depend on how a text is split into blocks.

        Raises:
          ValueError: `model` is not `transformer_fn` of the config, and what it would be strictly is not known.
        """
        module = self.model.module if isinstance(self.model, LinenModelFn) else None
        if type(module) is not Transformer or module.config != self.config:
            raise ValueError(
                f"strict=True needs a model over transformer_fn of its own config, and {self.name} is of "
                f"{type(self.model).__name__}; leave strict out"
            )
        return transformer_fn(self.config, self.dtype, strict=True)


def check_writes(lm: LanguageModel, role: str) -> None:
    """Checks that a model can say tokens.

    Args:
      lm: what was given.
      role: what it was given as, for the message.

    Raises:
      ValueError: it is a scoring model.
    """
    if lm.config.outputs is not None:
        raise ValueError(
            f"{lm.name} is a scoring model: it puts out {lm.config.outputs} numbers a token and no text, so it cannot "
            f"be the {role}; give a language model, and pass scoring models to jaxspec.steps.solve as scorer="
        )
