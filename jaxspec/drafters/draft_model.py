"""A small language model drafts for a large one, in the same loop, with a cache of its own.

Speculative decoding (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318). The draft model reads what
was committed and says what comes next, token by token; with `branches`, its runners-up at every step stand beside
the row as leaves. What it proposes are its most probable tokens, draws with the target's own noise, or draws of its
own, as the acceptance rule wants, always from the distribution the target's settings make of its logits.

The cache holds a prefix of the text. Tokens that were drafted and committed stay in it, and the rest is rolled back
by its length. After a draft that was accepted whole, the last drafted token was never read: every block of the
draft model therefore has two tokens, of which the first step may need both.

B lanes, L tokens, D depth, R branches, N = D * R nodes, E classes of confidence, V vocabulary of the target.
"""

import dataclasses
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode import sampling
from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding
from jaxspec.decode.prefill import read_blocks
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.vocabulary import Translation, translate
from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import ModelFn, Params, chain_block
from jaxspec.models.self_draft import self_draft

AUTO = (0, 1, 2, 4, 8)  # lengths the loop chooses among
SELF = "self:"
BLOCK = 2
CLASSES = 16  # E
PRIOR_TRIALS = 4.0
OWN_RATE = 0.8  # acceptance expected of a draw before any was judged
MEMORY = 0.99  # share of old trials that still counts a block later; what fades returns to the prior, so that a
# drafter found useless is tried again


class DraftModelParams(NamedTuple):
    """Attributes:
    weights: of the draft model.
    translation: from the target's ids to its own; None where they are the same.
    """

    weights: Params
    translation: Translation | None


class DraftModelState(NamedTuple):
    """Attributes:
    cache: of the draft model.
    ids: (B, D, R) int32 the last proposal, the row first among the branches.
    valid: (B, D, R) bool.
    kind: (B, D) int32 class of confidence of every step.
    trials, successes: (R, E) float32 of nodes by branch and class, fading with time; shared by all lanes.
    """

    cache: kv_cache.KVCache
    ids: jax.Array
    valid: jax.Array
    kind: jax.Array
    trials: jax.Array
    successes: jax.Array


