"""Drafters side by side on the same prompts, each compared with plain decoding id by id and in time.

Every round decodes every prompt with every drafter in turn, so that a busy machine slows all alike; times are decode
time alone, and a speed ratio is of medians over rounds. A drafter whose ids differ has no speed ratio.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxspec.decode.types import Drafter
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.engine.generate import generate
from jaxspec.engine.request import encode_prompts
from jaxspec.engine.result import Generation, total
from jaxspec.models.language_model import LanguageModel


class BenchRow(NamedTuple):
    """One drafter over all prompts.

    Attributes:
      drafter: its name.
      prompts: how many.
      tokens: generated.
      tokens_per_call: of the target.
      speed_ratio: plain decode seconds over its own; None when its ids differ.
      identical: whether all ids equal plain decoding's.
      sources: share of each source's drafted nodes that were accepted.
    """

    drafter: str
    prompts: int
    tokens: int
    tokens_per_call: float
    speed_ratio: float | None
    identical: bool
    sources: dict[str, float]


def bench(
    lm: LanguageModel,
    prompts: Sequence[str],
    drafters: Mapping[str, Drafter],
    *,
    max_new_tokens: int,
    chat: bool = False,
    rounds: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> list[BenchRow]:
    """One row for each of `drafters`.

    Args:
      lm: the target.
      prompts: at least one.
      drafters: by name.
      max_new_tokens: of every text.
      chat: put prompts into the chat template.
      rounds: timed runs of every prompt with every drafter.
      advance: called after every prompt of every round.

    Raises:
      ValueError: `rounds` or `max_new_tokens` is below 1, or a prompt cannot be decoded.
    """
    for setting, value in (("rounds", rounds), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{setting}={value} is below 1; there would be nothing to compare")
    encoded = encode_prompts(lm, prompts, chat=chat)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "cache": max(map(len, encoded)) + max_new_tokens}
    contenders = {"": autoregressive()} | dict(drafters)  # the empty name: what the others are compared with
    for drafter in contenders.values():
        generate(lm, encoded[0], drafter=drafter, **options)
    outs: dict[str, list[Generation]] = {name: [] for name in contenders}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_index in range(rounds):
        for name in contenders:
            seconds[name].append(0.0)
        for ids in encoded:
            for name, drafter in contenders.items():
                out = generate(lm, ids, drafter=drafter, **options)
                seconds[name][-1] += out.decode_seconds
                if round_index == 0:
                    outs[name].append(out)
            advance()
    plain = statistics.median(seconds[""])
    return [_row(name, outs[name], outs[""], plain / statistics.median(seconds[name])) for name in contenders if name]


def _row(name: str, outs: Sequence[Generation], plain: Sequence[Generation], ratio: float) -> BenchRow:
    identical = all(ours.ids == theirs.ids for ours, theirs in zip(outs, plain, strict=True))
    together = total([out.statistics for out in outs])
    return BenchRow(
        drafter=name,
        prompts=len(outs),
        tokens=together.tokens,
        tokens_per_call=together.tokens_per_call,
        speed_ratio=ratio if identical else None,
        identical=identical,
        sources={
            source: accepted / drafted if drafted else 0.0 for source, (drafted, accepted) in together.by_source.items()
        },
    )
