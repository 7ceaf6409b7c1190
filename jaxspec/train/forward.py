"""Logits of whole token sequences, differentiable: the decoding model's own function, without its cache.

Shapes: B lanes, T tokens of a sequence, W residual width, H head width, V vocabulary.
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxspec.models import rope
from jaxspec.models.attention import MASKED
from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Params
from jaxspec.models.transformer import MLP, Linear, RMSNorm, matmul
from jaxspec.weights.parameters import entries

Angles = tuple[jax.Array, jax.Array]  # cosine and sine, (B, 1, T, H / 2)

ONE_HOT = 4096  # vocabularies up to this size are embedded by a product: its gradient needs no scatter
NORMAL = 0.02  # standard deviation of a fresh head, whose first logits are then nearly even


def init_params(config: ModelConfig, key: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> Params:
    """Fresh parameters: kernels normal with variance 1 / (their inputs), those that end a branch smaller, embeddings
    of their own with variance 1.

    Args:
      config: the model.
      key: of the draws; every parameter folds in its own place in the tree.
      dtype: of the parameters.
    """
    branches = (2 * config.layers) ** -0.5  # keeps the residual stream's variance as layers add to it
    tree: dict[str, Any] = {}
    for index, entry in enumerate(entries(config)):
        node = tree
        for part in entry.path[:-1]:
            node = node.setdefault(part, {})
        node[entry.path[-1]] = _fresh(entry.path, entry.shape, jax.random.fold_in(key, index), config, branches, dtype)
    return tree


def _fresh(path, shape, key: jax.Array, config: ModelConfig, branches: float, dtype) -> jax.Array:
    owner, kind = path[-2], path[-1]
    if kind == "scale":
        return jnp.full(shape, 0.0 if config.norm_offset else 1.0, dtype)
    if kind == "bias":
        return jnp.zeros(shape, dtype)
    deviation = shape[0] ** -0.5
    if owner == "head":
        deviation = NORMAL
    elif owner == "embedding" and not config.tied:
        deviation = 1.0  # as large as what layers add to it, so that they do not drown which token it was
    if owner in ("output", "down"):
        deviation *= branches
    return (deviation * jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def forward(
    params: Params,
    config: ModelConfig,
    ids: jax.Array,
    *,
    positions: jax.Array | None = None,
    visible: jax.Array | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
    checkpoint: bool = False,
) -> jax.Array:
    """Logits (B, T, V) in float32; `project(hidden_states(...))`, whose arguments these are."""
    hidden = hidden_states(
        params, config, ids, positions=positions, visible=visible, dtype=dtype, checkpoint=checkpoint
    )
    return project(params, config, hidden)


def hidden_states(
    params: Params,
    config: ModelConfig,
    ids: jax.Array,
    *,
    positions: jax.Array | None = None,
    visible: jax.Array | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
    checkpoint: bool = False,
) -> jax.Array:
    """What the head reads of every token, (B, T, W) in `dtype`.

    Args:
      params: of the model, of any float type; computed with as `dtype`.
      config: the model.
      ids: (B, T) int32.
      positions: (B, T) int32, for rotations and windows; 0 to T - 1 when None.
      visible: (B, T, T) bool, `visible[b, i, j]` iff token i sees token j; each must see one at least. Causal when
        None. Windows of sliding layers are taken off it.
      dtype: of activations; norms, softmax and logits are float32 in any case.
      checkpoint: keep only the input of every layer for the backward pass and compute the rest again.
    """
    lanes, tokens = ids.shape
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32), (lanes, tokens))
    if visible is None:
        visible = jnp.broadcast_to(jnp.tril(jnp.ones((tokens, tokens), bool)), (lanes, tokens, tokens))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    angles = {sliding: rope.angles(positions, rope.frequencies(config, sliding=sliding)) for sliding in (False, True)}
    near = visible
    if config.window is not None:
        near = visible & (positions[:, :, None] - positions[:, None, :] < config.window)
    biases = {sliding: jnp.where(seen, 0.0, MASKED) for sliding, seen in ((False, visible), (True, near))}
    x = _embed(params["embedding"]["kernel"], ids)
    if config.embedding_scale != 1.0:
        x = x * jnp.asarray(config.embedding_scale, dtype)
    for index in range(config.layers):
        sliding = config.is_sliding(index)
        layer = functools.partial(_layer, config=config)
        if checkpoint:
            layer = jax.checkpoint(layer)
        x = layer(params[f"layer_{index}"], x, angles[sliding], biases[sliding])
    return _norm(params["final_norm"], x, config)


def project(params: Params, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """Logits (..., V), or a scoring model's outputs (..., O), in float32 of `hidden` (..., W)."""
    if config.outputs is not None:
        head = params["head"]
        return matmul(hidden, head["kernel"].astype(hidden.dtype)) + head["bias"].astype(jnp.float32)
    kernel = params["embedding" if config.tied else "head"]["kernel"].astype(hidden.dtype)
    logits = matmul(hidden, kernel)
    if config.final_softcap is not None:
        logits = config.final_softcap * jnp.tanh(logits / config.final_softcap)
    return logits


