"""Which drafter is fastest for a model, a device and a kind of prompt: predicted, so that many settings can be tried.

The prompts are decoded once and recorded, every candidate is replayed on the recording, and its passes are priced by
what blocks of each width cost this model on this device. Drafting is timed too, at every width, as what replay takes
beyond the replay of a drafter that proposes nothing in a block of the same size. Both together are what a step costs:
what a drafter with several widths chooses by, as in decoding, and what its passes are charged.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxspec.decode.types import Drafter
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.spec import PLAIN, parse_drafter
from jaxspec.engine.generate import Prompt
from jaxspec.evaluate.bench import bench
from jaxspec.evaluate.pricing import CostTable, Prices, measure_prices, seconds_of
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.replay import replay
from jaxspec.models.language_model import LanguageModel

CONTEXT_CANDIDATES = (
    "suffix:width=3",
    "suffix:width=7",
    "suffix:width=10,rows=2",
    "token_recycling:nodes=16,start=empty",
    "best:budget=7",
    "best:budget=15",
    "best:budget=31",
    "best:budget=63",
)
BIGRAM_CANDIDATES = (
    "ngrammys:k=1,w=7",
    "ngrammys:k=5,w=3",
    "ngrammys:k=5,w=10",
    "ngrammys:k=10,w=10",
    "token_recycling:nodes=16,start=bigram",
)  # before others, since `best` drafts from the table these leave on disk


class TuneRow(NamedTuple):
    """One candidate.

    Attributes:
      drafter: its name.
      tokens_per_call: of the target.
      predicted: decode speed as a multiple of plain decoding.
      exact: whether `tokens_per_call` is known to be decoding's own; see `jaxspec.evaluate.replay`.
      nodes: mean draft nodes of a block.
      drafting: share of the time spent on proposing and learning.
      measured: speed as a multiple of plain decoding in a real run; None where there was none, or ids differed.
    """

    drafter: str
    tokens_per_call: float
    predicted: float
    exact: bool
    nodes: float
    drafting: float
    measured: float | None = None


@dataclasses.dataclass(frozen=True)
class TuneReport:
    """Attributes:
    choice: the fastest drafter, `plain` when none beats plain decoding.
    rows: the fastest first.
    costs: of passes, for drafters that look at no top tokens.
    prompts, tokens: how many were recorded.
    disagreements: see `Recording`.
    """

    choice: str
    rows: tuple[TuneRow, ...]
    costs: CostTable
    prompts: int
    tokens: int
    disagreements: int


def tune(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    candidates: Mapping[str, Drafter] | Sequence[str] = CONTEXT_CANDIDATES,
    *,
    max_new_tokens: int = 128,
    chat: bool = False,
    lanes: int | None = None,
    confirm: int = 0,
    recording: Recording | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> TuneReport:
    """Predicts the speed of every candidate and chooses the fastest.

    Candidates that read the model's whole vocabulary, `BIGRAM_CANDIDATES` for one, leave its table on disk, and `best`
    drafts from it from then on. Without `lanes` nothing is learned from other prompts, as `best` does in a job of many.

    Args:
      lm: the target.
      prompts: of the kind that is to be decoded.
      candidates: drafters by name, or texts that name them (see `parse_drafter`).
      max_new_tokens: of every answer.
      chat: put prompts into the chat template.
      lanes: prompts decoded at once, in one job; None for one after the other, each on its own.
      confirm: how many of the best to decode with really; the choice is then among these, by measured time.
      recording: of these prompts, to spare decoding them again.
      progress: told what is being done.

    Raises:
      ValueError: no candidate, a negative `confirm`, `confirm` with lanes, or what `record` and `replay` raise.
    """
    if not candidates:
        raise ValueError("candidates is empty; tune needs at least one drafter to compare with plain decoding")
    if confirm < 0 or (confirm and lanes is not None):
        raise ValueError(f"confirm={confirm} with lanes={lanes}: confirm takes 0 or more, and prompts on their own")
    if isinstance(candidates, Mapping):
        named = dict(candidates)
    else:
        named = {name: parse_drafter(name) for name in candidates}
    if recording is None:
        progress("decoding and recording the prompts")
        recording = record(lm, prompts, max_new_tokens, top=max(each.top for each in named.values()), chat=chat)
    prices = measure_prices(lm, recording, named, lanes, progress)
    plain = replay(recording, autoregressive(), lanes=lanes)
    plain_seconds = seconds_of(plain, prices.passes[0])
    rows = []
    for name, drafter in named.items():
        progress(f"replaying {name}")
        rows.append(_row(lm, recording, name, drafter, prices, plain_seconds, lanes))
    rows.sort(key=lambda row: -row.predicted)
    if confirm:
        progress("decoding with the best")
        best = {row.drafter: named[row.drafter] for row in rows[:confirm]}
        ids: Any = recording.prompts()
        limit = int(np.max(recording.end - recording.prompt_length))
        measured = {row.drafter: row.speed_ratio for row in bench(lm, ids, best, max_new_tokens=limit)}
        rows = [row._replace(measured=measured.get(row.drafter)) for row in rows]
    return TuneReport(
        choice=choose(rows, confirmed=confirm > 0),
        rows=tuple(rows),
        costs=prices.passes[0],
        prompts=recording.texts,
        tokens=plain.statistics.tokens,
        disagreements=recording.disagreements,
    )


def choose(rows: Sequence[TuneRow], *, confirmed: bool) -> str:
    """The fastest drafter by prediction or, `confirmed`, by measurement; `plain` if none is faster."""
    if confirmed:
        seen = [(row.measured, row.drafter) for row in rows if row.measured is not None]
    else:
        seen = [(row.predicted, row.drafter) for row in rows]
    speed, name = max(seen, key=lambda pair: pair[0], default=(0.0, PLAIN))
    return name if speed > 1.0 else PLAIN


def _row(
    lm: LanguageModel,
    recording: Recording,
    name: str,
    drafter: Drafter,
    prices: Prices,
    plain_seconds: float,
    lanes: int | None,
) -> TuneRow:
    costs = prices.passes[drafter.top]
    drafting = prices.drafting[name]
    step_seconds = tuple(costs.at(width) + drafting[width] for width in drafter.widths)
    replayed = replay(recording, drafter, lm, lanes=lanes, step_seconds=step_seconds)
    passes = sum(replayed.passes.values())
    seconds = seconds_of(replayed, costs, drafting)
    return TuneRow(
        drafter=name,
        tokens_per_call=replayed.statistics.tokens_per_call,
        predicted=plain_seconds / seconds,
        exact=replayed.exact,
        nodes=sum(nodes * count for nodes, count in replayed.passes.items()) / passes,
        drafting=sum(count * drafting[nodes] for nodes, count in replayed.passes.items()) / seconds,
    )
