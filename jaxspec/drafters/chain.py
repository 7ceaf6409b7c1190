"""Drafts whose nodes follow one another."""

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Draft
from jaxspec.drafters.one_width import OneWidth


class OneChain(OneWidth):
    """Base of drafters whose every draft is one row of at most `width` tokens."""

    width: int
    is_chain = True

    @property
    def nodes(self) -> int:
        return self.width

    @property
    def depth(self) -> int:
        return self.width


def chain(ids: jax.Array, length: jax.Array, evidence: jax.Array | None = None) -> Draft:
    """A draft of one row: `ids` (B, N), of which the first `length` (B,) are proposed, with `evidence` (B,) or 0."""
    lanes, nodes = ids.shape
    none = jnp.zeros((lanes, nodes), jnp.int32)
    index = jnp.broadcast_to(jnp.arange(nodes, dtype=jnp.int32), (lanes, nodes))
    return Draft(
        ids=ids.astype(jnp.int32),
        parent=index,
        depth=index + 1,
        source=none,
        valid=index < length[:, None],
        evidence=none if evidence is None else jnp.broadcast_to(evidence[:, None], (lanes, nodes)),
    )
