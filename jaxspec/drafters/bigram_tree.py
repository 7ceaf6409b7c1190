"""A tree of the model's own successors of every token, the same whatever the text: N-Grammys' bigram, branching.

Where `model_bigram` follows each of its rows greedily, this one branches below the first token as well.

V vocabulary, R successors.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.model_tables import model_bigram, prefix_ids
from jaxspec.drafters.rank_template import Template
from jaxspec.drafters.ranked_tree import RankedTree, ranked_tree
from jaxspec.drafters.stateless import Stateless


@dataclasses.dataclass(frozen=True)
class BigramTree(RankedTree, Stateless):
    """Attributes:
    branches: R.
    template: paths of ranks from the root, one a node, by depth.
    prefix: what stands before each token; see `model_ngram.model_bigram`.
    """

    branches: int
    template: Template
    prefix: str

    sources = ("bigram_tree",)

    def prepare(self, language_model: Any) -> jax.Array:
        """(V, R) int32."""
        return model_bigram(language_model, self.branches, prefix_ids(language_model, self.prefix))

    def propose(self, params: jax.Array, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        def successor(before: jax.Array, token: jax.Array, rank: jax.Array) -> tuple[jax.Array, jax.Array]:
            ids = params[token, rank]
            return ids, jnp.broadcast_to(rank, ids.shape)

        return ranked_tree(self.template, context, successor), state
