"""Greedy decoding without the model: a drafter's own code against the text the model is known to say.

A node is accepted iff its path repeats that text, so that for a drafter that learns from nothing else, replay counts
what decoding counts: target calls, histogram, drafted and accepted nodes of every source. What replay cannot know is
what the target thinks after nodes it rejects. Drafters that learn from it (token recycling, lookahead, mixes of them)
see -1 there, and their replay is marked as not exact: it may come out better or worse than decoding. So is that of
drafters with several widths, of which decoding takes what its own measurement of their costs makes the fastest. Nor can
replay know where near ties let a model's choice change with the width of a block; `Recording.disagreements` says how
common they are.

R texts, B lanes, L tokens, N draft nodes, M = N + 1 block nodes, D depth, K most probable tokens.
"""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode import statistics
from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding, bind, of_target
from jaxspec.decode.sampling import SamplingFlags, plain_sampling
from jaxspec.decode.statistics import Statistics
from jaxspec.decode.tree import longest_accepted, tree_of
from jaxspec.decode.types import Context, Draft, Drafter, Verdict
from jaxspec.decode.verify import choose_width
from jaxspec.engine.result import GenerationStatistics, statistics_of, total
from jaxspec.evaluate.recording import UNKNOWN, Recording
from jaxspec.models.language_model import LanguageModel

PREFILL = 64  # tokens a pass of a drafter that reads prompts
BATCH_BYTES = 2**23  # of drafter states; texts with more of them are replayed one after another


@dataclasses.dataclass(frozen=True)
class Replay:
    """Attributes:
    statistics: as of `jaxspec.generate`, totals and `per_prompt`; no prefill.
    passes: target passes by draft nodes of the block. With several lanes one pass serves all of them.
    exact: whether decoding is known to give the same counts. Of a drafter with several widths it is not, though it
      does where a step of decoding costs `step_seconds`.
    seconds: wall time of the replay, with compilation where it is the first of its kind.
    """

    statistics: GenerationStatistics
    passes: dict[int, int]
    exact: bool
    seconds: float


class Texts(NamedTuple):
    """The part of a recording that replay reads, on the device; see `Recording`."""

    tokens: jax.Array
    prompt_length: jax.Array
    end: jax.Array
    known: jax.Array
    top: jax.Array


class ReplayState(NamedTuple):
    """Attributes:
    row: (B,) int32 text of every lane, R when idle.
    taken: () int32 texts that have been given to a lane.
    length: (R,) int32 committed tokens.
    drafter: the drafter's own state.
    statistics: of R texts.
    passes: (number of widths,) int32.
    """

    row: jax.Array
    taken: jax.Array
    length: jax.Array
    drafter: Any
    statistics: Statistics
    passes: jax.Array


def replay(
    recording: Recording,
    drafter: Drafter,
    lm: LanguageModel | None = None,
    *,
    lanes: int | None = None,
    step_seconds: tuple[float, ...] | None = None,
) -> Replay:
    """What greedy decoding of the recorded prompts with `drafter` would count.

    Args:
      recording: from `record`.
      drafter: any.
      lm: the recorded model, for drafters that read it before they draft (tables of its bigram, say) or are made of
        it. A draft model runs; only the target does not.
      lanes: None for every prompt decoded on its own, as by one `jaxspec.generate` each; else all of them as one job
        of so many lanes, in which drafters may learn from other prompts.
      step_seconds: what a step, drafting included, costs at each of the drafter's widths; None for the same at all.

    Raises:
      ValueError: `lanes` below 1, costs that are not one positive number for each width, a recording with fewer top
        ids than the drafter learns from or of another vocabulary than the model's, or a drafter that needs `lm`.
    """
    widths = drafter.widths
    if lanes is not None and lanes < 1:
        raise ValueError(f"lanes={lanes} is below 1; at least one lane must work")
    costs = (1.0,) * len(widths) if step_seconds is None else tuple(step_seconds)
    if len(costs) != len(widths) or not all(0 < cost < float("inf") for cost in costs):
        raise ValueError(f"step_seconds={costs} must be one positive number for each of the widths {widths}")
    drafter, params, texts = _ready(recording, drafter, lm)
    state = jax.eval_shape(drafter.init, params, _no_context(1, texts.tokens.shape[1]))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    together = size * recording.texts <= BATCH_BYTES
    step_costs = jnp.asarray(costs, jnp.float32)
    begun = time.perf_counter()
    counters, passes = jax.device_get(_run(drafter, lanes, together, params, step_costs, texts))
    took = time.perf_counter() - begun
    parts = [
        statistics_of(Statistics(*(leaf[row] for leaf in counters)), int(length), drafter.sources)
        for row, length in enumerate(recording.end - recording.prompt_length)
    ]
    # Only what is shared by requests outlives the last block of one, and only that can miss what it reached.
    whole = lanes is None or size == 0 or drafter.depth <= recording.tail
    return Replay(
        statistics=total(parts),
        passes={width: int(count) for width, count in zip(widths, passes, strict=True)},
        exact=whole and len(widths) == 1 and not learns_off_path(drafter, params),
        seconds=took,
    )


