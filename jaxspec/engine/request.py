"""Requests as a user states them, checked before anything is compiled."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxspec.decode.sampling import SamplingFlags, flags_of, validate
from jaxspec.decode.whole_number import integer
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.token_ids import given_ids

INTEGERS = ("max_new_tokens", "top_k", "seed", "max_draft")  # fields of `Request`; the other settings are numbers


@dataclasses.dataclass(frozen=True)
class Request:
    """One text to continue.

    Attributes:
      ids: prompt token ids.
      max_new_tokens: at most so many are generated.
      temperature, top_k, top_p, min_p, repetition_penalty, seed, max_draft: see `jaxspec.generate`.
    """

    ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    max_draft: int | None = None


def make_requests(
    lm: LanguageModel, prompts: Sequence[str | Sequence[int]], *, chat: bool, **settings: Any
) -> list[Request]:
    """A request for every prompt.

    Args:
      lm: the target.
      prompts: texts or token ids.
      chat: put texts through the chat template.
      **settings: fields of `Request`, one value for all prompts or a sequence with one each.

    Raises:
      ValueError: a prompt or a setting cannot be honoured, or a sequence is not as long as the prompts.
    """
    encoded = encode_prompts(lm, prompts, chat=chat)
    columns = {name: _one_each(name, value, len(encoded)) for name, value in settings.items()}
    requests = []
    for index, ids in enumerate(encoded):
        request = Request(ids, **{name: _setting(name, values[index]) for name, values in columns.items()})
        validate(
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            seed=request.seed,
        )
        if request.max_draft is not None and request.max_draft < 0:
            raise ValueError(f"max_draft={request.max_draft} is negative; use 0 to draft nothing, None for no limit")
        requests.append(request)
    return requests


def _one_each(name: str, value: Any, count: int) -> list[Any]:
    """`value` as a list with one entry for each of `count` prompts."""
    if value is None or isinstance(value, int | float | str):
        return [value] * count
    values = value.tolist() if hasattr(value, "tolist") else list(value)
    if not isinstance(values, list):
        return [values] * count
    if len(values) != count:
        raise ValueError(f"{name} holds {len(values)} values for {count} prompts; give one each, or a single one")
    return values


def _setting(name: str, value: Any) -> Any:
    """One request's value of a setting, as the number it is."""
    if name in INTEGERS:
        return None if name == "max_draft" and value is None else integer(name, value)
    if isinstance(value, str):
        raise ValueError(f"{name}={value!r} is text; give a number")
    try:
        return float(value)
    except TypeError:
        raise ValueError(f"{name}={value!r} is not a number") from None


def flags_of_requests(requests: Sequence[Request], *, banned: bool = False) -> SamplingFlags:
    """What has to be compiled in for these requests, and for bans if there are any."""
    return flags_of(
        temperature=[r.temperature for r in requests],
        top_k=[r.top_k for r in requests],
        top_p=[r.top_p for r in requests],
        min_p=[r.min_p for r in requests],
        repetition_penalty=[r.repetition_penalty for r in requests],
        banned=banned,
    )


def encode_prompts(lm: LanguageModel, prompts: Sequence[str | Sequence[int]], *, chat: bool) -> list[tuple[int, ...]]:
    """Token ids of every prompt.

    Raises:
      ValueError: a prompt is empty, holds what is no id of the vocabulary, or is text and the model has no tokenizer.
    """
    encoded = []
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            ids = _encode_text(lm, prompt, index, chat=chat)
        else:
            ids = given_ids(prompt, f"prompt {index}")
        if not ids:
            raise ValueError(f"prompt {index} is empty; give at least one token to continue from")
        wrong = [i for i in ids if not 0 <= i < lm.config.vocabulary]
        if wrong:
            raise ValueError(
                f"prompt {index} holds id {wrong[0]}, outside the vocabulary of {lm.config.vocabulary} ids; "
                "was it encoded with another model's tokenizer?"
            )
        encoded.append(ids)
    return encoded


def _encode_text(lm: LanguageModel, prompt: str, index: int, *, chat: bool) -> tuple[int, ...]:
    if lm.tokenizer is None:
        raise ValueError(f"prompt {index} is text but {lm.name} has no tokenizer; pass token ids")
    if not prompt and not chat:
        raise ValueError(f"prompt {index} is empty; give at least one character to continue from")
    return tuple(lm.tokenizer.chat(prompt) if chat else lm.tokenizer.encode(prompt))


def check_room(requests: Sequence[Request], capacity: int, what: str) -> None:
    """Checks that every prompt leaves room for at least one token.

    Raises:
      ValueError: one does not, or asks for a negative number of tokens.
    """
    for index, request in enumerate(requests):
        if request.max_new_tokens < 0:
            raise ValueError(f"max_new_tokens={request.max_new_tokens} is negative; use 0 for no new tokens")
        if len(request.ids) >= capacity:
            raise ValueError(
                f"prompt {index} has {len(request.ids)} tokens, and {what} holds {capacity}: no room for an answer; "
                "shorten the prompt or raise the limit"
            )
