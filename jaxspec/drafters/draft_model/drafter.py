"""A draft model as a drafter: its settings, the job it is bound to, and what it remembers between blocks.

B lanes, D depth, R branches, N = D * R nodes, E classes of confidence.
"""

import dataclasses
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.draft_model.confidence import CLASSES, first_rates, learned_rates, rate_ahead, row_came_true
from jaxspec.drafters.draft_model.length import longer_pays
from jaxspec.drafters.draft_model.levels import (
    Drafting,
    LevelRules,
    as_draft,
    levels_allowed,
    next_level,
    nothing_drafted,
)
from jaxspec.drafters.draft_model.reading import BLOCK, DraftModelParams, read_text
from jaxspec.drafters.draft_model.rounds import Inner, draft_in_rounds
from jaxspec.drafters.rates import Rates
from jaxspec.drafters.vocabulary import translate
from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import ModelFn
from jaxspec.models.self_draft import self_draft


class DraftModelState(NamedTuple):
    """Attributes:
    cache: of the draft model.
    ids: (B, D, R) int32 the last proposal, the row first among the branches.
    valid: (B, D, R) bool.
    kind: (B, D) int32 class of confidence of every step.
    rates: (R, E) of nodes by branch and class; shared by all lanes.
    """

    cache: kv_cache.KVCache
    ids: jax.Array
    valid: jax.Array
    kind: jax.Array
    rates: Rates


