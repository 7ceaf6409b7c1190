"""The mix we recommend where nothing was trained: copies of texts, what the target last thought, its own bigram.

It begins with how often each class of proposals was right in texts of other prompts, `best_rates.json`, counted by
`benchmarks/best_rates.py`, and goes on from there by what it sees.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.binding import Binding
from jaxspec.decode.types import Context, Draft, Drafter, Verdict
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.bigram_tree import BigramTree
from jaxspec.drafters.corpus import SHORTEST_MEMORY, Corpus
from jaxspec.drafters.mix import Mix, Prior, mix
from jaxspec.drafters.model_tables import is_kept, prefix_ids
from jaxspec.drafters.rank_template import likeliest_template
from jaxspec.drafters.successors import Successors
from jaxspec.drafters.suffix import suffix
from jaxspec.drafters.text_memory import Memory
from jaxspec.drafters.token_recycling import STARTS, TokenRecycling, token_recycling


class Sizes(NamedTuple):
    """Candidates behind a budget: nodes of token recycling and of the bigram's tree, rows of suffix."""

    recycling: int
    bigram: int
    rows: int


WIDTHS = (0, 3, 7, 15, 31, 63)
SIZES = {3: Sizes(8, 4, 2), 7: Sizes(8, 8, 2), 15: Sizes(16, 8, 2), 31: Sizes(32, 16, 2), 63: Sizes(128, 64, 4)}
PAIRS = 2**15  # buckets of token recycling
WIDTH = 10  # tokens copied at most
SLOTS = 2**16  # tokens remembered of all requests, where lanes are not so many that each needs more
RATES = Path(__file__).with_name("best_rates.json")
AUTO = "auto"  # a start


@dataclasses.dataclass(frozen=True)
class FromKeptTable(TokenRecycling):
    """Token recycling that begins with the model's bigram where that is on disk already, else with nothing.

    The table is data, so both run the same program. A text that depends on its drafts must not depend on what is on
    disk: under such rules it always begins with nothing, and `start` then says so.
    """

    def bind(self, binding: Binding) -> TokenRecycling:
        return dataclasses.replace(super().bind(binding), start="empty" if binding.by_request else AUTO)

    def prepare(self, language_model: Any) -> jax.Array:
        return TokenRecycling.prepare(dataclasses.replace(self, start=_kept_start(language_model)), language_model)

    def init(self, params: jax.Array, context: Context) -> Successors:
        return super().init(params if self.start == AUTO else jnp.full_like(params, -1), context)


@dataclasses.dataclass(frozen=True)
class KeptTree(BigramTree):
    """The tree of the bigram where that is on disk already, else of nothing; see `FromKeptTable`.

    Attributes:
      silent: whether it proposes nothing in any case.
    """

    silent: bool = False

    def bind(self, binding: Binding) -> BigramTree:
        return dataclasses.replace(self, silent=binding.by_request)

    def prepare(self, language_model: Any) -> jax.Array:
        if _kept_start(language_model) == "empty":
            return jnp.full((language_model.config.vocabulary, self.branches), -1, jnp.int32)
        return super().prepare(language_model)

    def propose(self, params: jax.Array, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        draft, state = super().propose(params, state, context)
        return draft._replace(valid=draft.valid & (not self.silent)), state


@dataclasses.dataclass(frozen=True)
class CorpusWhereFree(Corpus):
    """Copies of all that was said, by other requests too, where texts do not depend on drafts; else of nothing.

    Attributes:
      silent: whether it proposes nothing.
    """

    silent: bool = False

    def bind(self, binding: Binding) -> Corpus:
        return dataclasses.replace(self, silent=binding.by_request)

    def init(self, params: Any, context: Context) -> Memory:
        slots = max(self.slots, SHORTEST_MEMORY * context.length.shape[0])
        return Corpus.init(dataclasses.replace(self, slots=slots), params, context)

    def admit(self, params: Any, state: Memory, context: Context, fresh: jax.Array) -> Memory:
        return state if self.silent else super().admit(params, state, context, fresh)

    def propose(self, params: Any, state: Memory, context: Context) -> tuple[Draft, Memory]:
        draft, state = super().propose(params, state, context)
        return draft._replace(valid=draft.valid & (not self.silent)), state

    def observe(self, params: Any, state: Memory, context: Context, draft: Draft, verdict: Verdict) -> Memory:
        return state if self.silent else super().observe(params, state, context, draft, verdict)


def _kept_start(language_model: Any) -> str:
    return "bigram" if is_kept(language_model, prefix_ids(language_model, STARTS["bigram"])) else "empty"


def best(budget: int = 31, start: str = AUTO, adaptive: bool = True) -> Mix:
    """Repeats of the context and of other requests, token recycling and the bigram in one tree, as wide as pays.

    Requests of a job learn from each other, so that drafts, though never texts, depend on what else is decoded. Under
    rules whose texts depend on drafts every request stands alone. How far each source is to be trusted is known from
    other data at first, counted with all sources and the largest budget, and learned from what is verified.

    Args:
      budget: most draft nodes a block. The loop takes 0, 3, 7, 15, 31 or 63 of them, whichever it expects to give
        the most tokens a second; what a width costs is measured once for a device and model, and kept.
      start: what is drafted from before anything was verified: `bigram` or `newline`, successors of single tokens as
        `model_bigram` has them, for which all of the model's vocabulary is read once; or `empty`, nothing.
        `auto` is `bigram` where that has been done, by `jaxspec tune --bigram` for one, and texts do not depend on
        drafts; else `empty`.
      adaptive: False always takes the whole budget, which gives the most tokens a call.

    Raises:
      ValueError: the budget is not one of 3, 7, 15, 31 and 63, or an unknown `start`.
    """
    budget = integer("budget", budget)
    if budget not in WIDTHS[1:]:
        raise ValueError(f"budget={budget} is not one of {', '.join(map(str, WIDTHS[1:]))}")
    if start not in (AUTO, *STARTS):
        raise ValueError(f"start={start!r} is not one of {', '.join((AUTO, *STARTS))}")
    parts = sources(budget, start)
    widths = tuple(width for width in WIDTHS if width <= budget) if adaptive else None
    return mix(*parts, budget=budget, widths=widths, prior=measured()[: len(parts)])


def sources(budget: int, start: str) -> tuple[Drafter, ...]:
    """What `best` mixes, with these settings of it."""
    sizes = SIZES[budget]
    recycling = token_recycling(nodes=sizes.recycling, start="empty" if start == AUTO else start, pairs=PAIRS)
    branches, tree = recycling.branches, likeliest_template(sizes.bigram, recycling.branches)
    repeats = suffix(width=WIDTH, rows=sizes.rows)
    everything = CorpusWhereFree(WIDTH, SLOTS, path="")
    if start == "empty":
        return repeats, recycling, everything
    if start != AUTO:
        return repeats, recycling, everything, BigramTree(branches, tree, STARTS[start])
    kept = FromKeptTable(branches, recycling.template, AUTO, recycling.shared, recycling.updates, PAIRS)
    return repeats, kept, everything, KeptTree(branches, tree, STARTS["bigram"])


@functools.cache
def measured() -> Prior:
    """Rates of suffix, token recycling, corpus and the bigram's tree, in this order."""
    tables = json.loads(RATES.read_text())
    names = (*suffix().sources, *token_recycling().sources, *Corpus.sources, *BigramTree.sources)
    return tuple(tuple(tuple(tuple(row) for row in table) for table in tables[name]) for name in names)
