"""Drafters side by side on the same prompts, each compared with plain decoding id by id and in time.

Every round decodes every prompt with every drafter in turn, so that a busy machine slows all alike; times are decode
time alone, and a speed ratio is of medians over rounds. A drafter whose ids differ has no speed ratio. Prompts are
decoded each on their own, or all in one job of several lanes. Other decoders of the same model may run beside them,
and the same model in other precisions: each drafter is then compared id by id with plain decoding in its own
precision, and in time with the fastest plain decoding there is, token by token, since a near tie in a lower precision
may fall either way and change the rest of a text.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxspec.decode.types import Drafter
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.spec import PLAIN
from jaxspec.engine.generate import generate
from jaxspec.engine.request import encode_prompts
from jaxspec.engine.result import GenerationStatistics, total
from jaxspec.models.language_model import LanguageModel


class PeerRun(NamedTuple):
    """What another decoder did with one prompt.

    Attributes:
      ids: new token ids.
      calls: passes of the target that said tokens; a prefill that says none is no call.
      seconds: decode time, prefill apart; 0 where all was said by the prefill, and there is none to tell.
    """

    ids: list[int]
    calls: int
    seconds: float


Peer = Callable[[Sequence[int], int], PeerRun]  # prompt ids and most new tokens
Run = Callable[[Sequence[Sequence[int]]], list[Any]]  # prompts of a job; a `PeerRun` or `_OwnRun` of each


class BenchRow(NamedTuple):
    """One drafter over all prompts.

    Attributes:
      drafter: its name, or a peer's.
      prompts: how many.
      tokens: generated.
      tokens_per_call: of the target.
      speed_ratio: decode seconds a token of the fastest plain decoding over its own, on the prompts for which it has a
        time. None when there are none, or ids differ in float32.
      tokens_per_second: of all lanes together, in decode time on these prompts, the median over rounds.
      identical: whether all ids equal plain decoding's.
      same: share of prompts whose ids do.
      sources: share of each source's drafted nodes that were accepted.
    """

    drafter: str
    prompts: int
    tokens: int
    tokens_per_call: float
    speed_ratio: float | None
    tokens_per_second: float | None
    identical: bool
    same: float
    sources: dict[str, float]


def bench(
    lm: LanguageModel,
    prompts: Sequence[str],
    drafters: Mapping[str, Drafter],
    *,
    max_new_tokens: int,
    chat: bool = False,
    rounds: int = 1,
    lanes: int | None = None,
    peers: Mapping[str, Peer] | None = None,
    also: Sequence[LanguageModel] = (),
    advance: Callable[[], None] = lambda: None,
) -> list[BenchRow]:
    """One row for each of `drafters` and `peers`; and for plain decoding and the drafters in every other precision.

    Args:
      lm: the target.
      prompts: at least one.
      drafters: by name; `plain` is plain decoding.
      max_new_tokens: of every text.
      chat: put prompts into the chat template.
      rounds: timed runs of every prompt with every drafter.
      lanes: decode all prompts in one job of so many lanes, in which drafters may learn from other prompts, and those
        that wait for a lane are read in decode time; None decodes each on its own.
      peers: other decoders, by name.
      also: the target in other precisions; their rows are named after it.
      advance: called after every prompt of every round.

    Raises:
      ValueError: `rounds` or `max_new_tokens` is below 1, `peers` with `lanes`, or a prompt cannot be decoded.
    """
    for setting, value in (("rounds", rounds), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{setting}={value} is below 1; there would be nothing to compare")
    if peers and lanes is not None:
        raise ValueError(f"lanes={lanes} with peers: other decoders take one prompt at a time; leave one of them out")
    encoded = encode_prompts(lm, prompts, chat=chat)
    options: dict[str, Any] = {
        "lanes": lanes,
        "max_new_tokens": max_new_tokens,
        "cache": -(-(max(map(len, encoded)) + max_new_tokens) // 512) * 512,
    }
    contenders: dict[str, _Contender] = {}
    for model in (lm, *also):
        precision = "" if model is lm else f", {jnp.dtype(model.dtype).name}"
        exact = model.dtype == jnp.float32
        for name, drafter in (dict(drafters) | {PLAIN: autoregressive()}).items():
            contenders[name + precision] = _Contender(_own(model, drafter, options), PLAIN + precision, exact)
        if model is lm:
            contenders |= {
                name: _Contender(_theirs(peer, max_new_tokens), PLAIN, exact=True)
                for name, peer in (peers or {}).items()
            }
    for contender in contenders.values():
        contender.run(encoded[:1])
    jobs = [[ids] for ids in encoded] if lanes is None else [encoded]
    runs: dict[str, list[list[PeerRun]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for mine in runs.values():
            mine.append([])
        for job in jobs:
            for name, contender in contenders.items():
                runs[name][-1] += contender.run(job)
            for _ in job:
                advance()
    plains = [runs[name] for name in dict.fromkeys(contender.plain for contender in contenders.values())]
    asked = [name for name in contenders if name != PLAIN or PLAIN in drafters]
    return [_row(name, runs[name], runs[contenders[name].plain], plains, contenders[name].exact) for name in asked]


class _Contender(NamedTuple):
    """A decoder, the name of the plain decoding it must equal, and whether it must to the last id."""

    run: Run
    plain: str
    exact: bool


class _OwnRun(NamedTuple):
    """A `PeerRun` with this library's statistics."""

    ids: list[int]
    calls: int
    seconds: float
    statistics: GenerationStatistics