def state_after(recording: Recording, drafter: Drafter, lm: LanguageModel | None = None) -> Any:
    """What a drafter has learned when it has drafted for all texts, as one job on one lane: its state.

    Args:
      recording: from `record`.
      drafter, lm: as of `replay`.

    Raises:
      ValueError: as `replay`, of the recording, the drafter and the model.
    """
    drafter, params, texts = _ready(recording, drafter, lm)
    step_seconds = jnp.ones((len(drafter.widths),), jnp.float32)
    return jax.jit(lambda params, texts: _job(drafter, 1, params, step_seconds, texts).drafter)(params, texts)


def _ready(recording: Recording, drafter: Drafter, lm: LanguageModel | None) -> tuple[Any, Any, Texts]:
    """The drafter bound to a greedy job, its parameters, and the recording on the device."""
    if drafter.top > recording.top.shape[2]:
        raise ValueError(
            f"{drafter} learns from the target's {drafter.top} most probable tokens and the recording holds "
            f"{recording.top.shape[2]}; record with top={drafter.top} or more"
        )
    drafter = drafter if lm is None else of_target(drafter, lm)
    params = _prepared(drafter, lm, recording)
    drafter = bind(drafter, Binding(recording.vocabulary, SamplingFlags(), Drawing.BEST, PREFILL))
    texts = Texts(*(jnp.asarray(getattr(recording, field)) for field in Texts._fields))
    texts = texts._replace(tokens=jnp.pad(texts.tokens, ((0, 0), (0, PREFILL))))
    return drafter, params, texts


def _prepared(drafter: Drafter, lm: LanguageModel | None, recording: Recording) -> Any:
    if lm is not None:
        if lm.config.vocabulary != recording.vocabulary:
            raise ValueError(
                f"{lm.name} has {lm.config.vocabulary} ids and the recording, of {recording.model}, "
                f"{recording.vocabulary}; pass the recorded model"
            )
        return drafter.prepare(lm)
    try:
        return drafter.prepare(None)
    except AttributeError as error:
        raise ValueError(f"{drafter} reads the model before it drafts; pass the recorded model as lm") from error


