"""What a job gives back: texts, ids, why each ended, and what it cost."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxspec.decode.statistics import Statistics


@dataclasses.dataclass(frozen=True)
class GenerationStatistics:
    """Counters of one request, or of several added up.

    Attributes:
      tokens: generated.
      target_calls: passes of the target over blocks, prefill apart.
      prefill_calls: passes over prompts.
      drafted: draft nodes proposed.
      accepted: draft nodes committed.
      histogram: `histogram[j]` target calls that committed exactly j draft nodes.
      by_source: source name to (drafted, accepted).
      per_prompt: the same for every request, in order; empty for a single request.
    """

    tokens: int
    target_calls: int
    prefill_calls: int
    drafted: int
    accepted: int
    histogram: tuple[int, ...]
    by_source: dict[str, tuple[int, int]]
    per_prompt: tuple["GenerationStatistics", ...] = ()

    @property
    def tokens_per_call(self) -> float:
        """Generated tokens a target pass, the target's own token included; 0 when nothing ran."""
        return self.tokens / self.target_calls if self.target_calls else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Share of draft nodes committed; 0 when none was drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def accepted_at_least(self) -> tuple[float, ...]:
        """Share of target calls that committed at least j draft nodes, for j from 1 on."""
        tail = np.cumsum(self.histogram[::-1])[::-1]
        return tuple(float(count) / self.target_calls for count in tail[1:]) if self.target_calls else ()


@dataclasses.dataclass(frozen=True)
class PromptResult:
    """What one prompt of a job gave.

    Attributes:
      text: new text, up to the stop string that ended it; what a stop id stands for is part of it.
      ids: new token ids, including an end-of-sequence or stop id, or the tokens of a stop string.
      finish: why it ended: `eos`, `stop`, `length`, `cache`, or `numerical` where logits were not finite.
      sources: for every id, who said it: `target` or a draft source.
      logprobs: for every id, its log-probability by the target's own logits; None if they were not asked for.
      lossless: whether the text has the law of plain decoding.
      statistics: of this prompt.
    """

    text: str
    ids: list[int]
    finish: str
    sources: list[str]
    logprobs: list[float] | None
    lossless: bool
    statistics: GenerationStatistics


@dataclasses.dataclass(frozen=True)
class Generation:
    """What a job gave: fields of `PromptResult` in the order of the prompts, and what all of it took.

    Attributes:
      texts, ids, finish, sources: one for every prompt.
      logprobs: one list for every prompt; None if they were not asked for.
      lossless: whether all texts have the law of plain decoding; typical acceptance gives it up.
      statistics: totals, and `per_prompt`.
      prefill_seconds: wall time until the first lanes had read their prompts.
      decode_seconds: wall time of the rest.
    """

    texts: list[str]
    ids: list[list[int]]
    finish: list[str]
    sources: list[list[str]]
    logprobs: list[list[float]] | None
    lossless: bool
    statistics: GenerationStatistics
    prefill_seconds: float
    decode_seconds: float


def generation_of(results: Sequence[PromptResult], prefill_seconds: float, decode_seconds: float) -> Generation:
    """The results of a job's prompts, or of those that are finished, as one."""
    logprobs = [result.logprobs for result in results if result.logprobs is not None]
    return Generation(
        texts=[result.text for result in results],
        ids=[result.ids for result in results],
        finish=[result.finish for result in results],
        sources=[result.sources for result in results],
        logprobs=logprobs if len(logprobs) == len(results) else None,
        lossless=all(result.lossless for result in results),
        statistics=total([result.statistics for result in results]),
        prefill_seconds=prefill_seconds,
        decode_seconds=decode_seconds,
    )


def statistics_of(counters: Statistics, tokens: int, sources: Sequence[str]) -> GenerationStatistics:
    """Statistics of one request from its counters (no request axis)."""
    by_source: dict[str, tuple[int, int]] = {}
    for name, drafted, accepted in zip(sources, counters.drafted, counters.accepted, strict=True):
        before = by_source.get(name, (0, 0))  # a mix may hold two drafters of one name
        by_source[name] = (before[0] + int(drafted), before[1] + int(accepted))
    return GenerationStatistics(
        tokens=tokens,
        target_calls=int(counters.target_calls),
        prefill_calls=int(counters.prefill_calls),
        drafted=int(np.sum(counters.drafted)),
        accepted=int(np.sum(counters.accepted)),
        histogram=tuple(int(count) for count in counters.histogram),
        by_source=by_source,
    )


def total(parts: Sequence[GenerationStatistics]) -> GenerationStatistics:
    """All requests together."""
    depth = max((len(part.histogram) for part in parts), default=1)
    histogram = np.zeros((depth,), int)
    by_source: dict[str, tuple[int, int]] = {}
    for part in parts:
        histogram[: len(part.histogram)] += part.histogram
        for name, (drafted, accepted) in part.by_source.items():
            before = by_source.get(name, (0, 0))
            by_source[name] = (before[0] + drafted, before[1] + accepted)
    return GenerationStatistics(
        tokens=sum(part.tokens for part in parts),
        target_calls=sum(part.target_calls for part in parts),
        prefill_calls=sum(part.prefill_calls for part in parts),
        drafted=sum(part.drafted for part in parts),
        accepted=sum(part.accepted for part in parts),
        histogram=tuple(int(count) for count in histogram),
        by_source=by_source,
        per_prompt=tuple(parts),
    )
