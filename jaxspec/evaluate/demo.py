"""The demonstration: the same prompts decoded plainly and with a drafter, compared id by id and timed.

A speed ratio is the median decode time of plain decoding over that of the drafter, on one prompt, with the
rounds of both interleaved so that a busy machine slows both alike. Compilation and prefill are not in it.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxspec.decode.types import Drafter
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.engine.generate import generate
from jaxspec.engine.request import encode_prompts
from jaxspec.models.language_model import LanguageModel
from jaxspec.tasks.demo_prompts import DemoPrompt, Kind


class Row(NamedTuple):
    """One prompt's comparison.

    Attributes:
      kind, title, prompt: see `DemoPrompt`.
      drafter: as the user named it.
      text: what the model says.
      tokens: generated ids.
      tokens_per_call: of the drafter.
      speed_ratio: plain decode seconds over drafted ones, medians.
      identical: whether every run with the drafter gave the ids of plain decoding.
    """

    kind: Kind
    title: str
    prompt: str
    drafter: str
    text: str
    tokens: int
    tokens_per_call: float
    speed_ratio: float
    identical: bool


class Summary(NamedTuple):
    """Medians over the rows of one kind, or of all; `identical` when every row is."""

    kind: str
    rows: int
    tokens_per_call: float
    speed_ratio: float
    identical: bool


def compare(
    lm: LanguageModel,
    prompts: Sequence[DemoPrompt],
    drafter: Drafter,
    name: str,
    *,
    max_new_tokens: int,
    rounds: int,
) -> Iterator[Row]:
    """Decodes every prompt plainly and with `drafter`, and yields one row a prompt as soon as it is known.

    Args:
      lm: the model; its chat template is used when it has one.
      prompts: at least one.
      drafter: compared with plain decoding.
      name: what rows call it.
      max_new_tokens: of every text.
      rounds: runs of each kind a prompt.

    Raises:
      ValueError: `rounds` or `max_new_tokens` is below 1.
    """
    for setting, value in (("rounds", rounds), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{setting}={value} is below 1; there would be nothing to compare")
    chat = lm.tokenizer is not None and lm.tokenizer.has_chat_template
    encoded = encode_prompts(lm, [prompt.text for prompt in prompts], chat=chat)
    # One cache size for all prompts, so that two programs serve the whole demonstration.
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "cache": max(map(len, encoded)) + max_new_tokens,
    }
    for warm_up in (autoregressive(), drafter):
        generate(lm, encoded[0], drafter=warm_up, **options)
    for prompt, ids in zip(prompts, encoded, strict=True):
        pairs = [
            (
                generate(lm, ids, drafter=autoregressive(), **options),
                generate(lm, ids, drafter=drafter, **options),
            )
            for _ in range(rounds)
        ]
        expected, drafted = pairs[0]
        yield Row(
            kind=prompt.kind,
            title=prompt.title,
            prompt=prompt.text,
            drafter=name,
            text=drafted.texts[0],
            tokens=drafted.statistics.tokens,
            tokens_per_call=drafted.statistics.tokens_per_call,
            speed_ratio=statistics.median(plain.decode_seconds for plain, _ in pairs)
            / statistics.median(other.decode_seconds for _, other in pairs),
            identical=all(run.ids == expected.ids for pair in pairs for run in pair),
        )


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """One line a kind of prompt, in order of appearance, and one for all."""
    kinds = dict.fromkeys(row.kind for row in rows)
    groups = [(kind, [row for row in rows if row.kind == kind]) for kind in kinds]
    return [
        Summary(
            kind,
            len(group),
            statistics.median(row.tokens_per_call for row in group),
            statistics.median(row.speed_ratio for row in group),
            all(row.identical for row in group),
        )
        for kind, group in [*groups, ("all", list(rows))]
    ]
