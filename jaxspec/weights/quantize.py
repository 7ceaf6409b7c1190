"""Weight-only quantisation: kernels of eight, four or three bits, everything else as it was.

Levels are symmetric around zero, with a scale for every output channel or for every `group` weights of one. Scales
put the largest weight half a step beyond the top level, so that the top level is used as much as the others.
Embedding and head keep eight bits by default: four cost more accuracy there than in all layers together.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.models.language_model import LanguageModel
from jaxspec.models.quantized_kernel import BITS, QuantizedKernel, pack, weights_per_word
from jaxspec.models.transformer import LinenModelFn

NAMES = {f"int{bits}": bits for bits in BITS}
VOCABULARY_KERNELS = ("embedding", "head")


@dataclasses.dataclass(frozen=True)
class Quantization:
    """Attributes:
    bits: of a weight.
    group: weights of one output channel that share a scale; None for the whole channel.
    """

    bits: int
    group: int | None = None


def parse_quantization(text: str) -> Quantization:
    """What `int8`, `int4`, `int3` or `int4:group=64` asks for.

    Raises:
      ValueError: it is none of these, or the group is not a positive multiple of the weights that share a word.
    """
    name, colon, setting = text.strip().partition(":") if isinstance(text, str) else ("", "", "")
    if name not in NAMES:
        raise ValueError(f"quantize={text!r} is not one of {', '.join(sorted(NAMES))}, or one of them with :group=64")
    bits = NAMES[name]
    if not colon:
        return Quantization(bits)
    key, _, value = (part.strip() for part in setting.partition("="))
    if key != "group" or not value.isdecimal():
        raise ValueError(f"quantize={text!r}: {setting!r} is not of the form group=NUMBER")
    group = int(value)
    if group < 1 or group % weights_per_word(bits):
        raise ValueError(f"quantize={text!r}: group={group} must be a positive multiple of {weights_per_word(bits)}")
    return Quantization(bits, group)


def quantize(lm: LanguageModel, weights: str, *, embedding: str = "int8") -> LanguageModel:
    """A copy of `lm` with quantised kernels, for the same cache, tokenizer and type of activations.

    Norms and biases are shared with `lm`. Shapes in place of parameters give shapes.

    Args:
      lm: a model of `jaxspec.load`, or any over `transformer_fn`.
      weights: `int8`, `int4` or `int3`, with one scale an output channel, or `int4:group=64` with one for every 64
        weights of a channel.
      embedding: the same for the embedding and the head.

    Raises:
      ValueError: an unknown name, a group that does not divide a kernel's fan-in, or a model whose kernels are not
        known or are quantised already.
    """
    layers, vocabulary = parse_quantization(weights), parse_quantization(embedding)
    if not isinstance(lm.model, LinenModelFn):
        raise ValueError(f"{lm.name} is not a model over transformer_fn, so its kernels cannot be quantised")
    leaves, tree = jax.tree_util.tree_flatten_with_path(
        lm.params, is_leaf=lambda leaf: isinstance(leaf, QuantizedKernel)
    )
    if any(isinstance(leaf, QuantizedKernel) for _, leaf in leaves):
        raise ValueError(f"{lm.name} is quantised already; quantise the model it was made from")
    plan = [_wanted(path, layers, vocabulary) for path, _ in leaves]
    _check_groups([(path, leaf.shape[0], wanted) for (path, leaf), wanted in zip(leaves, plan, strict=True) if wanted])
    params = tree.unflatten(
        leaf if wanted is None else _quantize_leaf(leaf, wanted) for (_, leaf), wanted in zip(leaves, plan, strict=True)
    )
    return dataclasses.replace(lm, params=params, name=f"{lm.name} {weights}")


@functools.partial(jax.jit, static_argnames=("bits", "group"))
def quantize_kernel(kernel: jax.Array, bits: int, group: int | None = None) -> QuantizedKernel:
    """`kernel` (W, F) rounded to the nearest of 2 ** `bits` levels.

    Scales are float32, or bfloat16 where they are many: for a group of 64, 4.25 bits a weight instead of 4.5.
    Weights are rounded to levels of the scale as it is stored. One that is no number shows in its scale.
    """
    rows, columns = kernel.shape
    size = group or rows
    grouped = kernel.astype(jnp.float32).reshape(rows // size, size, columns)
    largest = jnp.max(jnp.abs(grouped), axis=1)
    half = 2 ** (bits - 1)
    scale = jnp.where(largest == 0, 1.0, largest / (half - 0.5))
    scale = scale.astype(jnp.float32 if size == rows else jnp.bfloat16)
    levels = jnp.clip(jnp.round(grouped / scale.astype(jnp.float32)[:, None]), -half, half - 1)
    return QuantizedKernel(pack(levels.astype(jnp.int32).reshape(rows, columns), bits, size), scale, bits)


def _wanted(path: Any, layers: Quantization, vocabulary: Quantization) -> Quantization | None:
    names = [getattr(entry, "key", None) for entry in path]
    if names[-1] != "kernel":
        return None
    return vocabulary if names[0] in VOCABULARY_KERNELS else layers


def _check_groups(kernels: list[tuple[Any, int, Quantization]]) -> None:
    for path, rows, wanted in kernels:
        name = "/".join(str(entry.key) for entry in path)
        if wanted.group is not None and rows % wanted.group:
            common = math.gcd(*(rows for _, rows, other in kernels if other == wanted))
            raise ValueError(
                f"group={wanted.group} does not divide the {rows} inputs of {name}; use a divisor of {common}, "
                "which divides those of all kernels"
            )
        if rows % weights_per_word(wanted.bits):
            raise ValueError(f"{name} has {rows} inputs, which do not fill bytes of int{wanted.bits}; use int8")


def _quantize_leaf(leaf: Any, wanted: Quantization) -> Any:
    quantized = functools.partial(quantize_kernel, bits=wanted.bits, group=wanted.group)
    return jax.eval_shape(quantized, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else quantized(leaf)
