"""Acceptance of a draft: a node stays iff it is what the target itself would have said there.

`Greedy` compares with the target's most probable token. `Coupled` compares with the token the target draws when its
Gumbel noise is a function of (seed, position) alone: plain sampling draws the same, so the text is the same, token
for token, whatever drafts (a coupling in the sense of Daliri, Musco and Suresh, arXiv 2408.07978).

B lanes, N draft nodes, M = N + 1 block nodes, D depth, V vocabulary.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxspec.decode import sampling
from jaxspec.decode.sampling import Sampling, SamplingFlags
from jaxspec.decode.tree import Tree, longest_accepted
from jaxspec.decode.types import Context, Verdict


class Acceptance(Protocol):
    """Turns the target's logits into a verdict. Instances are frozen dataclasses."""

    @property
    def stochastic(self) -> bool: ...

    def accept(
        self,
        logits: jax.Array,
        tree: Tree,
        depth: int,
        context: Context,
        settings: Sampling,
        flags: SamplingFlags,
        banned: jax.Array,
        top: int,
    ) -> Verdict:
        """Verdict on `tree`, given raw `logits` (B, M, V) and per-lane `settings`, with the `top` best tokens."""
        ...


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Accept while the draft is the target's most probable token, after penalties and bans."""

    stochastic = False

    def accept(self, logits, tree, depth, context, settings, flags, banned, top) -> Verdict:
        processed = _processed(logits, tree, context, settings, flags, banned)
        chosen, _ = sampling.argmax(processed)
        return _verdict(logits, tree, depth, chosen, top)


@dataclasses.dataclass(frozen=True)
class Coupled:
    """Accept while the draft is the token the target draws with noise keyed by (seed, position)."""

    stochastic = True

    def accept(self, logits, tree, depth, context, settings, flags, banned, top) -> Verdict:
        processed = _processed(logits, tree, context, settings, flags, banned)
        # The noise belongs to the position of the token drawn, so nodes of equal depth share it.
        position = context.length[:, None] + jnp.arange(depth + 1, dtype=jnp.int32)
        noise = sampling.gumbel(settings.seed, position, logits.shape[-1])  # (B, D + 1, V)
        noise = jnp.take_along_axis(noise, tree.depth[:, :, None], axis=1)
        return _verdict(logits, tree, depth, sampling.draw(processed, settings, noise), top)


def _processed(logits, tree: Tree, context: Context, settings, flags: SamplingFlags, banned) -> jax.Array:
    seen = None
    if flags.penalty:
        seen = sampling.seen_tokens(context.tokens, context.length, tree.ids, tree.ancestors, logits.shape[-1])
    return sampling.process(logits, settings, flags, seen=seen, banned=banned if flags.bans else None)


def _verdict(logits: jax.Array, tree: Tree, depth: int, chosen: jax.Array, top: int) -> Verdict:
    accepted, path = longest_accepted(tree, chosen, depth)
    below = jnp.roll(path, -1, axis=1)  # the node that follows on the path
    drafted = jnp.take_along_axis(tree.ids, below, axis=1)
    own = jnp.take_along_axis(chosen, path, axis=1)
    step = jnp.arange(depth + 1, dtype=jnp.int32)
    ids = jnp.where(step < accepted[:, None], drafted, own)
    return Verdict(accepted, path, ids, chosen, sampling.top_ids(logits, top))
