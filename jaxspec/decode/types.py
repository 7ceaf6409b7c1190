"""The protocols of the token loop and the values they exchange.

In every shape: B lanes, L tokens, N draft nodes, D depth (longest root path of a draft), V vocabulary. A block is a
draft below its root: block node 0 is the last committed token and block node j is draft node j - 1.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxspec.decode.sampling import Sampling

State = Any


class Context(NamedTuple):
    """What a drafter may know of every lane. It never changes what a lane says, only how soon.

    Attributes:
      tokens: (B, L) int32 prompt and committed output; undefined at and beyond `length`.
      length: (B,) int32 committed tokens, the root being the last.
      prompt_length: (B,) int32.
      seed: (B,) uint32 of the request.
      live: (B,) bool; other lanes hold nothing.
      sampling: settings of every lane; None only where no request has been seen yet.
      banned: (V,) bool ids the target never says; None outside `propose` and `observe`.
      step_seconds: (number of widths,) float32 what a whole step takes at each of the drafter's widths; None outside
        `propose` and `observe`.
      max_draft: (B,) int32 depth at which drafts are cut, whatever is proposed below; None where they never are.
    """

    tokens: jax.Array
    length: jax.Array
    prompt_length: jax.Array
    seed: jax.Array
    live: jax.Array
    sampling: Sampling | None = None
    banned: jax.Array | None = None
    step_seconds: jax.Array | None = None
    max_draft: jax.Array | None = None

    @property
    def root(self) -> jax.Array:
        """(B,) last committed token."""
        index = jax.numpy.maximum(self.length - 1, 0)
        return jax.numpy.take_along_axis(self.tokens, index[:, None], axis=1)[:, 0]


class Draft(NamedTuple):
    """A token tree below the root.

    Attributes:
      ids: (B, N) int32.
      parent: (B, N) int32 block node above: 0 is the root, j is draft node j - 1. A parent precedes its children.
      depth: (B, N) int32, 1 below the root, at most the drafter's `depth`.
      source: (B, N) int32 index into the drafter's `sources`.
      valid: (B, N) bool; an invalid node is never accepted, nor is anything below it.
      evidence: (B, N) int32 how good a proposal its source thinks the node is, as a small class: a rank, or the
        length of a match. `mix` learns how often each class is right; nothing else reads it.
      log_q: (B, N, V) float32 log-probabilities a node was drawn from, given its ancestors and the siblings before
        it, or None for a deterministic proposal. With it, neither `valid` nor `gain` may depend on what was drawn
        for the node itself or for any later one: leaving out nodes by their value would bias `Rejection`.
      gain: (B, N) float32 estimated probability that a node is accepted, falling along the nodes, or None. With
        it the loop may verify the first nodes only, as many as pay.
    """

    ids: jax.Array
    parent: jax.Array
    depth: jax.Array
    source: jax.Array
    valid: jax.Array
    evidence: jax.Array
    log_q: jax.Array | None = None
    gain: jax.Array | None = None

    def first(self, nodes: int) -> "Draft":
        """The first `nodes` nodes, a tree because parents precede children."""
        return jax.tree.map(lambda field: field[:, :nodes], self)

    def no_deeper(self, depth: jax.Array) -> "Draft":
        """The same nodes, of which those deeper than `depth` (B,) are not valid."""
        allowed = self.depth <= depth[:, None]
        gain = None if self.gain is None else jnp.where(allowed, self.gain, 0.0)
        return self._replace(valid=self.valid & allowed, gain=gain)

    def within(self, width: jax.Array) -> "Draft":
        """The same nodes, of which those beyond the first `width` are not valid."""
        return self._replace(valid=self.valid & (jnp.arange(self.valid.shape[1]) < width))


class Verdict(NamedTuple):
    """What the target made of a draft.

    Attributes:
      accepted: (B,) int32 number of draft nodes accepted, m.
      path: (B, D + 1) int32 block nodes from the root down; entries beyond m are 0.
      ids: (B, D + 1) int32 the m accepted ids, then the target's own next token; V there if its logits were not
        finite. Entries beyond are undefined.
      chosen: (B, N + 1) int32 the target's own token after every block node; its most probable one where the
        acceptance draws for the end of the path alone.
      top: (B, N + 1, R) int32 the target's R most probable tokens after every block node, R being the drafter's
        `top`, whether or not the node was accepted.
    """

    accepted: jax.Array
    path: jax.Array
    ids: jax.Array
    chosen: jax.Array
    top: jax.Array


@runtime_checkable
class Drafter(Protocol):
    """Proposes what comes next. Instances are frozen dataclasses: hashable, equal when their settings are.

    Attributes:
      nodes: N, the number of draft nodes of every proposal.
      depth: D, the longest path a proposal may have.
      widths: draft nodes a block may have, ascending, the last being N. With several, drafts carry `gain`.
      sources: names of where nodes come from, for statistics.
      top: R, how many of the target's most probable tokens `observe` wants to see for every node; 0 for none.
      is_chain: whether every draft is a single row, so that a node's depth is its place in the block.
    """

    @property
    def nodes(self) -> int: ...

    @property
    def depth(self) -> int: ...

    @property
    def widths(self) -> tuple[int, ...]: ...

    @property
    def sources(self) -> tuple[str, ...]: ...

    @property
    def top(self) -> int: ...

    @property
    def is_chain(self) -> bool: ...

    def prepare(self, language_model: Any) -> Any:
        """Builds the arrays the drafter reads (tables, a draft model's weights), on the host, before any loop."""
        ...

    def init(self, params: Any, context: Context) -> State:
        """State of all lanes. Leaves with a leading axis of B are per lane; others are shared by the lanes."""
        ...

    def admit(self, params: Any, state: State, context: Context, fresh: jax.Array) -> State:
        """State after lanes `fresh` (B,) bool took a new request, whose prompt `context` holds."""
        ...

    def propose(self, params: Any, state: State, context: Context) -> tuple[Draft, State]:
        """A draft for every lane."""
        ...

    def observe(self, params: Any, state: State, context: Context, draft: Draft, verdict: Verdict) -> State:
        """State after verification. `context` is the one the draft was made for, and `live` the lanes verified."""
        ...