@dataclasses.dataclass(frozen=True)
class DraftModel:
    """Attributes:
    config, model, cache_dtype: of the draft model.
    lengths: steps a draft may have, ascending; with several, the cost of a step decides.
    stop_below: a lane drafts no further where its most probable token has less than this probability; 0 never.
    branches: R.
    branch_below: branches stand only where the most probable token has less than this probability; 1 everywhere.
    shared_vocabulary: whether vocabularies may differ.
    inner: what drafts for the draft model itself; None for nothing.
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
    branch_below: float
    shared_vocabulary: bool
    inner: Inner | None = None
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

    def of_model(self, lm: LanguageModel) -> "DraftModel":
        """With `lm` as its draft model."""
        return dataclasses.replace(
            self, config=lm.config, model=lm.model, cache_dtype=jnp.dtype(lm.cache_dtype), of_itself=None, lm=lm
        )

    def of_target(self, language_model: LanguageModel) -> "DraftModel":
        """With the draft model, where that is a cheaper version of the target."""
        if self.of_itself is None:
            return self
        made = _self_drafts.setdefault(language_model, {})
        if self.of_itself not in made:
            made[self.of_itself] = self_draft(language_model, self.of_itself)
        return self.of_model(made[self.of_itself])

    def bind(self, binding: Binding) -> "DraftModel":
        lengths = self.lengths[-1:] if binding.by_request else self.lengths
        return dataclasses.replace(self, binding=binding, lengths=lengths, lm=None)

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
        assert self.config is not None, "completed by of_target"
        return DraftModelState(
            cache=kv_cache.init_cache(self.config, lanes, slots, self.cache_dtype),
            ids=jnp.zeros((lanes, self.depth, self.branches), jnp.int32),
            valid=jnp.zeros((lanes, self.depth, self.branches), bool),
            kind=jnp.zeros((lanes, self.depth), jnp.int32),
            rates=first_rates(self.branches, self.classes),
        )

    def admit(
        self, params: DraftModelParams, state: DraftModelState, context: Context, fresh: jax.Array
    ) -> DraftModelState:
        cache = state.cache._replace(length=jnp.where(fresh, 0, state.cache.length))
        return state._replace(cache=self._read(params, cache, context))

    def propose(
        self, params: DraftModelParams, state: DraftModelState, context: Context
    ) -> tuple[Draft, DraftModelState]:
        binding, drawing = self._bound(), self.drawing
        assert self.model is not None
        cache = state.cache
        rules = LevelRules(
            self.model, binding.flags, drawing, self.classes, self._room(cache), self.stop_below, self.branch_below
        )
        rate, ahead = state.rates.mean, rate_ahead(state.rates, self.depth)
        chooses = len(self.lengths) > 1 and binding.alone and context.step_seconds is not None
        # A lane that drafts every time lacks no more than a block holds. It may lack all that other drafters got
        # right, or that the target said while drafting did not pay.
        if chooses:
            nothing = nothing_drafted(rules, cache, context, ahead, binding.vocabulary)
            pays = longer_pays(self.widths, drawing, ahead, context, nothing)
            cache = self._read(params, cache, context._replace(live=context.live & pays))
        elif not binding.alone:
            cache = self._read(params, cache, context)
        if self.inner is not None:
            drafting = draft_in_rounds(
                rules, self.inner, params, rate, ahead, cache, context, binding.vocabulary
            ).drafting
            return as_draft(drafting), self._remember(state, drafting)
        drafting = nothing_drafted(rules, cache, context, ahead, binding.vocabulary)

        def first(drafting: Drafting) -> Drafting:
            return next_level(rules, params, rate, context, drafting, width=BLOCK)

        def another(drafting: Drafting) -> Drafting:
            return next_level(rules, params, rate, context, drafting, width=1)

        def goes_on(drafting: Drafting) -> jax.Array:
            unfinished = (drafting.step < self.depth) & jnp.any(drafting.going)
            return unfinished & longer_pays(self.widths, drawing, ahead, context, drafting) if chooses else unfinished

        drafting = jax.lax.while_loop(lambda begun: (begun.step == 0) & goes_on(begun), first, drafting)
        drafting = jax.lax.while_loop(goes_on, another, drafting)
        return as_draft(drafting), self._remember(state, drafting)

    def _remember(self, state: DraftModelState, drafting: Drafting) -> DraftModelState:
        return state._replace(cache=drafting.cache, ids=drafting.ids, valid=drafting.valid, kind=drafting.kind)

    def observe(
        self, params: DraftModelParams, state: DraftModelState, context: Context, draft: Draft, verdict: Verdict
    ) -> DraftModelState:
        depth = jnp.arange(self.depth, dtype=jnp.int32)
        stays = row_came_true(state.ids, verdict) & (depth < verdict.accepted[:, None])
        kept = jnp.sum(stays, axis=1, dtype=jnp.int32)
        length = jnp.minimum(state.cache.length, context.length + kept)
        offered = state.valid
        if self.drawing == Drawing.OWN:  # what was not judged tells nothing of acceptance
            offered &= draft.valid.reshape(offered.shape)
        return state._replace(
            cache=state.cache._replace(length=jnp.where(context.live, length, state.cache.length)),
            rates=learned_rates(state.rates, state.ids, offered, state.kind, verdict, context.live),
        )

    def rewind(self, state: DraftModelState, length: jax.Array, which: jax.Array) -> DraftModelState:
        kept = jnp.minimum(state.cache.length, length - 1)  # the last token is the next block's first
        return state._replace(cache=state.cache._replace(length=jnp.where(which, kept, state.cache.length)))

    def _bound(self) -> Binding:
        assert self.binding is not None, "the drafter must be bound to a job, as `build_job` does"
        return self.binding

    def _room(self, cache: kv_cache.KVCache) -> int:
        """Tokens a text may have, with its draft: no more than the target's cache holds, or the draft model knows."""
        assert self.config is not None, "completed by of_target"
        return min(cache.slots, self.config.context)

    def _read(self, params: DraftModelParams, cache: kv_cache.KVCache, context: Context) -> kv_cache.KVCache:
        """`cache` with the texts that are drafted for."""
        assert self.model is not None
        context = context._replace(live=context.live & (levels_allowed(context, self._room(cache)) > 0))
        return read_text(self.model, params, cache, context, self._bound().prefill_width)


_self_drafts: weakref.WeakKeyDictionary[LanguageModel, dict[str, LanguageModel]] = weakref.WeakKeyDictionary()