def learns_off_path(drafter: Drafter, params: Any) -> bool:
    """Whether `observe` may carry what the target thinks after single nodes into the drafter's state.

    Followed through the traced program, so that the answer holds for every drafter; True also for one that looks at
    accepted nodes alone, since that cannot be told from the program.
    """
    context = _no_context(1, drafter.depth + 16 + PREFILL)
    state = jax.eval_shape(drafter.init, params, context)
    draft, state = jax.eval_shape(drafter.propose, params, state, context)
    nodes = jax.ShapeDtypeStruct((1, drafter.nodes + 1), np.dtype(np.int32))
    top = jax.ShapeDtypeStruct((1, drafter.nodes + 1, drafter.top), np.dtype(np.int32))
    path = jax.ShapeDtypeStruct((1, drafter.depth + 1), np.dtype(np.int32))
    accepted = jax.ShapeDtypeStruct((1,), np.dtype(np.int32))

    def observe(chosen, top, accepted, path, ids, context, draft, state, params):
        return drafter.observe(params, state, context, draft, Verdict(accepted, path, ids, chosen, top))

    arguments = (nodes, top, accepted, path, path, context, draft, state, params)
    jaxpr = jax.make_jaxpr(observe)(*arguments).jaxpr
    reached = set(map(id, jaxpr.invars[: 2 if drafter.top else 1]))
    for equation in jaxpr.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached |= set(map(id, equation.outvars))
    return any(id(variable) in reached for variable in jaxpr.outvars)


def _no_context(lanes: int, length: int) -> Context:
    ones = jnp.ones((lanes,), jnp.int32)
    seed, live = ones.astype(jnp.uint32), ones.astype(bool)
    return Context(jnp.zeros((lanes, length), jnp.int32), ones, ones, seed, live, plain_sampling(lanes))


@functools.partial(jax.jit, static_argnames=("drafter", "lanes", "together"))
def _run(
    drafter: Drafter, lanes: int | None, together: bool, params: Any, step_seconds: jax.Array, texts: Texts
) -> tuple[Statistics, jax.Array]:
    """Counters of R texts, and passes by width: one job of `lanes` lanes, or a job for every text.

    Such jobs run `together`, or one after another, since drafter states of all texts at once may be large.
    """
    if lanes is not None:
        state = _job(drafter, lanes, params, step_seconds, texts)
        return state.statistics, state.passes

    def one_text(row: jax.Array) -> tuple[Statistics, jax.Array]:
        state = _job(drafter, 1, params, step_seconds, Texts(*(leaf[row][None] for leaf in texts)))
        return Statistics(*(leaf[0] for leaf in state.statistics)), state.passes

    rows = jnp.arange(texts.end.shape[0], dtype=jnp.int32)
    counters, passes = jax.vmap(one_text)(rows) if together else jax.lax.map(one_text, rows)
    return counters, jnp.sum(passes, axis=0)


def _job(drafter: Drafter, lanes: int, params: Any, step_seconds: jax.Array, texts: Texts) -> ReplayState:
    """Replays all texts, taken up in order by lanes as they fall idle, like `decode.loop.run_slice`."""
    rows = texts.end.shape[0]
    state = ReplayState(
        row=jnp.full((lanes,), rows, jnp.int32),
        taken=jnp.int32(0),
        length=texts.prompt_length,
        drafter=(),
        statistics=statistics.empty(rows, len(drafter.sources), drafter.depth),
        passes=jnp.zeros((len(drafter.widths),), jnp.int32),
    )
    state = state._replace(drafter=drafter.init(params, context_of(texts, state)))

    def serve(state: ReplayState) -> ReplayState:
        return jax.lax.while_loop(
            lambda s: jnp.any(s.row < rows) & (jnp.all(s.row < rows) | (s.taken >= rows)),
            functools.partial(tick, drafter, params, step_seconds, texts),
            admit(drafter, params, texts, state),
        )

    return jax.lax.while_loop(lambda s: jnp.any(s.row < rows) | (s.taken < rows), serve, state)


def context_of(texts: Texts, state: ReplayState, step_seconds: jax.Array | None = None) -> Context:
    """Every lane's text as drafters see it: nothing of what is to come. They may see what passes cost."""
    rows = texts.end.shape[0]
    row = jnp.minimum(state.row, rows - 1)
    length = state.length[row]
    position = jnp.arange(texts.tokens.shape[1], dtype=jnp.int32)
    return Context(
        tokens=jnp.where(position < length[:, None], texts.tokens[row], 0),
        length=length,
        prompt_length=texts.prompt_length[row],
        seed=jnp.zeros(row.shape, jnp.uint32),
        live=state.row < rows,
        sampling=plain_sampling(row.shape[0]),
        step_seconds=step_seconds,
    )


