"""Cheaper versions of a model, to draft for it: of fewer bits, or of its first layers alone.

Self-speculation of Zhang et al. (arXiv 2309.08168) and early exit of Elhoushi et al. (LayerSkip, arXiv 2404.16710),
without training: the first layers, then the whole model's final norm and head.
"""

import dataclasses

from jaxspec.models.language_model import LanguageModel
from jaxspec.models.transformer import LinenModelFn, transformer_fn
from jaxspec.weights.quantize import NAMES, quantize

SELF = "self:"  # begins the name of a draft that is a version of its target


def self_draft(lm: LanguageModel, how: str) -> LanguageModel:
    """A cheaper version of `lm` with the same vocabulary, which has its own cache.

    Args:
      lm: a model over `transformer_fn`.
      how: `int8`, `int4`, `int3` or `int4:group=64` for a quantised copy; `layers=12` for the first twelve layers,
        which shares the weights of `lm`.

    Raises:
      ValueError: `how` is none of these, a number of layers that is not below the model's own, or a model whose
        parameters are not known.
    """
    text = how.strip()
    if text.partition(":")[0] in NAMES:
        return quantize(lm, text)
    key, _, value = text.partition("=")
    if key.strip() != "layers" or not value.strip().isdecimal():
        raise ValueError(f"self draft {how!r} is none of {', '.join(sorted(NAMES))}, int4:group=64 and layers=12")
    return first_layers(lm, int(value))


def first_layers(lm: LanguageModel, layers: int) -> LanguageModel:
    """The first `layers` layers of `lm`, its final norm and its head; weights are shared, not copied.

    Raises:
      ValueError: `layers` is not between 1 and one below the model's own number, or a model over another `ModelFn`.
    """
    if not isinstance(lm.model, LinenModelFn):
        raise ValueError(f"{lm.name} is not a model over transformer_fn, so its layers cannot be told apart")
    if not 1 <= layers < lm.config.layers:
        raise ValueError(
            f"layers={layers} is not between 1 and {lm.config.layers - 1}: {lm.name} has {lm.config.layers} layers, "
            "and its draft needs fewer"
        )
    config = dataclasses.replace(lm.config, layers=layers, sliding=lm.config.sliding[:layers])
    left_out = {f"layer_{index}" for index in range(layers, lm.config.layers)}
    return dataclasses.replace(
        lm,
        config=config,
        model=transformer_fn(config, lm.dtype),
        params={name: value for name, value in lm.params.items() if name not in left_out},
        name=f"{lm.name} layers={layers}",
    )
