"""Which drafter is fastest for a model, a device and a kind of prompt: predicted, so that many settings can be tried.

The prompts are decoded once and recorded, every candidate is replayed on the recording, and its passes are priced by
what blocks of each width cost this model on this device. Drafting is timed too, at every width, as what replay takes
beyond the replay of a drafter that proposes nothing in a block of the same size. Both together are what a step costs:
what a drafter with several widths chooses by, as in decoding, and what its passes are charged.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxspec.decode.types import Context, Draft, Drafter
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.chain import chain
from jaxspec.drafters.spec import PLAIN, parse_drafter
from jaxspec.drafters.stateless import Stateless
from jaxspec.engine import cost
from jaxspec.engine.generate import Prompt
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request
from jaxspec.evaluate.bench import bench
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.replay import Replay, replay
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
)  # before others, since `best` starts from the table these leave on disk
LADDER = (0, 1, 3, 7, 15, 31, 63, 127)  # draft nodes at which a pass is timed, besides the widest block
ROUNDS = 3  # timed replays of each width of a candidate
OUT_OF_REACH = 1e9  # seconds, at which no width is worth taking


class CostTable(NamedTuple):
    """Seconds of a target pass by draft nodes of its block; between two widths, on the line through them.

    Attributes:
      nodes: ascending, the first 0.
      seconds: of a pass, all lanes together.
    """

    nodes: tuple[int, ...]
    seconds: tuple[float, ...]

    def at(self, nodes: int) -> float:
        """Seconds of a pass over a block of `nodes` draft nodes.

        Raises:
          ValueError: it is wider than what was measured.
        """
        if nodes > self.nodes[-1]:
            raise ValueError(f"a block of {nodes} draft nodes is wider than the widest measured, {self.nodes[-1]}")
        return float(np.interp(nodes, self.nodes, self.seconds))


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


@dataclasses.dataclass(frozen=True)
class Blank(Stateless):
    """Proposes nothing, in blocks that another drafter's proposals would fill: what a pass costs by itself.

    Attributes:
      sizes: draft nodes a block may have.
      longest: depth of its paths.
      looked_at: most probable tokens it asks for.
    """

    sizes: tuple[int, ...]
    longest: int
    looked_at: int

    sources = ("nothing",)

    @property
    def nodes(self) -> int:
        return self.sizes[-1]

    @property
    def depth(self) -> int:
        return self.longest

    @property
    def widths(self) -> tuple[int, ...]:
        return self.sizes

    @property
    def top(self) -> int:
        return self.looked_at

    def propose(self, params: Any, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        lanes = context.length.shape[0]
        draft = chain(jnp.zeros((lanes, self.nodes), jnp.int32), jnp.zeros((lanes,), jnp.int32))
        depth = jnp.minimum(draft.depth, self.longest)  # nodes beyond the longest path are siblings
        return draft._replace(depth=depth, parent=depth - 1, gain=jnp.zeros(depth.shape, jnp.float32)), state


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
    starts from it from then on.

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
    tops = sorted({0} | {drafter.top for drafter in named.values()})
    if recording is None:
        progress("decoding and recording the prompts")
        recording = record(lm, prompts, max_new_tokens, top=tops[-1], chat=chat)
    progress("measuring what passes cost")
    widest = max(drafter.nodes for drafter in named.values())
    costs = {top: measure_costs(lm, recording, widest, top, lanes) for top in tops}
    plain = replay(recording, autoregressive(), lanes=lanes)
    plain_seconds = seconds_of(plain, costs[0])
    rows = []
    for name, drafter in named.items():
        progress(f"replaying {name}")
        rows.append(_row(lm, recording, name, drafter, costs[drafter.top], plain_seconds, lanes))
    rows.sort(key=lambda row: -row.predicted)
    if confirm:
        progress("decoding with the best")
        best = {row.drafter: named[row.drafter] for row in rows[:confirm]}
        ids: Any = recording.prompts()
        limit = int(np.max(recording.end - recording.prompt_length))
        measured = {row.drafter: row.speed_ratio for row in bench(lm, ids, best, max_new_tokens=limit)}
        rows = [row._replace(measured=measured.get(row.drafter)) for row in rows]
    return TuneReport(
        choice=choose(rows),
        rows=tuple(rows),
        costs=costs[0],
        prompts=recording.texts,
        tokens=plain.statistics.tokens,
        disagreements=recording.disagreements,
    )


def choose(rows: Sequence[TuneRow]) -> str:
    """The fastest drafter, by measurement where there is any, else by prediction; `plain` if none is faster."""
    seen = [(row.measured, row.drafter) for row in rows if row.measured is not None]
    speed, name = max(seen or [(row.predicted, row.drafter) for row in rows], key=lambda pair: pair[0])
    return name if speed > 1.0 else PLAIN


def measure_costs(
    lm: LanguageModel, recording: Recording, widest: int, top: int = 0, lanes: int | None = None
) -> CostTable:
    """What passes cost with caches as large as the recording needs, in blocks of up to `widest` draft nodes.

    Args:
      lm: the target.
      recording: gives the lengths.
      widest: most draft nodes.
      top: most probable tokens that a drafter wants to see of every node.
      lanes: prompts decoded at once; None for one.
    """
    nodes = tuple(step for step in LADDER if step < widest) + (widest,) if widest else (0, 1)
    room = int(np.max(recording.end))
    request = Request(tuple(recording.prompts()[0]), 1)
    job = build_job(lm, [request], Blank(nodes, 1, top), lanes=lanes or 1, cache=room, ignore_eos=True)
    return CostTable(nodes, tuple(cost.measure(job)))


def seconds_of(replayed: Replay, costs: CostTable, drafting: Mapping[int, float] | None = None) -> float:
    """Predicted decode seconds: every pass at the cost of its width, and of drafting for it.

    Args:
      replayed: its passes.
      costs: of passes.
      drafting: seconds by width, as from `drafting_seconds`; None to leave them out.
    """
    return sum(count * (costs.at(nodes) + (drafting or {}).get(nodes, 0.0)) for nodes, count in replayed.passes.items())


def drafting_seconds(lm: LanguageModel, recording: Recording, drafter: Drafter) -> dict[int, float]:
    """Seconds of proposing and observing a block of each width, on one lane: medians. Reading a prompt is prefill."""
    text = recording.first(1)
    blank = Blank((drafter.nodes,), drafter.depth, drafter.top)
    empty = _seconds_of_a_pass(lm, text, blank, drafter.nodes)
    return {width: max(_seconds_of_a_pass(lm, text, drafter, width) - empty, 0.0) for width in drafter.widths}


def _seconds_of_a_pass(lm: LanguageModel, recording: Recording, drafter: Drafter, width: int) -> float:
    """Of every pass but the first, which cannot be told from the prefill, when no other width pays."""
    forced = tuple(1.0 if other == width else OUT_OF_REACH for other in drafter.widths)
    shortest = recording.beginning(1)
    replay(recording, drafter, lm, step_seconds=forced)  # compiles
    seconds, passes = [], 0
    for _ in range(ROUNDS):
        whole, start = (replay(text, drafter, lm, step_seconds=forced) for text in (recording, shortest))
        seconds.append(whole.seconds - start.seconds)
        passes = sum(whole.passes.values()) - sum(start.passes.values())
    return statistics.median(seconds) / max(passes, 1)


def _row(
    lm: LanguageModel,
    recording: Recording,
    name: str,
    drafter: Drafter,
    costs: CostTable,
    plain_seconds: float,
    lanes: int | None,
) -> TuneRow:
    drafting = {width: own * (lanes or 1) for width, own in drafting_seconds(lm, recording, drafter).items()}
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