def _own(lm: LanguageModel, drafter: Drafter, options: dict[str, Any]) -> Run:
    def run(prompts: Sequence[Sequence[int]]) -> list[_OwnRun]:
        out = generate(lm, [list(ids) for ids in prompts], drafter=drafter, **options)
        seconds = out.decode_seconds / len(prompts)  # of a job, which prompts share
        return [
            _OwnRun(ids, own.target_calls, seconds, own)
            for ids, own in zip(out.ids, out.statistics.per_prompt, strict=True)
        ]

    return run


def _theirs(peer: Peer, max_new_tokens: int) -> Run:
    return lambda prompts: [peer(ids, max_new_tokens) for ids in prompts]


def _row(
    name: str,
    rounds: Sequence[Sequence[PeerRun]],
    own_plain: Sequence[Sequence[PeerRun]],
    plains: Sequence[Sequence[Sequence[PeerRun]]],
    exact: bool,
) -> BenchRow:
    runs = rounds[0]
    same = [list(ours.ids) == list(theirs.ids) for ours, theirs in zip(runs, own_plain[0], strict=True)]
    tokens, calls = sum(len(run.ids) for run in runs), sum(run.calls for run in runs)
    statistics_of_runs = [run.statistics for run in runs if isinstance(run, _OwnRun)]
    by_source = total(statistics_of_runs).by_source if statistics_of_runs else {}
    timed = [all(run.seconds > 0 for run in of_prompt) for of_prompt in zip(*rounds, strict=True)]
    seconds = _median_seconds(rounds, timed) if any(timed) else None
    ratio = None
    if seconds and (all(same) or not exact):
        ratio = min(_median_seconds(plain, timed) for plain in plains) / seconds
    return BenchRow(
        drafter=name,
        prompts=len(runs),
        tokens=tokens,
        tokens_per_call=tokens / calls if calls else 0.0,
        speed_ratio=ratio,
        tokens_per_second=1 / seconds if seconds else None,
        identical=all(same),
        same=sum(same) / len(same),
        sources={source: accepted / drafted if drafted else 0.0 for source, (drafted, accepted) in by_source.items()},
    )


def _median_seconds(rounds: Sequence[Sequence[PeerRun]], which: Sequence[bool]) -> float:
    """Median over rounds of the time a token of the prompts `which` took."""
    counted = [[run for run, counts in zip(runs, which, strict=True) if counts] for runs in rounds]
    return statistics.median(sum(run.seconds for run in runs) / sum(len(run.ids) for run in runs) for runs in counted)
