"""Drafts whose nodes follow one another."""

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Draft


def chain(ids: jax.Array, length: jax.Array, source: int = 0) -> Draft:
    """A draft of one row: `ids` (B, N), of which the first `length` (B,) are proposed."""
    lanes, nodes = ids.shape
    index = jnp.broadcast_to(jnp.arange(nodes, dtype=jnp.int32), (lanes, nodes))
    return Draft(
        ids=ids.astype(jnp.int32),
        parent=index,
        depth=index + 1,
        source=jnp.full((lanes, nodes), source, jnp.int32),
        valid=index < length[:, None],
        evidence=jnp.zeros((lanes, nodes), jnp.int32),
    )
