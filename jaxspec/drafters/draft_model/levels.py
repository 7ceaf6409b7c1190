"""A draft level by level: the draft model reads one token more, and its proposals stand below the row so far.

B lanes, L tokens, D depth, R branches, N = D * R nodes, E classes of confidence, V vocabulary of the target.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.lanes import on_every_lane
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.draft_model.choice import choose_tokens, process
from jaxspec.drafters.draft_model.confidence import class_of
from jaxspec.drafters.draft_model.reading import DraftModelParams, translated
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import ModelFn, chain_block


class LevelRules(NamedTuple):
    """Static facts.

    Attributes:
      model: the draft model.
      flags: which transforms its logits go through.
      drawing: whether it draws.
      classes: E.
      room: tokens a text may have, with its draft: as many as the draft model's cache holds and its own context has.
      stop_below: a lane drafts no further where its most probable token has less than this probability; 0 never.
      branch_below: branches stand only where the most probable token has less than this probability; 1 everywhere.
    """

    model: ModelFn
    flags: SamplingFlags
    drawing: Drawing
    classes: int
    room: int
    stop_below: float
    branch_below: float = 1.0


class Drafting(NamedTuple):
    """A proposal in the making.

    Attributes:
      step: () int32 levels drafted.
      cache: of the draft model.
      text: (B, L) int32 committed tokens, then the row drafted so far.
      going: (B,) bool lanes that draft on.
      ids: (B, D, R) int32, the row first among the branches.
      valid: (B, D, R) bool.
      kind: (B, D) int32 class of confidence of every step.
      gain: (B, D, R) float32 as in `Draft`.
      log_q: (B, D, R, V) float32 as in `Draft`, or None.
    """

    step: jax.Array
    cache: kv_cache.KVCache
    text: jax.Array
    going: jax.Array
    ids: jax.Array
    valid: jax.Array
    kind: jax.Array
    gain: jax.Array
    log_q: jax.Array | None


def levels_allowed(context: Context, room: int) -> jax.Array:
    """(B,) int32 levels a lane may draft, if any: as deep as its request allows, and as far as there is `room`."""
    left = room - context.length
    return left if context.max_draft is None else jnp.minimum(left, context.max_draft)


def nothing_drafted(
    rules: LevelRules, cache: kv_cache.KVCache, context: Context, ahead: jax.Array, vocabulary: int
) -> Drafting:
    """Before the first level.

    Args:
      rules: static facts. The nodes of the model's own draws promise `ahead` whatever they turn out to be.
      cache: of the draft model.
      context: the texts.
      ahead: (D, R) float32 `confidence.rate_ahead`.
      vocabulary: V.
    """
    own = rules.drawing == Drawing.OWN
    shape = (context.length.shape[0], *ahead.shape)
    return Drafting(
        step=jnp.int32(0),
        cache=cache,
        text=context.tokens,
        going=context.live & (levels_allowed(context, rules.room) > 0),
        ids=jnp.zeros(shape, jnp.int32),
        valid=jnp.zeros(shape, bool),
        kind=jnp.zeros(shape[:2], jnp.int32),
        gain=jnp.broadcast_to(ahead, shape) if own else jnp.zeros(shape, jnp.float32),
        log_q=jnp.zeros((*shape, vocabulary), jnp.float32) if own else None,
    )


def next_level(
    rules: LevelRules, params: DraftModelParams, rate: jax.Array, context: Context, drafting: Drafting, width: int
) -> Drafting:
    """One more level of every lane that is going.

    Args:
      rules, params: static facts, and the draft model.
      rate: (R, E) how often each class is accepted.
      context: the texts.
      drafting: so far.
      width: tokens read, at least as many as any lane that is going lacks: `BLOCK` at the first level, 1 at others.
    """
    step, cache, text = drafting.step, drafting.cache, drafting.text
    lane = jnp.arange(text.shape[0])
    end = context.length + step  # where the token to propose will stand
    unread = jnp.clip(end - cache.length, 1, width)
    place = jnp.minimum(cache.length[:, None] + jnp.arange(width, dtype=jnp.int32), text.shape[1] - 1)
    ids = translated(params.translation, jnp.take_along_axis(text, place, axis=1))
    output = rules.model(params.weights, chain_block(ids), cache)
    assert output.logits is not None
    logits = jnp.take_along_axis(output.logits, (unread - 1)[:, None, None], axis=1)
    processed = process(rules.flags, params.translation, logits, text, end, context)
    proposed, known, log_q = choose_tokens(
        processed,
        end,
        context,
        branches=drafting.ids.shape[2],
        drawing=rules.drawing,
        stochastic=rules.flags.stochastic,
    )
    best = jnp.max(processed, axis=1)
    # An entry stays if its logits are numbers, which also shows XLA that the writes come after all reads.
    going = drafting.going & jnp.isfinite(best)
    cache = kv_cache.append(cache, output.keys, output.values, jnp.where(going, unread, 0))
    log_total = jax.nn.logsumexp(processed, axis=-1)
    if rules.stop_below > 0:
        going &= jnp.exp(best - log_total) >= rules.stop_below
    valid = known & going[:, None]
    if rules.branch_below < 1:
        doubtful = jnp.exp(best - log_total) < rules.branch_below
        valid &= doubtful[:, None] | (jnp.arange(valid.shape[1]) == 0)
    chosen = jnp.take_along_axis(processed, proposed[:, :1], axis=1)[:, 0]
    kind = class_of(jnp.exp(chosen - log_total), rules.classes)
    gain = drafting.gain
    if rules.drawing != Drawing.OWN:
        before = jnp.where(step == 0, 1.0, gain[:, jnp.maximum(step - 1, 0), 0])
        gain = gain.at[:, step].set(jnp.where(valid, before[:, None] * rate[:, kind].T, 0.0))
    return Drafting(
        step=step + 1,
        cache=cache,
        text=text.at[lane, end].set(proposed[:, 0], mode="drop"),
        going=going & (step + 1 < levels_allowed(context, rules.room)),
        ids=drafting.ids.at[:, step].set(proposed),
        valid=drafting.valid.at[:, step].set(valid),
        kind=drafting.kind.at[:, step].set(kind),
        gain=gain,
        log_q=None if drafting.log_q is None else drafting.log_q.at[:, step].set(log_q),
    )


def as_draft(drafting: Drafting) -> Draft:
    """The proposal level by level, the row's node before its branches."""
    lanes, depth, branches = drafting.ids.shape
    level = jnp.repeat(jnp.arange(depth, dtype=jnp.int32), branches)
    branch = jnp.tile(jnp.arange(branches, dtype=jnp.int32), depth)
    log_q = drafting.log_q
    return Draft(
        ids=drafting.ids.reshape(lanes, -1),
        parent=on_every_lane(jnp.where(level == 0, 0, (level - 1) * branches + 1), lanes),
        depth=on_every_lane(level + 1, lanes),
        source=on_every_lane(jnp.minimum(branch, 1), lanes),
        valid=drafting.valid.reshape(lanes, -1),
        evidence=jnp.repeat(drafting.kind, branches, axis=1),
        log_q=None if log_q is None else log_q.reshape(lanes, depth * branches, -1),
        gain=drafting.gain.reshape(lanes, -1),
    )
