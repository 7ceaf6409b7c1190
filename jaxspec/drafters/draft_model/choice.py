"""What a draft model proposes after a text: the best of its tokens, or draws, and their probabilities.

B lanes, L tokens, R branches, V vocabulary of the target.
"""

import jax
import jax.numpy as jnp

from jaxspec.decode import sampling
from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.types import Context
from jaxspec.drafters.vocabulary import Translation


def process(
    flags: SamplingFlags,
    translation: Translation | None,
    logits: jax.Array,
    text: jax.Array,
    end: jax.Array,
    context: Context,
) -> jax.Array:
    """(B, V) logits of a draft model, processed as the target's would be.

    Args:
      flags: which transforms the target's logits go through.
      translation: from the target's ids to the draft model's, if they differ.
      logits: (B, 1, own V) after the first `end` (B,) tokens of `text` (B, L).
      text: committed tokens, then those drafted so far.
      end: int32.
      context: settings of every lane, and banned ids.
    """
    if translation is not None:
        logits = jnp.where(translation.common, logits[..., translation.draft_id], -jnp.inf)
    assert context.sampling is not None
    seen = None
    if flags.penalty:
        last = jnp.take_along_axis(text, jnp.minimum(end - 1, text.shape[1] - 1)[:, None], axis=1)
        itself = jnp.ones((text.shape[0], 1, 1), bool)
        seen = sampling.seen_tokens(text, end, last, itself, logits.shape[-1])
    banned = context.banned if flags.bans else None
    return sampling.process(logits, context.sampling, flags, seen=seen, banned=banned)[:, 0]


def choose_tokens(
    processed: jax.Array, end: jax.Array, context: Context, *, branches: int, drawing: Drawing, stochastic: bool
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Proposals after one text a lane.

    With noise, the best R of logits plus noise are R draws without replacement, in order.

    Args:
      processed: (B, V) logits after the first `end` (B,) tokens.
      end: int32.
      context: settings of every lane.
      branches: R.
      drawing: whether they are draws, and with which noise.
      stochastic: whether any lane may draw.

    Returns:
      (B, R) int32 ids, (B, R) bool which are possible, and (B, R, V) float32 the logarithms of what each was
      drawn from, or None unless draws are the model's own.
    """
    settings = context.sampling
    assert settings is not None
    keys = processed
    warm = settings.temperature[:, None] > 0
    if drawing != Drawing.BEST and stochastic:
        stream = sampling.DRAW if drawing == Drawing.SHARED else sampling.DRAFT
        noise = sampling.gumbel(settings.seed, end[:, None], keys.shape[-1], stream)[:, 0]
        keys = jnp.where(warm, keys + noise, keys)
    if branches == 1:
        ids, best = (values[:, None] for values in sampling.argmax(keys))
    else:
        ids = sampling.top_ids(keys, branches)
        best = jnp.take_along_axis(keys, ids, axis=1)
    known = jnp.isfinite(best)
    ids = jnp.where(known, ids, 0)
    if drawing != Drawing.OWN:
        return ids, known, None
    token = jnp.arange(keys.shape[-1], dtype=jnp.int32)
    left, logs = processed, []
    for branch in range(branches):
        is_it = token == ids[:, branch, None]
        logs.append(jnp.where(warm, jax.nn.log_softmax(left, axis=-1), jnp.where(is_it, 0.0, -jnp.inf)))
        left = jnp.where(is_it, -jnp.inf, left)
    return ids, known, jnp.stack(logs, axis=1)