class Drafting(NamedTuple):
    """A proposal in the making.

    Attributes:
      step: () int32 levels drafted.
      cache: of the draft model.
      text: (B, L) int32 committed tokens, then the row drafted so far.
      going: (B,) bool lanes that draft on.
      ids, valid, kind: as in `DraftModelState`.
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


@dataclasses.dataclass(frozen=True)
class DraftModel:
    """Attributes:
    config, model, cache_dtype: of the draft model.
    lengths: steps a draft may have, ascending; with several, the cost of a step decides.
    stop_below: a lane drafts no further where its most probable token has less than this probability; 0 never.
    branches: R.
    shared_vocabulary: whether vocabularies may differ.
    of_itself: what cheaper version of the target drafts, see `models.self_draft`; None for a model of its own.
    binding: the job; None before one is built.
    lm: the draft model with its weights, which `prepare` takes out; None in a bound drafter.
    """

    config: ModelConfig | None
    model: ModelFn | None
    cache_dtype: Any
    lengths: tuple[int, ...]
    stop_below: float
    branches: int
    shared_vocabulary: bool
    of_itself: str | None = None
    binding: Binding | None = None
    lm: LanguageModel | None = dataclasses.field(default=None, compare=False, repr=False)

    top = 0

    @property
    def depth(self) -> int:
        return self.lengths[-1]

    @property
    def nodes(self) -> int:
        return self.depth * self.branches

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(length * self.branches for length in self.lengths)

    @property
    def sources(self) -> tuple[str, ...]:
        return ("draft_model", "draft_model_branch")[: self.branches]

    @property
    def is_chain(self) -> bool:
        return self.branches == 1

    @property
    def drawing(self) -> Drawing:
        """What is proposed. Draws of its own need a `log_q` that reaches the acceptance rule; else the best are."""
        binding = self._bound()
        return binding.drawing if binding.alone or binding.drawing != Drawing.OWN else Drawing.BEST

    @property
    def classes(self) -> int:
        """E. Whether a draw of its own is verified must not depend on the draw, so such draws share a class."""
        return 1 if self.drawing == Drawing.OWN else CLASSES

    def of_target(self, language_model: LanguageModel) -> "DraftModel":
        """With the draft model, where that is a cheaper version of the target."""
        if self.of_itself is None:
            return self
        made = _self_drafts.setdefault(language_model, {})
        if self.of_itself not in made:
            made[self.of_itself] = self_draft(language_model, self.of_itself)
        return _of_model(self, made[self.of_itself])

    def bind(self, binding: Binding) -> "DraftModel":
        return dataclasses.replace(self, binding=binding, lm=None)

    def prepare(self, language_model: LanguageModel) -> DraftModelParams:
        assert self.lm is not None, "prepare comes before bind"
        translation = translate(language_model, self.lm, shared=self.shared_vocabulary)
        if self.branches > language_model.config.vocabulary:
            raise ValueError(
                f"branches={self.branches} is above the vocabulary of {language_model.config.vocabulary} ids; lower it"
            )
        return DraftModelParams(self.lm.params, None if translation is None else jax.device_put(translation))

    def init(self, params: DraftModelParams, context: Context) -> DraftModelState:
        lanes, length = context.tokens.shape
        slots = length - self._bound().prefill_width
        trials, successes = self._prior()
        assert self.config is not None, "completed by of_target"
        return DraftModelState(
            cache=kv_cache.init_cache(self.config, lanes, slots, self.cache_dtype),
            ids=jnp.zeros((lanes, self.depth, self.branches), jnp.int32),
            valid=jnp.zeros((lanes, self.depth, self.branches), bool),
            kind=jnp.zeros((lanes, self.depth), jnp.int32),
            trials=trials,
            successes=successes,
        )

    def admit(
        self, params: DraftModelParams, state: DraftModelState, context: Context, fresh: jax.Array
    ) -> DraftModelState:
        cache = state.cache._replace(length=jnp.where(fresh, 0, state.cache.length))
        return state._replace(cache=self._read(params, cache, context))

    def propose(
        self, params: DraftModelParams, state: DraftModelState, context: Context
    ) -> tuple[Draft, DraftModelState]:
        lanes = context.length.shape[0]
        # Alone, no lane lacks more than a block holds. Among other drafters, a lane may lack all they got right.
        cache = state.cache if self._bound().alone else self._read(params, state.cache, context)
        shape = (lanes, self.depth, self.branches)
        rate = state.successes / state.trials
        ahead = self._ahead(state)
        own = self.drawing == Drawing.OWN
        drafting = Drafting(
            step=jnp.int32(0),
            cache=cache,
            text=context.tokens,
            going=context.live,
            ids=jnp.zeros(shape, jnp.int32),
            valid=jnp.zeros(shape, bool),
            kind=jnp.zeros(shape[:2], jnp.int32),
            gain=jnp.broadcast_to(ahead, shape) if own else jnp.zeros(shape, jnp.float32),
            log_q=jnp.zeros((*shape, self._bound().vocabulary), jnp.float32) if own else None,
        )

        def advance(drafting: Drafting) -> Drafting:
            return self._step(params, rate, context, drafting)

        def goes_on(drafting: Drafting) -> jax.Array:
            return (drafting.step < self.depth) & jnp.any(drafting.going) & self._pays(ahead, context, drafting)

        if len(self.lengths) == 1 and self.stop_below == 0:
            drafting = jax.lax.fori_loop(0, self.depth, lambda _, drafting: advance(drafting), drafting)
        else:
            drafting = jax.lax.while_loop(goes_on, advance, drafting)
        state = state._replace(cache=drafting.cache, ids=drafting.ids, valid=drafting.valid, kind=drafting.kind)
        return self._draft(drafting), state

    def observe(
        self, params: DraftModelParams, state: DraftModelState, context: Context, draft: Draft, verdict: Verdict
    ) -> DraftModelState:
        depth = jnp.arange(self.depth, dtype=jnp.int32)
        truth = verdict.ids[:, : self.depth]
        accepted = verdict.accepted[:, None]
        on_row = jnp.cumprod(state.ids[:, :, 0] == truth, axis=1, dtype=jnp.int32) > 0
        kept = jnp.sum(on_row & (depth < accepted), axis=1, dtype=jnp.int32)
        length = jnp.minimum(state.cache.length, context.length + kept)
        # A node is a trial if the row came true above it, and the truth about it is known.
        above = jnp.pad(on_row[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        known = above & (depth <= accepted) & context.live[:, None]
        offered = state.valid
        if self.drawing == Drawing.OWN:  # what was not judged tells nothing of acceptance
            offered &= draft.valid.reshape(offered.shape)
        trial = known[:, :, None] & offered
        success = trial & (state.ids == truth[:, :, None])
        branch = jnp.broadcast_to(jnp.arange(self.branches), trial.shape)
        kind = jnp.broadcast_to(state.kind[:, :, None], trial.shape)

        def count(before: jax.Array, prior: jax.Array, new: jax.Array) -> jax.Array:
            return (prior + (before - prior) * MEMORY).at[branch, kind].add(new.astype(jnp.float32))

        trials, successes = self._prior()
        return state._replace(
            cache=state.cache._replace(length=jnp.where(context.live, length, state.cache.length)),
            trials=count(state.trials, trials, trial),
            successes=count(state.successes, successes, success),
        )

    def _bound(self) -> Binding:
        assert self.binding is not None, "the drafter must be bound to a job, as `build_job` does"
        return self.binding

    def _prior(self) -> tuple[jax.Array, jax.Array]:
        """(R, E) trials and successes before any: a token is as good as the draft model thinks, a branch half that."""
        confident = 1.0 - 2.0 ** (-0.5 * (np.arange(CLASSES) + 0.5))
        row = np.array([OWN_RATE]) if self.classes == 1 else confident
        rate = np.stack([row] + [(1 - row) / 2] * (self.branches - 1))
        return jnp.full(rate.shape, PRIOR_TRIALS), jnp.asarray(PRIOR_TRIALS * rate, jnp.float32)

    def _ahead(self, state: DraftModelState) -> jax.Array:
        """(D, R) float32 probability of nodes below a sure one, as far as is known before they are drafted."""
        mean = jnp.sum(state.successes, axis=1) / jnp.sum(state.trials, axis=1)
        return mean[0] ** jnp.arange(self.depth, dtype=jnp.float32)[:, None] * mean

    def _pays(self, ahead: jax.Array, context: Context, drafting: Drafting) -> jax.Array:
        """() bool whether a longer draft than now promises more tokens a second."""
        if len(self.lengths) == 1 or not self._bound().alone or context.step_seconds is None:
            return jnp.bool_(True)
        live = context.live.astype(jnp.float32)
        depth = jnp.arange(self.depth, dtype=jnp.int32)
        # Own draws are counted on from the start: what they turned out to be must not decide whether they stay.
        step = jnp.int32(0) if self.drawing == Drawing.OWN else drafting.step
        last = drafting.gain[:, jnp.maximum(step - 1, 0), 0]
        reach = jnp.sum(live * jnp.where(step == 0, 1.0, last))
        known = jnp.sum(live[:, None, None] * drafting.gain, axis=0)  # (D, R)
        hoped = reach * ahead[jnp.maximum(depth - step, 0)]
        worth = jnp.where((depth < step)[:, None], known, hoped).reshape(-1)
        widths = jnp.asarray(self.widths, jnp.int32)
        tokens = jnp.sum(live) + jnp.concatenate([jnp.zeros((1,)), jnp.cumsum(worth)])[widths]
        return widths[jnp.argmax(tokens / context.step_seconds)] > drafting.step * self.branches

    def _read(self, params: DraftModelParams, cache: kv_cache.KVCache, context: Context) -> kv_cache.KVCache:
        """`cache` with every live lane's text but for its last tokens, as many as a block holds."""
        width = self._bound().prefill_width

        def unread(cache: kv_cache.KVCache) -> jax.Array:
            return jnp.where(context.live, context.length - 1 - cache.length, 0)

        def read_one(cache: kv_cache.KVCache) -> kv_cache.KVCache:
            missing = unread(cache)
            lane = jnp.argmax(missing >= BLOCK).astype(jnp.int32)
            ids = jax.lax.dynamic_slice(context.tokens, (lane, cache.length[lane]), (1, width))
            ids = _translated(params.translation, ids)
            assert self.model is not None
            return read_blocks(self.model, params.weights, ids, lane, missing[lane][None], cache).cache

        return jax.lax.while_loop(lambda cache: jnp.any(unread(cache) >= BLOCK), read_one, cache)

    def _step(self, params: DraftModelParams, rate: jax.Array, context: Context, drafting: Drafting) -> Drafting:
        """One more level of every lane that is going."""
        step, cache, text = drafting.step, drafting.cache, drafting.text
        lane = jnp.arange(text.shape[0])
        end = context.length + step  # where the token to propose will stand
        unread = jnp.clip(end - cache.length, 1, BLOCK)
        place = jnp.minimum(cache.length[:, None] + jnp.arange(BLOCK, dtype=jnp.int32), text.shape[1] - 1)
        ids = _translated(params.translation, jnp.take_along_axis(text, place, axis=1))
        assert self.model is not None
        output = self.model(params.weights, chain_block(ids), cache)
        assert output.logits is not None
        logits = jnp.take_along_axis(output.logits, (unread - 1)[:, None, None], axis=1)
        processed = self._process(params.translation, logits, text, end, context)
        proposed, known, log_q = self._choose(processed, end, context)
        best = jnp.max(processed, axis=(1, 2))
        # An entry stays if its logits are numbers, which also shows XLA that the writes come after all reads.
        going = drafting.going & jnp.isfinite(best) & (end < cache.slots)
        cache = kv_cache.append(cache, output.keys, output.values, jnp.where(going, unread, 0))
        log_total = jax.nn.logsumexp(processed[:, 0], axis=-1)
        if self.stop_below > 0:
            going &= jnp.exp(best - log_total) >= self.stop_below
        valid = known & going[:, None]
        chosen = jnp.take_along_axis(processed[:, 0], proposed[:, :1], axis=1)[:, 0]
        kind = self._class_of(jnp.exp(chosen - log_total))
        gain = drafting.gain
        if self.drawing != Drawing.OWN:
            before = jnp.where(step == 0, 1.0, gain[:, jnp.maximum(step - 1, 0), 0])
            gain = gain.at[:, step].set(jnp.where(valid, before[:, None] * rate[:, kind].T, 0.0))
        return Drafting(
            step=step + 1,
            cache=cache,
            text=text.at[lane, end].set(proposed[:, 0], mode="drop"),
            going=going,
            ids=drafting.ids.at[:, step].set(proposed),
            valid=drafting.valid.at[:, step].set(valid),
            kind=drafting.kind.at[:, step].set(kind),
            gain=gain,
            log_q=None if drafting.log_q is None else drafting.log_q.at[:, step].set(log_q),
        )

    def _process(
        self, translation: Translation | None, logits: jax.Array, text: jax.Array, end: jax.Array, context: Context
    ) -> jax.Array:
        """(B, 1, V) logits (B, 1, own V) after the first `end` (B,) tokens, processed as the target's would be."""
        flags = self._bound().flags
        if translation is not None:
            logits = jnp.where(translation.common, logits[..., translation.draft_id], -jnp.inf)
        assert context.sampling is not None
        seen = None
        if flags.penalty:
            last = jnp.take_along_axis(text, jnp.minimum(end - 1, text.shape[1] - 1)[:, None], axis=1)
            itself = jnp.ones((text.shape[0], 1, 1), bool)
            seen = sampling.seen_tokens(text, end, last, itself, logits.shape[-1])
        banned = context.banned if flags.bans else None
        return sampling.process(logits, context.sampling, flags, seen=seen, banned=banned)

    def _choose(
        self, processed: jax.Array, end: jax.Array, context: Context
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Proposals after one text a lane.

        With noise, the best R of logits plus noise are R draws without replacement, in order.

        Returns:
          (B, R) int32 ids, (B, R) bool which are possible, and (B, R, V) float32 the logarithms of what each was
          drawn from, or None.
        """
        settings = context.sampling
        assert settings is not None
        keys = processed[:, 0]
        warm = settings.temperature[:, None] > 0
        if self.drawing != Drawing.BEST and self._bound().flags.stochastic:
            stream = sampling.DRAW if self.drawing == Drawing.SHARED else sampling.DRAFT
            noise = sampling.gumbel(settings.seed, end[:, None], keys.shape[-1], stream)[:, 0]
            keys = jnp.where(warm, keys + noise, keys)
        if self.branches == 1:
            ids, best = (values[:, None] for values in sampling.argmax(keys))
        else:
            ids = sampling.top_ids(keys, self.branches)
            best = jnp.take_along_axis(keys, ids, axis=1)
        known = jnp.isfinite(best)
        ids = jnp.where(known, ids, 0)
        if self.drawing != Drawing.OWN:
            return ids, known, None
        token = jnp.arange(keys.shape[-1], dtype=jnp.int32)
        left, logs = processed[:, 0], []
        for branch in range(self.branches):
            is_it = token == ids[:, branch, None]
            logs.append(jnp.where(warm, jax.nn.log_softmax(left, axis=-1), jnp.where(is_it, 0.0, -jnp.inf)))
            left = jnp.where(is_it, -jnp.inf, left)
        return ids, known, jnp.stack(logs, axis=1)

    def _class_of(self, probability: jax.Array) -> jax.Array:
        """(B,) int32 class of a confidence (B,): two for every halving of the doubt."""
        if self.classes == 1:
            return jnp.zeros(probability.shape, jnp.int32)
        halvings = -2.0 * jnp.log2(jnp.maximum(1.0 - probability, 2.0**-CLASSES))
        return jnp.clip(halvings, 0, CLASSES - 1).astype(jnp.int32)

    def _draft(self, drafting: Drafting) -> Draft:
        """Level by level, the row's node before its branches."""
        lanes = drafting.going.shape[0]
        level = jnp.repeat(jnp.arange(self.depth, dtype=jnp.int32), self.branches)
        branch = jnp.tile(jnp.arange(self.branches, dtype=jnp.int32), self.depth)
        parent = jnp.where(level == 0, 0, (level - 1) * self.branches + 1)

        def same_for_all(values: jax.Array) -> jax.Array:
            return jnp.broadcast_to(values, (lanes, self.nodes))

        log_q = drafting.log_q
        return Draft(
            ids=drafting.ids.reshape(lanes, -1),
            parent=same_for_all(parent),
            depth=same_for_all(level + 1),
            source=same_for_all(jnp.minimum(branch, 1)),
            valid=drafting.valid.reshape(lanes, -1),
            evidence=jnp.repeat(drafting.kind, self.branches, axis=1),
            log_q=None if log_q is None else log_q.reshape(lanes, self.nodes, -1),
            gain=drafting.gain.reshape(lanes, -1),
        )


def _translated(translation: Translation | None, ids: jax.Array) -> jax.Array:
    """`ids` of the target as the draft model's."""
    return ids if translation is None else jnp.asarray(translation.draft_id)[ids]


def draft_model(
    lm: LanguageModel | str,
    length: str | int = 4,
    *,
    stop_below: float = 0.0,
    branches: int = 1,
    vocabulary: str = "same",
) -> DraftModel:
    """Drafts with a smaller language model.

    Args:
      lm: the draft model, or what `jaxspec.load` takes; or `self:int8`, `self:int4`, `self:int4:group=64` for a
        quantised copy of the target, `self:layers=12` for its first twelve layers.
      length: tokens a draft, or `auto`: 0, 1, 2, 4 or 8, whichever the acceptance seen so far and the measured cost
        of a step, drafting included, make the fastest.
      stop_below: end a draft where its most probable next token has less than this probability; 0 never.
      branches: tokens proposed at every step, the draft going on below the first.
      vocabulary: `same` wants models that agree on every id both have a token for; `shared` lets them differ, and
        drafts in the tokens both know.

    Raises:
      ValueError: a setting is out of range, or, once the target is known, the vocabularies differ.
    """
    if length == "auto":
        lengths = AUTO
    else:
        try:
            lengths = (int(length),)
        except ValueError:
            raise ValueError(f"length={length!r} is neither a number of tokens nor auto") from None
    if lengths[-1] < 1:
        raise ValueError(f"length={length} is below 1; a draft has at least one token")
    if not 0 <= stop_below < 1:
        raise ValueError(f"stop_below={stop_below} is not from 0 (never) to below 1; it is a probability")
    if branches < 1:
        raise ValueError(f"branches={branches} is below 1; every step proposes at least one token")
    if vocabulary not in ("same", "shared"):
        raise ValueError(f"vocabulary={vocabulary!r} is neither same nor shared")
    drafter = DraftModel(
        config=None,
        model=None,
        cache_dtype=None,
        lengths=lengths,
        stop_below=float(stop_below),
        branches=branches,
        shared_vocabulary=vocabulary == "shared",
    )
    if isinstance(lm, str) and lm.startswith(SELF):
        return dataclasses.replace(drafter, of_itself=lm.removeprefix(SELF))
    if isinstance(lm, str):
        from jaxspec.engine.load import load  # models and file formats, which other drafters do not need

        lm = load(lm)
    return _of_model(drafter, lm)


_self_drafts: weakref.WeakKeyDictionary[LanguageModel, dict[str, LanguageModel]] = weakref.WeakKeyDictionary()


def _of_model(drafter: DraftModel, lm: LanguageModel) -> DraftModel:
    """`drafter` with `lm` as its draft model."""
    return dataclasses.replace(
        drafter, config=lm.config, model=lm.model, cache_dtype=jnp.dtype(lm.cache_dtype), of_itself=None, lm=lm
    )
