"""Texts as token ids, or the ids given in their place, checked."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any


def token_ids(
    text: str | Sequence[int], language_model: Any, what: str, *, special: bool = True, chat: bool = False
) -> list[int]:
    """Token ids of a text, or the ids given instead of one.

    Args:
      text: either.
      language_model: whose vocabulary it is.
      what: it is, in errors.
      special: whether a text begins with the id that begins every text.
      chat: whether a text goes through the model's chat template instead.

    Raises:
      ValueError: a text for a model without tokenizer, or an id outside the vocabulary.
    """
    if isinstance(text, str):
        tokenizer = language_model.tokenizer
        if tokenizer is None:
            raise ValueError(f"{what} is text but {language_model.name} has no tokenizer; pass token ids")
        return list(tokenizer.chat(text) if chat else tokenizer.encode(text, add_special=special))
    vocabulary = language_model.config.vocabulary
    wrong = [i for i in text if not 0 <= i < vocabulary]
    if wrong:
        raise ValueError(
            f"{what} holds id {wrong[0]}, outside the vocabulary of {vocabulary} ids; "
            "was it encoded with another model's tokenizer?"
        )
    return list(text)


def given_ids(ids: Any, what: str) -> tuple[int, ...]:
    """`ids` as integers, from a sequence or an array.

    Args:
      ids: as a user gives them.
      what: they are, in errors.

    Raises:
      ValueError: bytes, whose values would pass for ids; no sequence; or an element that is no integer.
    """
    if isinstance(ids, bytes | bytearray):
        raise ValueError(f"{what} is {ids!r}, neither text nor token ids; decode it, as in text.decode()")
    listed = ids.tolist() if hasattr(ids, "tolist") else ids
    if not isinstance(listed, Iterable):
        raise ValueError(f"{what} is {ids!r}; give a text, or a sequence of token ids")
    found = []
    for value in listed:
        try:
            found.append(operator.index(value))
        except TypeError:
            raise ValueError(f"{what} holds {value!r}, which is no token id; ids are integers") from None
    return tuple(found)
