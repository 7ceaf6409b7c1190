"""A model set into a wider one that computes the same, to be trained on.

Growth that preserves the function is Net2Net's (Chen, Goodfellow and Shlens, arXiv 1511.05641). Here new units start
with random inputs and with outputs of zero, so that they differ from each other from the first step on.
"""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.models.language_model import LanguageModel
from jaxspec.models.transformer import transformer_fn

READING = 0.02  # standard deviation of what new units read with, as of a model from scratch


@dataclasses.dataclass(frozen=True)
class WiderShape:
    """Of a wider model; its number of layers stays.

    Attributes:
      width: of the residual stream.
      mlp_width: of the gated hidden layers.
      heads: of queries, keys and values alike, each as wide as the model's own.
    """

    width: int
    mlp_width: int
    heads: int


def widened(lm: LanguageModel, shape: WiderShape, *, seed: int = 0) -> LanguageModel:
    """The same function in a wider net, of the Llama family.

    New residual dimensions are zero, as nothing writes to them yet; new heads and hidden units see the text through
    random weights, and nothing reads them yet. Norms divide by the larger width, which their scales and epsilon make
    up for.

    Args:
      lm: the model.
      shape: to grow to.
      seed: of the random weights.

    Raises:
      ValueError: the shape is smaller somewhere, or the model is none of equal heads without biases and further norms.
    """
    old = lm.config
    plain = old.query_heads == old.key_heads and not (old.qkv_bias or old.output_bias or old.mlp_bias)
    if not plain or old.query_key_norm or old.sandwich_norm or old.norm_offset:
        raise ValueError(f"{lm.name} is not made of equal heads and linear maps alone, and cannot be widened")
    if shape.width < old.width or shape.mlp_width < old.mlp_width or shape.heads < old.query_heads:
        raise ValueError(f"{shape} is smaller than {lm.name}, which cannot be set into it")
    config = dataclasses.replace(
        old,
        width=shape.width,
        mlp_width=shape.mlp_width,
        query_heads=shape.heads,
        key_heads=shape.heads,
        norm_epsilon=old.norm_epsilon * old.width / shape.width,
    )
    random = np.random.default_rng(seed)

    def reading(kernel: Any, parts: int, outputs: int) -> jax.Array:
        """`kernel` (in, parts * out) with more inputs, which are zero, and more outputs in every part."""
        kernel = np.asarray(kernel, np.float32)
        grown = random.normal(0, READING, (shape.width, parts, outputs)).astype(np.float32)
        grown[: kernel.shape[0], :, : kernel.shape[1] // parts] = kernel.reshape(kernel.shape[0], parts, -1)
        return jnp.asarray(grown.reshape(shape.width, -1), lm.dtype)

    def writing(kernel: Any, inputs: int) -> jax.Array:
        """`kernel` (in, out) with more inputs, which are not listened to, and more outputs, which are zero."""
        kernel = np.asarray(kernel, np.float32)
        grown = np.zeros((inputs, shape.width), np.float32)
        grown[: kernel.shape[0], : kernel.shape[1]] = kernel
        return jnp.asarray(grown, lm.dtype)

    def norm(scale: Any) -> jax.Array:
        grown = np.ones((shape.width,), np.float32)
        grown[: old.width] = np.asarray(scale, np.float32) * (old.width / shape.width) ** 0.5
        return jnp.asarray(grown, lm.dtype)

    heads = shape.heads * config.head_width
    params: dict[str, Any] = {}
    for name, part in cast(dict[str, Any], lm.params).items():
        if name == "embedding" or name == "head":
            params[name] = {"kernel": writing(np.asarray(part["kernel"], np.float32).T, config.vocabulary).T}
        elif name == "final_norm":
            params[name] = {"scale": norm(part["scale"])}
        else:
            attention, mlp = part["attention"], part["mlp"]
            params[name] = {
                "attention_norm": {"scale": norm(part["attention_norm"]["scale"])},
                "attention": {
                    "qkv": {"kernel": reading(attention["qkv"]["kernel"], 3, heads)},
                    "output": {"kernel": writing(attention["output"]["kernel"], heads)},
                },
                "mlp_norm": {"scale": norm(part["mlp_norm"]["scale"])},
                "mlp": {
                    "gate_up": {"kernel": reading(mlp["gate_up"]["kernel"], 2, shape.mlp_width)},
                    "down": {"kernel": writing(mlp["down"]["kernel"], shape.mlp_width)},
                },
            }
    return dataclasses.replace(
        lm, config=config, model=transformer_fn(config, lm.dtype), params=params, name=f"{lm.name} in {shape}"
    )
