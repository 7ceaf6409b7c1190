"""Typical acceptance: longer drafts stay, and the text is no longer distributed as the target would have it.

Medusa (Cai et al., arXiv 2401.10774): a token stays if the target gives it more than a threshold that
falls with the entropy of the target's law. Here the target's own draw stays as well, so that a lane that draws
nothing, at temperature 0, decodes as ever.

B lanes, N draft nodes, M = N + 1 block nodes, D depth, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxspec.decode import sampling
from jaxspec.decode.acceptance import Drawing, draw_block, process_block, verdict_of
from jaxspec.decode.tree import deepest_path
from jaxspec.decode.types import Verdict


@dataclasses.dataclass(frozen=True)
class Typical:
    """Accept a token of probability above `min(floor, scale * exp(-entropy))`. Lossy: texts change with the drafter.

    Attributes:
      floor: probability that is always enough, above 0 and at most 1.
      scale: factor on exp(-entropy), above 0.
    """

    floor: float = 0.09
    scale: float = 0.3

    stochastic = True
    lossless = False
    drawing = Drawing.SHARED
    follows_draft = True

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ValueError(f"floor={self.floor} is not above 0 and at most 1; it is a probability")
        if not 0 < self.scale:
            raise ValueError(f"scale={self.scale} is not above 0; nothing below the floor would be too improbable")

    def accept(self, logits, tree, depth, context, settings, flags, banned, top) -> Verdict:
        processed = process_block(logits, tree, context, settings, flags, banned)
        law = sampling.probabilities(processed, settings)
        chosen = draw_block(processed, tree, depth, context, settings)
        entropy = -jnp.sum(jax.scipy.special.xlogy(law, law), axis=-1)
        threshold = jnp.minimum(self.floor, self.scale * jnp.exp(-entropy))  # (B, M)

        def above(values: jax.Array) -> jax.Array:
            return jnp.take_along_axis(values, tree.parent, axis=1)

        lane = jnp.arange(tree.ids.shape[0])[:, None]
        probability = law[lane, tree.parent, tree.ids]
        fits = (probability > above(threshold)) | (tree.ids == above(chosen))
        accepted, path = deepest_path(tree, fits, depth)
        own = jnp.take_along_axis(chosen, path, axis=1)
        return verdict_of(logits, tree, accepted, path, own, chosen, top)
