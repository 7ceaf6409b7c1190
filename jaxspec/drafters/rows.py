"""Drafts of several rows below one root, as they are or with equal beginnings merged.

B lanes, K rows, W width, N = K * W draft nodes.
"""

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Draft
from jaxspec.drafters.one_width import OneWidth


class Rows(OneWidth):
    """Base of drafters of `rows` rows of `width` tokens."""

    rows: int
    width: int

    @property
    def nodes(self) -> int:
        return self.rows * self.width

    @property
    def depth(self) -> int:
        return self.width

    @property
    def is_chain(self) -> bool:
        return self.rows == 1


def draft_rows(ids: jax.Array, length: jax.Array, source: jax.Array, evidence: jax.Array, merge: bool = False) -> Draft:
    """Every row a chain below the root, row after row.

    Args:
      ids: (B, K, W) int32.
      length: (B, K) int32 tokens proposed of every row.
      source, evidence: (B, K) int32.
      merge: a beginning that an earlier row shares is proposed there alone: its nodes here become invalid, and what
        follows hangs below the earlier row. The paths from the root are the same either way.
    """
    lanes, rows, width = ids.shape
    step = jnp.arange(width, dtype=jnp.int32)
    node = jnp.arange(rows * width, dtype=jnp.int32).reshape(rows, width)  # as draft nodes, so block nodes less 1
    valid = step < length[:, :, None]
    home = jnp.broadcast_to(node, ids.shape)
    if merge:
        first = first_with_beginning(ids, valid)
        home = first * width + step
        valid &= first == jnp.arange(rows, dtype=jnp.int32)[:, None]
    below_root = jnp.zeros((lanes, rows, 1), jnp.int32)
    parent = jnp.concatenate([below_root, home[:, :, :-1] + 1], axis=2)

    def flat(field: jax.Array) -> jax.Array:
        return jnp.broadcast_to(field, ids.shape).reshape(lanes, rows * width)

    return Draft(
        ids=flat(ids),
        parent=flat(parent),
        depth=flat(step + 1),
        source=flat(source[:, :, None]),
        valid=flat(valid),
        evidence=flat(evidence[:, :, None]),
    )


def first_with_beginning(ids: jax.Array, valid: jax.Array) -> jax.Array:
    """(B, K, W) int32 the first row that says the same up to each token; a row's own index where it is not `valid`.

    Args:
      ids: (B, K, W).
      valid: (B, K, W) bool, in every row only up to some token.
    """
    rows = jnp.arange(ids.shape[1], dtype=jnp.int32)
    equal = (ids[:, :, None] == ids[:, None]) & valid[:, :, None] & valid[:, None]  # (B, K, K, W)
    shared = jnp.cumsum(~equal, axis=3, dtype=jnp.int32) == 0
    first = jnp.argmax(shared, axis=2).astype(jnp.int32)
    return jnp.where(valid, first, rows[:, None])
