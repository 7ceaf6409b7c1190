"""A drafter run through a wider executable than it needs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Context, Draft, Drafter, State, Verdict
from jaxspec.drafters.one_width import OneWidth


@dataclasses.dataclass(frozen=True)
class Padded(OneWidth):
    """`drafter` with invalid nodes added up to `nodes`, so that unlike drafters share one block shape."""

    drafter: Drafter
    nodes: int

    @property
    def depth(self) -> int:
        return self.nodes

    @property
    def sources(self) -> tuple[str, ...]:
        return self.drafter.sources

    @property
    def top(self) -> int:
        return self.drafter.top

    @property
    def is_chain(self) -> bool:
        return self.drafter.is_chain

    def prepare(self, language_model: Any) -> Any:
        return self.drafter.prepare(language_model)

    def init(self, params: Any, context: Context) -> State:
        return self.drafter.init(params, context)

    def admit(self, params: Any, state: State, context: Context, fresh: jax.Array) -> State:
        return self.drafter.admit(params, state, context, fresh)

    def propose(self, params: Any, state: State, context: Context) -> tuple[Draft, State]:
        draft, state = self.drafter.propose(params, state, context)
        missing = self.nodes - self.drafter.nodes
        lanes = draft.ids.shape[0]
        index = jnp.broadcast_to(jnp.arange(self.drafter.nodes, self.nodes, dtype=jnp.int32), (lanes, missing))

        def extend(array: jax.Array, tail: jax.Array) -> jax.Array:
            return jnp.concatenate([array, tail.astype(array.dtype)], axis=1)

        nothing = jnp.zeros((lanes, missing), jnp.int32)
        # The padding continues as a chain, which keeps a chain block a chain.
        parent, depth = (index, index + 1) if self.is_chain else (nothing, nothing + 1)
        padded = Draft(
            extend(draft.ids, nothing),
            extend(draft.parent, parent),
            extend(draft.depth, depth),
            extend(draft.source, nothing),
            extend(draft.valid, nothing.astype(bool)),
            extend(draft.evidence, nothing),
        )
        return padded, state

    def observe(self, params: Any, state: State, context: Context, draft: Draft, verdict: Verdict) -> State:
        return self.drafter.observe(params, state, context, draft.first(self.drafter.nodes), verdict)


def padded(drafter: Drafter, nodes: int) -> Padded:
    """`drafter` in blocks of `nodes` draft nodes.

    Raises:
      ValueError: it proposes more nodes than that.
    """
    if nodes < drafter.nodes:
        raise ValueError(
            f"a strict block of {nodes} draft nodes cannot hold the {drafter.nodes} of {drafter}; take a drafter of at "
            f"most {nodes}"
        )
    return Padded(drafter, nodes)