def admit(drafter: Drafter, params: Any, texts: Texts, state: ReplayState) -> ReplayState:
    """Gives idle lanes the next texts."""
    rows = texts.end.shape[0]
    idle = state.row >= rows
    candidate = state.taken + jnp.cumsum(idle, dtype=jnp.int32) - 1
    fresh = idle & (candidate < rows)
    taken = state.taken + jnp.sum(fresh, dtype=jnp.int32)
    state = state._replace(row=jnp.where(fresh, candidate, state.row), taken=taken)
    return state._replace(drafter=drafter.admit(params, state.drafter, context_of(texts, state), fresh))


def tick(drafter: Drafter, params: Any, step_seconds: jax.Array, texts: Texts, state: ReplayState) -> ReplayState:
    """One round for every lane: draft, judge by the text, count, observe."""
    rows = texts.end.shape[0]
    context = context_of(texts, state, step_seconds)
    draft, drafter_state = drafter.propose(params, state.drafter, context)
    choice = jnp.int32(0)
    if len(drafter.widths) > 1:
        choice = choose_width(draft, context, drafter.widths, step_seconds).astype(jnp.int32)
    width = jnp.asarray(drafter.widths, jnp.int32)[choice]
    draft = draft._replace(valid=draft.valid & (jnp.arange(drafter.nodes, dtype=jnp.int32) < width))
    clipped = jnp.minimum(state.row, rows - 1)
    verdict = judge(draft, context, texts, clipped, width, drafter.depth, drafter.top)
    count = jnp.where(context.live, jnp.minimum(verdict.accepted + 1, texts.end[clipped] - context.length), 0)
    row = jnp.where(context.live, state.row, rows)
    drafted = jnp.minimum(count, verdict.accepted)
    return ReplayState(
        row=jnp.where(context.length + count >= texts.end[clipped], rows, row),
        taken=state.taken,
        length=state.length.at[row].add(count, mode="drop"),
        drafter=drafter.observe(params, drafter_state, context, draft, verdict),
        statistics=statistics.count_block(state.statistics, row, draft, verdict, drafted),
        passes=state.passes.at[choice].add(1),
    )


def judge(
    draft: Draft, context: Context, texts: Texts, row: jax.Array, width: jax.Array, depth: int, top: int
) -> Verdict:
    """The target's verdict as far as the text tells it.

    Args:
      draft: nodes at and beyond `width` () are not valid.
      context: of B lanes.
      texts: what is known.
      row: (B,) int32 text of every lane.
      width: draft nodes in the block.
      depth: D.
      top: most probable tokens wanted.

    Returns:
      A verdict whose `chosen` and `top` are -1 after every node that does not repeat the text.
    """
    tree = tree_of(context.root, draft, depth)
    position = context.length[:, None] - 1 + jnp.arange(depth + 2, dtype=jnp.int32)
    within = jnp.minimum(position, texts.tokens.shape[1] - 1)
    truth = jnp.where(position < texts.known[row][:, None], texts.tokens[row[:, None], within], UNKNOWN)
    in_block = jnp.arange(tree.ids.shape[1], dtype=jnp.int32) <= width
    repeats = (tree.ids == jnp.take_along_axis(truth, tree.depth, axis=1)) & in_block
    on_path = jnp.all(repeats[:, None, :] | ~tree.ancestors, axis=2)
    chosen = jnp.where(on_path, jnp.take_along_axis(truth, tree.depth + 1, axis=1), UNKNOWN)
    after = jnp.take_along_axis(within, tree.depth, axis=1)
    opinions = jnp.where(on_path[:, :, None], texts.top[row[:, None], after, :top], UNKNOWN)
    accepted, path = longest_accepted(tree, chosen, depth)
    step = jnp.arange(depth + 1, dtype=jnp.int32)
    ids = jnp.where(step <= accepted[:, None], truth[:, 1:], chosen[:, :1])
    return Verdict(accepted, path, ids, chosen, opinions)
