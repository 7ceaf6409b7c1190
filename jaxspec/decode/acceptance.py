"""Acceptance of a draft: a node stays iff it is what the target itself would have said there.

`Greedy` compares with the target's most probable token. `Coupled` compares with the token the target draws when its
Gumbel noise is a function of (seed, position) alone: plain sampling draws the same, so the text is the same, token
for token, whatever drafts (a coupling in the sense of Daliri, Musco and Suresh, arXiv 2408.07978). `rejection` and
`typical`, modules of those names, hold the rules that give another text than plain sampling.

B lanes, N draft nodes, M = N + 1 block nodes, D depth, V vocabulary.
"""

import dataclasses
import enum
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxspec.decode import sampling
from jaxspec.decode.sampling import Sampling, SamplingFlags
from jaxspec.decode.tree import Tree, longest_accepted
from jaxspec.decode.types import Context, Verdict


class Drawing(enum.Enum):
    """What a drafter that has a distribution should propose."""

    BEST = "its most probable tokens"
    SHARED = "draws with the noise of the target's own draws"
    OWN = "draws with noise of its own, and in `log_q` what they were drawn from"


class Acceptance(Protocol):
    """Turns the target's logits into a verdict. Instances are frozen dataclasses.

    Attributes:
      stochastic: whether it can draw, so that requests may have a temperature.
      lossless: whether texts have the law of plain decoding.
      drawing: what it wants from drafters that have a distribution.
      follows_draft: whether a text depends on what is drafted, so that drafts must depend on the request alone.
    """

    @property
    def stochastic(self) -> bool: ...

    @property
    def lossless(self) -> bool: ...

    @property
    def drawing(self) -> Drawing: ...

    @property
    def follows_draft(self) -> bool: ...

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
    lossless = True
    drawing = Drawing.BEST
    follows_draft = False

    def accept(self, logits, tree, depth, context, settings, flags, banned, top) -> Verdict:
        chosen, _ = sampling.argmax(process_block(logits, tree, context, settings, flags, banned))
        accepted, path = longest_accepted(tree, chosen, depth)
        own = jnp.take_along_axis(chosen, path, axis=1)
        return verdict_of(logits, tree, accepted, path, own, chosen, top)


@dataclasses.dataclass(frozen=True)
class Coupled:
    """Accept while the draft is the token the target draws with noise keyed by (seed, position)."""

    stochastic = True
    lossless = True
    drawing = Drawing.SHARED
    follows_draft = False

    def accept(self, logits, tree, depth, context, settings, flags, banned, top) -> Verdict:
        processed = process_block(logits, tree, context, settings, flags, banned)
        chosen = draw_block(processed, tree, depth, context, settings)
        accepted, path = longest_accepted(tree, chosen, depth)
        own = jnp.take_along_axis(chosen, path, axis=1)
        return verdict_of(logits, tree, accepted, path, own, chosen, top)


def process_block(logits, tree: Tree, context: Context, settings, flags: SamplingFlags, banned) -> jax.Array:
    """`sampling.process` of a block's logits (B, M, V), each node's text being the context and its ancestors."""
    seen = None
    if flags.penalty:
        seen = sampling.seen_tokens(context.tokens, context.length, tree.ids, tree.ancestors, logits.shape[-1])
    return sampling.process(logits, settings, flags, seen=seen, banned=banned if flags.bans else None)


def draw_block(processed: jax.Array, tree: Tree, depth: int, context: Context, settings: Sampling) -> jax.Array:
    """(B, M) int32 the target's draw after every node.

    The noise belongs to the position of the token drawn, so nodes of equal depth share it.
    """
    position = context.length[:, None] + jnp.arange(depth + 1, dtype=jnp.int32)
    noise = sampling.gumbel(settings.seed, position, processed.shape[-1])  # (B, D + 1, V)
    noise = jnp.take_along_axis(noise, tree.depth[:, :, None], axis=1)
    return sampling.draw(processed, settings, noise)


def verdict_of(
    logits: jax.Array, tree: Tree, accepted: jax.Array, path: jax.Array, own: jax.Array, chosen: jax.Array, top: int
) -> Verdict:
    """The verdict that accepts `path`.

    Args:
      logits: (B, M, V) raw.
      tree: the block.
      accepted: (B,) int32.
      path: (B, D + 1) int32 block nodes.
      own: (B, D + 1) or (B, 1) int32 the token that follows each step of the path, or its end, if no draft does.
      chosen, top: as in `Verdict` and `Drafter`.
    """
    below = jnp.roll(path, -1, axis=1)  # the node that follows on the path
    drafted = jnp.take_along_axis(tree.ids, below, axis=1)
    step = jnp.arange(path.shape[1], dtype=jnp.int32)
    ids = jnp.where(step < accepted[:, None], drafted, own)
    return Verdict(accepted, path, ids, chosen, sampling.top_ids(logits, top))
