"""Drafts copied from a text that the answer is expected to resemble, such as the text that it edits.

Copying from a reference (Yang et al., arXiv 2304.04487), re-aligned after each mismatch: the place in the reference is
where the last tokens said stand, the nearest such to where the text would be had nothing been inserted or left out.
References are data: other texts of like length run the same program.

B lanes, L tokens, R references, T tokens of a reference.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.hashing import prompt_mark
from jaxspec.decode.lanes import choose
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.alignment import BOUNDARY, align, draft_from
from jaxspec.drafters.chain import OneChain
from jaxspec.drafters.sizes import sizes
from jaxspec.models.token_ids import given_ids, token_ids

Text = str | Sequence[int]

ANY_PROMPT = -1  # in place of a prompt's length


class References(NamedTuple):
    """Texts, and which requests they are for.

    Attributes:
      tokens: (R, T) int32, `BOUNDARY` behind each text.
      prompt_mark: (R,) uint32 of the prompt a text is for.
      prompt_length: (R,) int32 of that prompt, or `ANY_PROMPT`.
    """

    tokens: jax.Array
    prompt_mark: jax.Array
    prompt_length: jax.Array


class Alignment(NamedTuple):
    """Where every lane last stood in its reference.

    Attributes:
      row: (B,) int32 reference, -1 for none.
      place: (B,) int32 the token of the reference that was to follow.
      length: (B,) int32 of the lane's text then.
    """

    row: jax.Array
    place: jax.Array
    length: jax.Array


@dataclasses.dataclass(frozen=True)
class ReferenceText(OneChain):
    """One chain of up to `width` tokens.

    Attributes:
      width: tokens proposed.
      query: a match of so many tokens counts wherever it stands.
      reach: tokens from the expected place within which shorter matches count.
      references: texts or token ids.
      prompts: whose they are, one each; None for one text that serves every request.
      chat: whether prompts go through the model's chat template.
    """

    width: int
    query: int
    reach: int
    references: tuple[str | tuple[int, ...], ...] = dataclasses.field(compare=False, repr=False)
    prompts: tuple[str | tuple[int, ...], ...] | None = dataclasses.field(compare=False, repr=False)
    chat: bool = dataclasses.field(compare=False, repr=False)

    sources = ("reference_text",)

    def prepare(self, language_model: Any) -> References:
        """The texts as token ids, in arrays whose sizes are powers of two.

        Raises:
          ValueError: a text for a model without tokenizer, or an id outside the vocabulary.
        """
        texts = [
            token_ids(text, language_model, f"reference {i}", special=False) for i, text in enumerate(self.references)
        ]
        tokens, _ = _pad(texts)
        if self.prompts is None:
            return References(tokens, jnp.zeros((1,), jnp.uint32), jnp.full((1,), ANY_PROMPT, jnp.int32))
        prompts = [
            token_ids(text, language_model, f"prompt {i} of the references", chat=self.chat)
            for i, text in enumerate(self.prompts)
        ]
        ids, prompt_length = _pad(prompts)
        return References(tokens, prompt_mark(ids, prompt_length), prompt_length)

    def init(self, params: References, context: Context) -> Alignment:
        nothing = jnp.zeros_like(context.length)
        return Alignment(nothing - 1, nothing, nothing)

    def admit(self, params: References, state: Alignment, context: Context, fresh: jax.Array) -> Alignment:
        marks = prompt_mark(context.tokens, context.prompt_length)
        same = (params.prompt_mark == marks[:, None]) & (params.prompt_length == context.prompt_length[:, None])
        same |= params.prompt_length == ANY_PROMPT
        row = jnp.where(jnp.any(same, axis=1), jnp.argmax(same, axis=1), -1).astype(jnp.int32)
        start = Alignment(row, jnp.zeros_like(row), context.prompt_length)
        return choose(fresh, start, state)

    def propose(self, params: References, state: Alignment, context: Context) -> tuple[Draft, Alignment]:
        known = state.row >= 0
        reference = params.tokens[jnp.maximum(state.row, 0)]  # (B, T)
        said = context.length - context.prompt_length
        since = context.length - state.length
        following, matched, sure = align(
            reference, context.tokens, context.length, said, state.place, since, self.query, self.reach
        )
        draft = draft_from(reference, following, matched, self.width)
        draft = draft._replace(valid=draft.valid & known[:, None])
        sure &= known & context.live
        place, length = jnp.where(sure, following, state.place), jnp.where(sure, context.length, state.length)
        return draft, Alignment(state.row, place, length)

    def observe(
        self, params: References, state: Alignment, context: Context, draft: Draft, verdict: Verdict
    ) -> Alignment:
        return state


def _pad(texts: Sequence[Sequence[int]]) -> tuple[jax.Array, jax.Array]:
    """(R, T) int32 ids with `BOUNDARY` behind each text, and (R,) int32 lengths; sizes are powers of two."""
    rows = 1 << (len(texts) - 1).bit_length()
    size = max(64, 1 << max(len(text) for text in texts).bit_length())
    tokens, length = np.full((rows, size), BOUNDARY, np.int32), np.zeros((rows,), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
        length[row] = len(text)
    return jnp.asarray(tokens), jnp.asarray(length)


def reference_text(
    references: Text | Sequence[Text] = (),
    prompts: Sequence[Text] | None = None,
    *,
    width: int = 16,
    query: int = 3,
    reach: int = 64,
    chat: bool = False,
) -> ReferenceText:
    """Drafts from a given text, for answers that repeat much of it.

    Args:
      references: a text or its token ids, a list or an array, which serves every request; or, with `prompts`, one for
        each.
      prompts: as passed to `generate`. A request whose prompt is not among them is decoded plainly.
      width: most tokens proposed a step.
      query: tokens of the answer looked for in the whole reference; shorter matches count near the expected place.
      reach: how near, in tokens.
      chat: as passed to `generate`, whether prompts go through the model's chat template.

    Raises:
      ValueError: no or an empty reference, several without `prompts` or not one for each, one prompt twice with
        different references, what is neither text nor ids, or a size that is no integer or out of range.
    """
    width, query = sizes("reference_text", width=width, query=query)
    reach = integer("reach", reach)
    if reach < 0:
        raise ValueError(f"reach={reach} is below 0")
    texts = _as_texts(references, "reference {}")
    if not texts or not all(texts):
        raise ValueError("reference_text needs a text to draft from, and none of its texts may be empty")
    if prompts is None:
        if len(texts) > 1:
            raise ValueError(f"{len(texts)} references and no prompts: say which prompt each is for, or give one")
        return ReferenceText(width, query, reach, texts, None, chat)
    asked = _as_texts(prompts, "prompt {} of the references")
    if len(asked) != len(texts):
        raise ValueError(f"{len(texts)} references for {len(asked)} prompts; give one for each")
    pairs: dict[Any, Any] = {}
    for index, (prompt, text) in enumerate(zip(asked, texts, strict=True)):
        if pairs.setdefault(prompt, text) != text:
            raise ValueError(f"prompt {index} of the references stands there twice, with different references")
    return ReferenceText(width, query, reach, tuple(pairs.values()), tuple(pairs), chat)


def _as_texts(texts: Any, what: str) -> tuple[str | tuple[int, ...], ...]:
    """A tuple of texts and tuples of ids; a single one is a tuple of one. `what` they are, by number, in errors."""
    listed = _as_list(texts)
    parts: list[Any] = [listed]
    if isinstance(listed, Iterable) and not isinstance(listed, str | bytes | bytearray):
        parts = [_as_list(part) for part in listed]
        if parts and not isinstance(parts[0], Iterable):
            parts = [parts]
    return tuple(part if isinstance(part, str) else given_ids(part, what.format(i)) for i, part in enumerate(parts))


def _as_list(value: Any) -> Any:
    """Lists for arrays; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value
