"""Rotary position embeddings, in float32: bfloat16 cannot tell position 256 from 257."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.models.config import ModelConfig, RopeScaling


def frequencies(config: ModelConfig, *, sliding: bool) -> np.ndarray:
    """Radians a position for each rotated pair, (H / 2,) float32, of a global or a sliding layer."""
    theta = config.rope_theta
    if sliding and config.local_rope_theta is not None:
        theta = config.local_rope_theta
    exponent = np.arange(0, config.head_width, 2, dtype=np.float64) / config.head_width
    plain = 1.0 / theta**exponent
    scaling = config.rope_scaling
    if scaling is None or (sliding and config.local_rope_theta is not None):
        return plain.astype(np.float32)
    return _stretch(plain, scaling).astype(np.float32)


def _stretch(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    if scaling.kind == "linear":
        return plain / scaling.factor
    turns = scaling.original_context * plain / (2 * math.pi)  # rotations within the original context
    blend = (turns - scaling.low_frequency_factor) / (scaling.high_frequency_factor - scaling.low_frequency_factor)
    blend = np.clip(blend, 0.0, 1.0)
    return (1 - blend) * plain / scaling.factor + blend * plain


def rotate(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Rotates `x` (B, heads, N, H), pairing dimension i with i + H / 2; `cosine` and `sine` are (B, 1, N, H / 2)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(x.dtype)


def angles(positions: jax.Array, frequency: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine, (B, 1, N, H / 2) float32, of `positions` (B, N)."""
    angle = positions[:, None, :, None].astype(jnp.float32) * frequency
    both = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    if jax.default_backend() == "cpu":
        both = _computed_once(both)
    cosine, sine = jnp.split(both, 2, axis=-1)
    return cosine, sine


def _computed_once(x: jax.Array) -> jax.Array:
    """`x` times the identity, which changes no bit.

    XLA on CPU computes what is cheap by its count, a cosine too, again in every fusion that reads it: for every head
    of queries and keys in every layer. It looks into no product.
    """
    return jnp.matmul(x, np.eye(x.shape[-1], dtype=np.float32), precision=jax.lax.Precision.HIGHEST)
