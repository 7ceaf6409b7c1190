"""What passes and drafting cost on this machine.

All are timed in turns, so that a busy spell raises every price alike and leaves their ratios alone.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxspec.decode.types import Context, Draft, Drafter
from jaxspec.drafters.chain import chain
from jaxspec.drafters.stateless import Stateless
from jaxspec.engine import cost
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request
from jaxspec.evaluate.recording import Recording
from jaxspec.evaluate.replay import Replay, replay
from jaxspec.evaluate.timing import in_turns
from jaxspec.models.language_model import LanguageModel

LADDER = (0, 1, 3, 7, 15, 31, 63, 127)  # draft nodes at which a pass is timed, besides the widest block
ROUNDS = 5
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


class Prices(NamedTuple):
    """Attributes:
    passes: of the target, by the most probable tokens a drafter wants to see of every node; 0 is among them.
    drafting: seconds of proposing and observing a block, all lanes together, by drafter and width. Reading a prompt is
      not part of it: that is prefill.
    """

    passes: dict[int, CostTable]
    drafting: dict[str, dict[int, float]]


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


def measure_prices(
    lm: LanguageModel,
    recording: Recording,
    drafters: Mapping[str, Drafter],
    lanes: int | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Prices:
    """Times passes with caches as large as the recording needs, and drafting along its first text, on every lane the
    same; medians.

    Args:
      lm: the target.
      recording: of it.
      drafters: by name.
      lanes: prompts decoded at once; None for one.
      progress: told what is being done.
    """
    widest = max((drafter.nodes for drafter in drafters.values()), default=1)
    nodes = tuple(step for step in LADDER if step < widest) + (widest,) if widest else (0, 1)
    tops = sorted({0} | {drafter.top for drafter in drafters.values()})
    room = int(np.max(recording.end))
    request = Request(tuple(recording.prompts()[0]), 1)
    text = recording.first(1).repeated(lanes or 1)
    clocks: dict[Hashable, Callable[[], float]] = {}
    for top in tops:
        job = build_job(lm, [request], Blank(nodes, 1, top), lanes=lanes or 1, cache=room, ignore_eos=True)
        for index, width in enumerate(nodes):
            clocks[top, width] = functools.partial(cost.seconds_a_pass, job, index)
    blanks = {name: Blank((each.nodes,), each.depth, each.top) for name, each in drafters.items()}
    for name, drafter in drafters.items():
        clocks[blanks[name]] = functools.partial(_replayed_pass, lm, text, lanes, blanks[name], drafter.nodes)
        for width in drafter.widths:
            clocks[name, width] = functools.partial(_replayed_pass, lm, text, lanes, drafter, width)
    progress("timing passes and drafting")
    seconds = {what: statistics.median(times) for what, times in in_turns(clocks, rounds=ROUNDS).items()}
    return Prices(
        passes={top: CostTable(nodes, tuple(seconds[top, width] for width in nodes)) for top in tops},
        drafting={
            name: {width: max(seconds[name, width] - seconds[blanks[name]], 0.0) for width in drafter.widths}
            for name, drafter in drafters.items()
        },
    )


def seconds_of(replayed: Replay, costs: CostTable, drafting: Mapping[int, float] | None = None) -> float:
    """Predicted decode seconds: every pass at the cost of its width, and of drafting for it.

    Args:
      replayed: its passes.
      costs: of passes.
      drafting: seconds by width, see `Prices`; None to leave them out.
    """
    return sum(count * (costs.at(nodes) + (drafting or {}).get(nodes, 0.0)) for nodes, count in replayed.passes.items())


def _replayed_pass(lm: LanguageModel, text: Recording, lanes: int | None, drafter: Drafter, width: int) -> float:
    """Seconds of every pass but the first, which cannot be told from the prefill, when no other width pays."""
    forced = tuple(1.0 if other == width else OUT_OF_REACH for other in drafter.widths)
    whole, start = (replay(each, drafter, lm, lanes=lanes, step_seconds=forced) for each in (text, text.beginning(1)))
    passes = sum(whole.passes.values()) - sum(start.passes.values())
    return (whole.seconds - start.seconds) / max(passes, 1)
