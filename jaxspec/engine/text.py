"""Text as it arrives: whole characters only, and never a letter that a stop string may yet take back."""

from collections.abc import Sequence
from typing import Protocol

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoding makes of the first bytes of a character


class Decoder(Protocol):
    """The part of a tokenizer that streaming needs."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str: ...


class TextStream:
    """Turns ids into pieces whose concatenation is the decoded text, cut before the first stop string.

    Every piece is decoded together with the tokens before it, because tokenizers treat the start of a text as
    special, and only with those since the last piece but one, so that the cost stays linear. Nothing is certain while
    the last id is a byte of its own: decoders take neighbouring bytes together, and make no character of any where the
    run turns out to be no text.
    """

    def __init__(self, tokenizer: Decoder, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._byte_ids: frozenset[int] = getattr(tokenizer, "byte_ids", frozenset())
        self._ids: list[int] = []
        self._context = 0  # ids from here on are decoded
        self._read = 0  # ids before this one have been turned into text
        self._held = ""
        self._stopped = False

    def push(self, ids: Sequence[int]) -> str:
        """The text that became certain with `ids`; often empty."""
        self._ids.extend(ids)
        text = self._decode_new()
        if not text or text.endswith(UNFINISHED) or self._ids[-1] in self._byte_ids:
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._release(text, last=False)

    def flush(self) -> str:
        """The rest, at the end of the text."""
        text = self._decode_new()
        self._context = self._read = len(self._ids)
        return self._release(text, last=True)

    def _decode_new(self) -> str:
        known = self._tokenizer.decode(self._ids[self._context : self._read])
        return self._tokenizer.decode(self._ids[self._context :])[len(known) :]

    def _release(self, text: str, *, last: bool) -> str:
        if self._stopped:
            return ""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self._stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if last else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that a stop string begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
