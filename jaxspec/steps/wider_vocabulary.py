"""Models of one family whose vocabularies are padded to different sizes, side by side in one loop.

B lanes, N block nodes, V vocabulary of the loop.
"""

import dataclasses

import jax.numpy as jnp

from jaxspec.models.cache import KVCache
from jaxspec.models.model_fn import Block, BlockOutput, ModelFn, Params


@dataclasses.dataclass(frozen=True)
class WiderVocabulary:
    """A `ModelFn` in a loop of more ids than its own: it never says those it lacks, and reads its last one for them.

    Attributes:
      model_fn: of the smaller vocabulary.
      own: its ids.
      padding: ids it lacks, for each of which it puts out a logit of minus infinity; 0 where it puts out scores.
    """

    model_fn: ModelFn
    own: int
    padding: int

    def __call__(self, params: Params, block: Block, cache: KVCache, *, with_logits: bool = True) -> BlockOutput:
        known = block._replace(ids=jnp.minimum(block.ids, self.own - 1))
        output = self.model_fn(params, known, cache, with_logits=with_logits)
        if output.logits is None:
            return output
        missing = ((0, 0), (0, 0), (0, self.padding))
        return output._replace(logits=jnp.pad(output.logits, missing, constant_values=-jnp.inf))


def with_vocabulary(model_fn: ModelFn, own: int, vocabulary: int, *, says: bool = True) -> ModelFn:
    """A model of `own` ids for a loop of `vocabulary` ids; itself if it lacks none.

    Args:
      model_fn: the model.
      own, vocabulary: numbers of ids.
      says: whether its outputs are logits.
    """
    if own >= vocabulary:
        return model_fn
    return WiderVocabulary(model_fn, own, vocabulary - own if says else 0)
