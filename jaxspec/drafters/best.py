"""The mix we recommend where nothing was trained: copies of the context, and what the target last thought.

It begins with how often each class of proposals was right in texts of other prompts, `best_rates.json`, counted by
`benchmarks/best_rates.py`, and goes on from there by what it sees.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.decode.binding import Binding
from jaxspec.decode.types import Context
from jaxspec.drafters.mix import Mix, Prior, mix
from jaxspec.drafters.model_tables import is_kept, prefix_ids
from jaxspec.drafters.suffix import suffix
from jaxspec.drafters.token_recycling import STARTS, TokenRecycling, token_recycling

WIDTHS = (0, 3, 7, 15, 31, 63)
TREES = {3: (8, 2), 7: (8, 2), 15: (16, 2), 31: (32, 2), 63: (128, 4)}  # nodes of token recycling, rows of suffix
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
        start = "bigram" if is_kept(language_model, prefix_ids(language_model, STARTS["bigram"])) else "empty"
        return TokenRecycling.prepare(dataclasses.replace(self, start=start), language_model)

    def init(self, params: jax.Array, context: Context) -> jax.Array:
        return super().init(self._table(params), context)

    def admit(self, params: jax.Array, state: jax.Array, context: Context, fresh: jax.Array) -> jax.Array:
        return super().admit(self._table(params), state, context, fresh)

    def _table(self, params: jax.Array) -> jax.Array:
        return params if self.start == AUTO else jnp.full_like(params, -1)


def best(budget: int = 31, start: str = AUTO) -> Mix:
    """Longest repeats of the context and token recycling in one tree, as wide as pays step by step.

    Args:
      budget: most draft nodes a block. The loop takes 0, 3, 7, 15, 31 or 63 of them, whichever it expects to give
        the most tokens a second; what a width costs is measured once for a device and model, and kept.
      start: of token recycling, see there: `empty`, or `bigram` or `newline`, which first read the whole model once,
        in minutes on a CPU. `auto` is `bigram` where that has been done, by `jaxspec tune --bigram` for one, and
        texts do not depend on drafts; else `empty`.

    Raises:
      ValueError: the budget is not one of 3, 7, 15, 31 and 63, or an unknown `start`.
    """
    if budget not in WIDTHS[1:]:
        raise ValueError(f"budget={budget} is not one of {', '.join(map(str, WIDTHS[1:]))}")
    if start not in (AUTO, *STARTS):
        raise ValueError(f"start={start!r} is not one of {', '.join((AUTO, *STARTS))}")
    tree, rows = TREES[budget]
    recycling = token_recycling(nodes=tree, start="empty" if start == AUTO else start)
    if start == AUTO:
        recycling = FromKeptTable(recycling.branches, recycling.template, AUTO, recycling.shared, recycling.updates)
    widths = tuple(width for width in WIDTHS if width <= budget)
    return mix(suffix(width=10, rows=rows), recycling, budget=budget, widths=widths, prior=measured())


@functools.cache
def measured() -> Prior:
    """Rates of suffix and token recycling, in this order."""
    tables = json.loads(RATES.read_text())
    return tuple(
        tuple(tuple(row) for row in tables[source]) for source in (*suffix().sources, *token_recycling().sources)
    )
