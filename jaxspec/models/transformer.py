"""One decoder-only transformer for every family, in Flax Linen used as `init` and `apply` only.

Kernels are stored (in, out), and the embedding (width, V): for blocks of two rows and more XLA on CPU multiplies
by them about a quarter faster than by their transposes, and elsewhere it makes no difference.

Shapes: B lanes, N nodes, W residual width, F MLP width, Q query heads, K key heads, H head width, V vocabulary.
"""

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxspec.models import rope
from jaxspec.models.attention import Visibility, block_attention, slot_attention
from jaxspec.models.cache import KVCache
from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Block, BlockOutput, Params, rows_of
from jaxspec.models.quantized_kernel import QuantizedKernel, quantized_columns, quantized_matmul

CPU_CHUNK = 128  # cache slots read at a time; the longest used prefix decides how many chunks


class Linear(nn.Module):
    """`x @ kernel (+ bias)`, accumulated in float32."""

    features: int
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = matmul(x, kernel_of(self, self.kernel_init, (x.shape[-1], self.features), x.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
            y = y + bias.astype(y.dtype)
        return y.astype(x.dtype)


def kernel_of(module: nn.Module, init: nn.initializers.Initializer, shape: tuple[int, int], dtype: Any) -> Any:
    """The module's kernel; a quantised one is given, never initialised, and Flax cannot check its shape."""
    if module.has_variable("params", "kernel"):
        given = module.get_variable("params", "kernel")
        if isinstance(given, QuantizedKernel):
            if given.shape != shape:
                raise ValueError(f"the quantised kernel of {module.name} is {given.shape}, not {shape}")
            return given
    return module.param("kernel", init, shape, dtype)


def matmul(x: jax.Array, kernel: jax.Array | QuantizedKernel) -> jax.Array:
    """`x (..., in) @ kernel (in, out)` as float32, exact products in float32 and one pass over the kernel.

    XLA on CPU widens the whole kernel for a single bfloat16 row, twenty times the cost of two rows: pad.
    """
    if isinstance(kernel, QuantizedKernel):
        return quantized_matmul(x, kernel, matmul)
    rows = x.reshape(-1, x.shape[-1])
    single = rows.shape[0] == 1 and x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu"
    if single:
        rows = jnp.pad(rows, ((0, 1), (0, 0)))
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    y = jnp.matmul(rows, kernel.astype(x.dtype), precision=precision, preferred_element_type=jnp.float32)
    if single:
        y = y[:1]
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def embed(kernel: jax.Array | QuantizedKernel, ids: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Columns `ids` (B, N) of `kernel` (W, V), as (B, N, W); a quantised kernel's as `dtype`.

    Gathered as bits: XLA on CPU would widen a whole bfloat16 kernel to gather from it.
    """
    if isinstance(kernel, QuantizedKernel):
        return quantized_columns(kernel, ids, dtype)
    narrow = kernel.dtype == jnp.bfloat16
    bits = jax.lax.bitcast_convert_type(kernel, jnp.uint16) if narrow else kernel
    columns = jnp.moveaxis(jnp.take(bits, ids, axis=1, mode="clip"), 0, -1)
    return jax.lax.bitcast_convert_type(columns, kernel.dtype) if narrow else columns


class RMSNorm(nn.Module):
    """`x / rms(x) * scale`, or `* (1 + scale)`, computed in float32."""

    epsilon: float
    offset: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        start = nn.initializers.zeros if self.offset else nn.initializers.ones
        scale = self.param("scale", start, (x.shape[-1],), x.dtype).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        if self.offset:
            return (wide * (1.0 + scale)).astype(x.dtype)
        return (scale * wide.astype(x.dtype).astype(jnp.float32)).astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention of a block; returns its output and the block's keys and values."""

    config: ModelConfig
    sliding: bool
    chunk: int | None
    by_slot: bool

    @nn.compact
    def __call__(self, x, angles, keys, values, visibility):
        config = self.config
        qkv = Linear((config.query_heads + 2 * config.key_heads) * config.head_width, config.qkv_bias, name="qkv")(x)
        heads = qkv.reshape(*x.shape[:2], -1, config.head_width).swapaxes(1, 2)  # (B, Q + 2 K, N, H)
        q, k, v = jnp.split(heads, [config.query_heads, config.query_heads + config.key_heads], axis=1)
        if config.query_key_norm:
            q = RMSNorm(config.norm_epsilon, config.norm_offset, name="query_norm")(q)
            k = RMSNorm(config.norm_epsilon, config.norm_offset, name="key_norm")(k)
        scale = config.head_width**-0.5 if config.query_scale is None else config.query_scale
        q = rope.rotate(q, *angles) * jnp.asarray(scale, q.dtype)
        k = rope.rotate(k, *angles)
        k, v = k.astype(keys.dtype), v.astype(values.dtype)
        attend = slot_attention if self.by_slot else block_attention
        window = config.window if self.sliding else None
        mixed = attend(q, k, v, keys, values, visibility, window=window, chunk=self.chunk)
        mixed = mixed.astype(x.dtype).swapaxes(1, 2).reshape(*x.shape[:2], -1)
        return Linear(config.width, config.output_bias, name="output")(mixed), k, v


class MLP(nn.Module):
    """`down(activation(gate(x)) * up(x))`, gate and up in one kernel."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        gate, up = jnp.split(Linear(2 * config.mlp_width, config.mlp_bias, name="gate_up")(x), 2, axis=-1)
        activate = nn.silu if config.activation == "silu" else functools.partial(nn.gelu, approximate=True)
        return Linear(config.width, config.mlp_bias, name="down")(activate(gate) * up)


class Layer(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    config: ModelConfig
    sliding: bool
    chunk: int | None
    by_slot: bool

    @nn.compact
    def __call__(self, x, angles, keys, values, visibility):
        config = self.config

        def norm(name: str) -> RMSNorm:
            return RMSNorm(config.norm_epsilon, config.norm_offset, name=name)

        attention = Attention(config, self.sliding, self.chunk, self.by_slot, name="attention")
        mixed, k, v = attention(norm("attention_norm")(x), angles, keys, values, visibility)
        if config.sandwich_norm:
            mixed = norm("post_attention_norm")(mixed)
        x = x + mixed
        hidden = MLP(config, name="mlp")(norm("mlp_norm")(x))
        if config.sandwich_norm:
            hidden = norm("post_mlp_norm")(hidden)
        return x + hidden, k, v


class Kernel(nn.Module):
    """A bare (W, V) matrix: the embedding, and the head where it is not tied."""

    shape: tuple[int, int]
    dtype: Any

    @nn.compact
    def __call__(self) -> jax.Array | QuantizedKernel:
        return kernel_of(self, nn.initializers.normal(0.02), self.shape, self.dtype)


class ScoreHead(nn.Module):
    """The head of a scoring model: `outputs` numbers a token, in float32, as `BlockOutput.logits`."""

    outputs: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = kernel_of(self, nn.initializers.normal(0.02), (x.shape[-1], self.outputs), self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,), self.dtype)
        return matmul(x, kernel) + bias.astype(jnp.float32)


class Transformer(nn.Module):
    """The whole model: a block and a cache in, logits (or a scoring model's outputs) and the block's keys and values
    out.

    Attributes:
      config: what to build.
      dtype: of parameters and activations; norms, rotations, softmax and logits are float32.
      chunk: cache slots read at a time, or None for all.
      by_slot: read every key from the slot of its position; see `attention.slot_attention`. Chains only.
    """

    config: ModelConfig
    dtype: Any = jnp.float32
    chunk: int | None = None
    by_slot: bool = False

    @nn.compact
    def __call__(self, block: Block, cache: KVCache, *, with_logits: bool = True) -> BlockOutput:
        config = self.config
        length = rows_of(cache.length, block.lane, block.ids.shape[0])
        positions = length[:, None] + block.depth
        visibility = Visibility(block.lane, length, block.depth, block.ancestors)
        angles = {
            sliding: rope.angles(positions, rope.frequencies(config, sliding=sliding)) for sliding in (False, True)
        }
        shape = (config.width, config.vocabulary)
        embedding = Kernel(shape, self.dtype, name="embedding")()
        x = embed(embedding, block.ids, self.dtype)
        if config.embedding_scale != 1.0:
            x = x * jnp.asarray(config.embedding_scale, self.dtype)
        new_keys, new_values = [], []
        for index in range(config.layers):
            sliding = config.is_sliding(index)
            layer = Layer(config, sliding, self.chunk, self.by_slot, name=f"layer_{index}")
            x, k, v = layer(x, angles[sliding], cache.keys[index], cache.values[index], visibility)
            new_keys.append(k)
            new_values.append(v)
        x = RMSNorm(config.norm_epsilon, config.norm_offset, name="final_norm")(x)
        if config.outputs is not None:
            outputs = ScoreHead(config.outputs, self.dtype, name="head")(x)
            return BlockOutput(outputs if with_logits else None, tuple(new_keys), tuple(new_values))
        logits = None
        head = embedding if config.tied else Kernel(shape, self.dtype, name="head")()
        if with_logits:
            logits = matmul(x, head)
            if config.final_softcap is not None:
                logits = config.final_softcap * jnp.tanh(logits / config.final_softcap)
        return BlockOutput(logits, tuple(new_keys), tuple(new_values))


@dataclasses.dataclass(frozen=True)
class LinenModelFn:
    """`ModelFn` of a Linen module: hashable by the module's own description, so equal models share a program."""

    module: nn.Module

    def __call__(self, params: Params, block: Block, cache: KVCache, *, with_logits: bool = True) -> BlockOutput:
        output = self.module.apply({"params": params}, block, cache, with_logits=with_logits)
        return cast(BlockOutput, output)


def transformer_fn(
    config: ModelConfig, dtype: jax.typing.DTypeLike = jnp.float32, *, strict: bool = False
) -> LinenModelFn:
    """The `ModelFn` of a config: chunked prefix reads on CPU, whole reads elsewhere.

    Args:
      config: the model.
      dtype: of parameters and activations.
      strict: bit-equal logits for any split of a text into chain blocks, at the cost of a cache copy a step.
    """
    chunk = CPU_CHUNK if jax.default_backend() == "cpu" else None
    return LinenModelFn(Transformer(config, jnp.dtype(dtype), chunk, strict))


def cache_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The cache's type for a compute type: XLA on CPU rewrites a whole bfloat16 cache at every write, so float32."""
    return jnp.dtype(jnp.float32) if jax.default_backend() == "cpu" else jnp.dtype(dtype)
