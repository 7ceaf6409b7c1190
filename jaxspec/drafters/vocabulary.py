"""Whether two models mean the same by an id, told by what the ids stand for and never by how many there are.

Published vocabularies of one family are often padded to different sizes, which is harmless; two vocabularies of
equal size may differ, which is not. Where models share tokens under other ids, drafts may be restricted to the
shared ones (Timor et al., "token-level intersection", arXiv 2502.05202).

V vocabulary of the target.
"""

import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxspec.models.language_model import check_writes

EXAMPLES = 5

Token = bytes | str | None  # the bytes of a text token, the name of a special one, or no token


class Translation(NamedTuple):
    """From the target's ids to a draft model's.

    Attributes:
      draft_id: (V,) int32 what a draft model reads for every id; where it does not know the token, another one
        that ends alike, or 0.
      common: (V,) bool whether the draft model can say the token.
    """

    draft_id: np.ndarray
    common: np.ndarray


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How two vocabularies relate.

    Attributes:
      kind: `identical`; `padded`, the ids both models have a token for agreeing; or `different`.
      common: ids that stand for the same token in both.
      differing: ids that stand for two different tokens.
      examples: some of these, as (id, target's token, draft's token).
    """

    kind: str
    common: int
    differing: int
    examples: tuple[tuple[int, Token, Token], ...] = ()


def tokens_of(tokenizer: Any, vocabulary: int) -> list[Token]:
    """What every one of `vocabulary` ids stands for."""
    special: dict[int, str] = getattr(tokenizer, "special_tokens", {})
    tokens: list[Token] = [special.get(i) or piece or None for i, piece in enumerate(tokenizer.token_bytes())]
    return (tokens + [None] * vocabulary)[:vocabulary]


def compare(target: Sequence[Token], draft: Sequence[Token]) -> Agreement:
    """How the tokens of a target and of a draft model relate, id by id."""
    pairs = list(zip(target, draft, strict=False))
    differing = [(i, t, d) for i, (t, d) in enumerate(pairs) if t is not None and d is not None and t != d]
    common = sum(t == d and t is not None for t, d in pairs)
    if differing:
        return Agreement("different", common, len(differing), tuple(differing[:EXAMPLES]))
    same = len(target) == len(draft) and all(t == d for t, d in pairs)
    return Agreement("identical" if same else "padded", common, 0)


def same_ids(target: Sequence[Token], draft: Sequence[Token]) -> Translation:
    """The translation between vocabularies that agree but for padding."""
    ids = np.arange(len(target), dtype=np.int32)
    known = (list(draft) + [None] * len(target))[: len(target)]
    common = np.array([d is not None and d == t for t, d in zip(target, known, strict=True)], bool)
    return Translation(np.minimum(ids, len(draft) - 1), common)


def shared_tokens(target: Sequence[Token], draft: Sequence[Token]) -> Translation:
    """The translation by token; of several draft ids for one token, the lowest is taken."""
    found: dict[Token, int] = {}
    for index, token in enumerate(draft):
        found.setdefault(token, index)
    found.pop(None, None)
    common = np.array([token in found for token in target], bool)
    draft_id = np.array([_closest(token, found) for token in target], np.int32)
    return Translation(draft_id, common)


def _closest(token: Token, found: dict[Token, int]) -> int:
    """The draft's id of `token`, or of the longest text that ends it, or 0."""
    if token in found:
        return found[token]
    if not isinstance(token, bytes):
        return 0
    return next((found[token[cut:]] for cut in range(1, len(token)) if token[cut:] in found), 0)


def translate(target: Any, draft: Any, *, shared: bool = False) -> Translation | None:
    """The translation from the ids of `target` to those of `draft`, both language models; None if all ids agree.

    Two models of bare ids are told by the number of these, the only thing there is. Two models are compared once.

    Args:
      target, draft: models, of which configuration, tokenizer and name are read.
      shared: let vocabularies differ, and draft in the tokens both know.

    Raises:
      ValueError: the vocabularies differ, the message counts the ids and shows some; only one model has a tokenizer;
        or `draft` is a scoring model.
    """
    check_writes(draft, "draft model")
    sizes = target.config.vocabulary, draft.config.vocabulary
    if target.tokenizer is draft.tokenizer and sizes[0] == sizes[1]:
        return None
    if target.tokenizer is None or draft.tokenizer is None:
        bare = target if target.tokenizer is None else draft
        either = target.tokenizer is not None or draft.tokenizer is not None
        way_out = f", or give {bare.name} the other's with dataclasses.replace if you know that all ids agree"
        raise ValueError(
            f"{target.name} has {sizes[0]} ids and {draft.name} {sizes[1]}, and without both tokenizers nobody can "
            f"tell which agree; load both models with their tokenizers{way_out if either else ''}"
        )
    known = _translations.setdefault(target, weakref.WeakKeyDictionary()).setdefault(draft, {})
    if shared not in known:
        known[shared] = _by_token(target, draft, shared)
    return known[shared]


def _by_token(target: Any, draft: Any, shared: bool) -> Translation | None:
    """`translate` for models that both have a tokenizer."""
    target_tokens = tokens_of(target.tokenizer, target.config.vocabulary)
    draft_tokens = tokens_of(draft.tokenizer, draft.config.vocabulary)
    agreement = compare(target_tokens, draft_tokens)
    if agreement.kind == "identical":
        return None
    if agreement.kind == "padded" and agreement.common:
        return same_ids(target_tokens, draft_tokens)
    examples = ", ".join(f"{i} is {t!r} and {d!r}" for i, t, d in agreement.examples)
    difference = f"{agreement.differing} ids stand for different tokens in {target.name} and {draft.name}: {examples}"
    if not shared:
        raise ValueError(f"{difference}; take a draft model of the target's family, or vocabulary='shared'")
    translation = shared_tokens(target_tokens, draft_tokens)
    if not translation.common.any():
        raise ValueError(f"{difference}; no token is shared, so the one cannot draft for the other")
    return translation


_translations: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # by target, draft and `shared`
