"""All weights of a model as bytes, to tell models apart."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def add_weights(digest: Any, params: Any, *, rounded: bool = False) -> None:
    """Feeds path, type, shape and values of every array of `params` to a hash of `hashlib`.

    Args:
      digest: to be fed.
      params: the weights.
      rounded: to bfloat16, so that they do not depend on the type they were loaded in.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        values = _values_of(leaf)
        if rounded and jnp.issubdtype(values.dtype, jnp.floating):
            values = values.astype(jnp.bfloat16)
        digest.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _values_of(leaf: Any) -> np.ndarray:
    """The values of a weight in host memory: where they lie, or copied for the caller alone.

    An array keeps what was copied from its device for it: with all weights of an accelerator, a second model.
    """
    if isinstance(leaf, jax.Array):
        is_there = leaf.is_fully_replicated and all(device.platform == "cpu" for device in leaf.devices())
        leaf = leaf if is_there else jnp.copy(leaf)
    return np.asarray(leaf)
