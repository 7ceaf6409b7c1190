"""A draft round by round: another drafter proposes what the draft model would say, which says several tokens a pass.

The token loop in small, one model down: draft, verify, accept. What is accepted is what the draft model would have
proposed level by level, so that the draft is the same and only its passes are fewer.

B lanes, L tokens, D depth, W tokens the inner drafter proposes, E classes of confidence, V vocabulary of the target.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.draft_model.choice import choose_tokens, process
from jaxspec.drafters.draft_model.confidence import class_of
from jaxspec.drafters.draft_model.levels import Drafting, LevelRules, levels_allowed, nothing_drafted
from jaxspec.drafters.draft_model.reading import BLOCK, DraftModelParams, translated
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import chain_block


class Inner(Protocol):
    """A drafter of one row, without a state."""

    @property
    def depth(self) -> int: ...

    def propose(self, params: Any, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]: ...


class Rounds(NamedTuple):
    """Attributes:
    drafting: the proposal; its `step` counts passes.
    done: (B,) int32 levels drafted.
    """

    drafting: Drafting
    done: jax.Array


class _Said(NamedTuple):
    """What the draft model says after one place of every lane; see `Drafting`. `best` (B,) are logits."""

    ids: jax.Array
    known: jax.Array
    kind: jax.Array
    best: jax.Array
    log_q: jax.Array | None


def draft_in_rounds(
    rules: LevelRules,
    inner: Inner,
    params: DraftModelParams,
    rate: jax.Array,
    ahead: jax.Array,
    cache: kv_cache.KVCache,
    context: Context,
    vocabulary: int,
) -> Rounds:
    """A draft of D tokens for every live lane.

    Args:
      rules: static facts; `stop_below` is not looked at.
      inner: proposes W tokens a pass.
      params: of the draft model.
      rate: (1, E) how often each class is accepted.
      ahead: (D, 1) `confidence.rate_ahead`.
      cache: of the draft model; lacks at most `BLOCK` tokens of every live lane's text.
      context: the texts.
      vocabulary: V.
    """
    begun = Rounds(nothing_drafted(rules, cache, context, ahead, vocabulary), jnp.zeros_like(context.length))

    def unfinished(rounds: Rounds) -> jax.Array:
        return jnp.any(rounds.drafting.going)

    rounds = jax.lax.while_loop(unfinished, lambda r: _one_round(rules, inner, params, context, r), begun)
    drafting = rounds.drafting
    if rules.drawing != Drawing.OWN:
        reached = jnp.cumprod(rate[0, drafting.kind], axis=1)[:, :, None]
        drafting = drafting._replace(gain=jnp.where(drafting.valid, reached, 0.0))
    return rounds._replace(drafting=drafting)


def _one_round(rules: LevelRules, inner: Inner, params: DraftModelParams, context: Context, rounds: Rounds) -> Rounds:
    drafting, done = rounds
    cache, depth, width = drafting.cache, drafting.ids.shape[1], inner.depth
    lane = jnp.arange(done.shape[0])[:, None]
    offset = jnp.arange(width + 1, dtype=jnp.int32)
    end = context.length + done  # where the next token to propose will stand
    going = drafting.going
    draft, _ = inner.propose((), (), context._replace(tokens=drafting.text, length=end, live=going))
    place = end[:, None] + offset
    text = drafting.text.at[lane, place[:, :-1]].set(draft.ids, mode="drop")
    unread = jnp.clip(end - cache.length, 1, BLOCK)
    read = jnp.minimum(cache.length[:, None] + jnp.arange(BLOCK + width, dtype=jnp.int32), text.shape[1] - 1)
    ids = translated(params.translation, jnp.take_along_axis(text, read, axis=1))
    output = rules.model(params.weights, chain_block(ids), cache)
    assert output.logits is not None
    logits = jnp.take_along_axis(output.logits, (unread[:, None] - 1 + offset)[:, :, None], axis=1)

    def say(logits: jax.Array, place: jax.Array) -> _Said:
        processed = process(rules.flags, params.translation, logits[:, None], text, place, context)
        ids, known, log_q = choose_tokens(
            processed, place, context, branches=1, drawing=rules.drawing, stochastic=rules.flags.stochastic
        )
        chosen = jnp.take_along_axis(processed, ids, axis=1)[:, 0]
        kind = class_of(jnp.exp(chosen - jax.nn.logsumexp(processed, axis=-1)), rules.classes)
        log_q = None if log_q is None else log_q[:, 0]
        return _Said(ids[:, 0], known[:, 0], kind, jnp.max(processed, axis=1), log_q)

    said = jax.vmap(say, in_axes=1, out_axes=1)(logits, place)
    agrees = (said.ids[:, :-1] == draft.ids) & draft.valid & said.known[:, :-1]
    count = 1 + jnp.sum(jnp.cumprod(agrees, axis=1, dtype=jnp.int32), axis=1)
    most = jnp.minimum(depth, levels_allowed(context, rules.room))
    count = jnp.minimum(count, most - done)
    new = going[:, None] & (offset < count[:, None])
    # An entry stays if its logits are numbers, which also shows XLA that the writes come after all reads.
    new &= jnp.cumprod(jnp.isfinite(said.best), axis=1, dtype=jnp.int32) > 0
    count = jnp.sum(new, axis=1, dtype=jnp.int32)
    level = jnp.where(new, done[:, None] + offset, depth)

    def note(table: jax.Array, values: jax.Array) -> jax.Array:
        return table.at[lane, level].set(values, mode="drop")

    log_q = drafting.log_q
    if log_q is not None and said.log_q is not None:
        log_q = note(log_q, said.log_q[:, :, None])
    return Rounds(
        drafting._replace(
            step=drafting.step + 1,
            cache=kv_cache.append(cache, output.keys, output.values, jnp.where(count > 0, unread + count - 1, 0)),
            text=drafting.text.at[lane, jnp.where(new, place, text.shape[1])].set(said.ids, mode="drop"),
            going=going & (count > 0) & (done + count < most),
            ids=note(drafting.ids, said.ids[:, :, None]),
            valid=note(drafting.valid, said.known[:, :, None]),
            kind=note(drafting.kind, said.kind),
            log_q=log_q,
        ),
        done + count,
    )