def _embed(kernel: jax.Array, ids: jax.Array) -> jax.Array:
    """Columns `ids` (B, T) of `kernel` (W, V), as (B, T, W)."""
    if kernel.shape[1] > ONE_HOT:
        return jnp.moveaxis(jnp.take(kernel, ids, axis=1, mode="clip"), 0, -1)
    chosen = jax.nn.one_hot(ids, kernel.shape[1], dtype=kernel.dtype)
    return jnp.matmul(chosen, kernel.T, precision=jax.lax.Precision.HIGHEST)


def _layer(weights: Params, x: jax.Array, angles: Angles, bias: jax.Array, *, config: ModelConfig) -> jax.Array:
    """`transformer.Layer` without a cache: `bias` (B, T, T) is added to its attention's scores."""
    mixed = _attention(weights["attention"], _norm(weights["attention_norm"], x, config), angles, bias, config)
    if config.sandwich_norm:
        mixed = _norm(weights["post_attention_norm"], mixed, config)
    x = x + mixed
    hidden = cast(jax.Array, MLP(config).apply({"params": weights["mlp"]}, _norm(weights["mlp_norm"], x, config)))
    if config.sandwich_norm:
        hidden = _norm(weights["post_mlp_norm"], hidden, config)
    return x + hidden


def _attention(weights: Params, x: jax.Array, angles: Angles, bias: jax.Array, config: ModelConfig) -> jax.Array:
    """One softmax over all keys: its gradient costs half of that of the running one that decoding needs."""
    lanes, tokens = x.shape[:2]
    qkv = _linear(weights["qkv"], x, (config.query_heads + 2 * config.key_heads) * config.head_width)
    heads = qkv.reshape(lanes, tokens, -1, config.head_width).swapaxes(1, 2)
    q, k, v = jnp.split(heads, [config.query_heads, config.query_heads + config.key_heads], axis=1)
    if config.query_key_norm:
        q, k = _norm(weights["query_norm"], q, config), _norm(weights["key_norm"], k, config)
    scale = config.head_width**-0.5 if config.query_scale is None else config.query_scale
    q = rope.rotate(q, *angles) * jnp.asarray(scale, q.dtype)
    # One copy of a key head for each of its query heads: with a fifth axis, products are slower on CPU.
    k, v = (jnp.repeat(head, config.query_heads // config.key_heads, axis=1) for head in (rope.rotate(k, *angles), v))
    scores = _dot("bqih,bqjh->bqij", q, k) + bias[:, None]
    mixed = _dot("bqij,bqjh->bqih", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)
    mixed = mixed.astype(x.dtype).swapaxes(1, 2)
    return _linear(weights["output"], mixed.reshape(lanes, tokens, -1), config.width)


def _linear(weights: Params, x: jax.Array, features: int) -> jax.Array:
    return cast(jax.Array, Linear(features, "bias" in weights).apply({"params": weights}, x))


def _norm(weights: Params, x: jax.Array, config: ModelConfig) -> jax.Array:
    return cast(jax.Array, RMSNorm(config.norm_epsilon, config.norm_offset).apply({"params": weights}, x))


def _dot(formula: str, x: jax.Array, y: jax.Array) -> jax.Array:
    precision = jax.lax.Precision.HIGHEST if y.dtype == jnp.float32 else None
    return jnp.einsum(formula, x, y, precision=precision, preferred_element_type=jnp.float32)
