"""Text to ids and back, and what every id contributes to a text.

Built by `tokenizer_from_folder` and `tokenizer_from_gguf`, modules of those origins.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from jaxspec.weights.chat_template import render_chat

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")
TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
GENERATION_FILE = "generation_config.json"


class Tokenizer:
    """A `tokenizers` tokenizer with what decoding needs to know of it.

    Attributes:
      bos_id: begins a text, if the model has such an id.
      eos_id: ends a text, if the model has such an id; the one chat templates speak of.
      eos_ids: every id that ends a text or a turn.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_id: int | None = None,
        eos_id: int | None = None,
        more_eos_ids: Iterable[int] = (),
        chat_template: str | None = None,
    ) -> None:
        """The names in `TURN_ENDS` that the vocabulary knows join `eos_id` and `more_eos_ids`.

        Lengths that `backend` was told to cut or fill texts to, as training wants them, are taken from it.
        """
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._chat_template = chat_template
        self.bos_id = bos_id
        self.eos_id = eos_id
        ends = [eos_id, *more_eos_ids, *map(backend.token_to_id, TURN_ENDS)]
        self.eos_ids = tuple(dict.fromkeys(int(end) for end in ends if end is not None))

    @functools.cached_property
    def vocabulary_size(self) -> int:
        """One more than the largest id the tokenizer knows; a model's vocabulary may be padded beyond."""
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def has_chat_template(self) -> bool:
        return self._chat_template is not None

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        """Ids of a text, with the special tokens that begin one if `add_special`."""
        return self._backend.encode(text, add_special_tokens=add_special).ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of ids."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def chat(self, messages: str | Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of a conversation up to where the model answers; a bare text is one user turn.

        Raises:
          ValueError: the model has no chat template, or it cannot render the messages.
        """
        if self._chat_template is None:
            raise ValueError("the model has no chat template; use chat=False, or a model tuned for conversation")
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        text = render_chat(
            self._chat_template, messages, bos_token=self._name(self.bos_id), eos_token=self._name(self.eos_id)
        )
        return self.encode(text, add_special=False)

    def token_bytes(self) -> list[bytes]:
        """For every id, the bytes it adds to a decoded text; none for special tokens and ids without a token.

        At its start a text may gain less, see `first_token_bytes`.

        Raises:
          ValueError: the tokenizer decodes by a rule that does not work token by token.
        """
        return self._token_bytes

    def first_token_bytes(self) -> list[bytes]:
        """As `token_bytes`, of ids that begin a text: vocabularies that put a space before a text take it off here.

        Raises:
          ValueError: the tokenizer decodes by a rule that does not work token by token.
        """
        return self._first_token_bytes

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        return self._pieces(first=False)

    @functools.cached_property
    def _first_token_bytes(self) -> list[bytes]:
        return self._pieces(first=True)

    def _pieces(self, *, first: bool) -> list[bytes]:
        piece = _piece_rule(json.loads(self._backend.to_str())["decoder"], first=first)
        special = {index for index, token in self._backend.get_added_tokens_decoder().items() if token.special}
        found = [b""] * self.vocabulary_size
        for token, index in self._backend.get_vocab(with_added_tokens=True).items():
            if index not in special:
                found[index] = piece(token)
        return found

    @functools.cached_property
    def byte_ids(self) -> frozenset[int]:
        """Ids of single bytes, which decoding joins with the bytes beside them; none in byte-level vocabularies."""
        decoder = json.loads(self._backend.to_str())["decoder"] or {}
        if "ByteFallback" not in [step["type"] for step in decoder.get("decoders", [decoder]) if step]:
            return frozenset()
        return frozenset(index for token, index in self._backend.get_vocab().items() if _is_byte(token))

    @functools.cached_property
    def special_tokens(self) -> dict[int, str]:
        """Names of the ids that are marks and not text."""
        tokens = self._backend.get_added_tokens_decoder().items()
        return {index: token.content for index, token in tokens if token.special}

    def save(self, folder: str | Path) -> None:
        """Writes the files that `tokenizer_from_folder` reads."""
        folder = Path(folder)
        self._backend.save(str(folder / TOKENIZER_FILE))
        settings = {
            "bos_token": self._name(self.bos_id),
            "eos_token": self._name(self.eos_id),
            "chat_template": self._chat_template,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
        (folder / GENERATION_FILE).write_text(json.dumps({"eos_token_id": list(self.eos_ids)}, indent=2) + "\n")

    def _name(self, index: int | None) -> str | None:
        return None if index is None else self._backend.id_to_token(index)


def begin_with(backend: tokenizers.Tokenizer, bos_id: int | None) -> None:
    """Makes `backend` begin every encoded text with `bos_id`, or with nothing."""
    name = None if bos_id is None else backend.id_to_token(bos_id)
    if name is None:
        backend.post_processor = processors.TemplateProcessing(single="$A")
        return
    backend.post_processor = processors.TemplateProcessing(single=f"{name} $A", special_tokens=[(name, bos_id)])


def _piece_rule(decoder: Mapping[str, Any] | None, *, first: bool) -> Callable[[str], bytes]:
    """From a token's name to its bytes, as `decoder` (its JSON description) has it for the `first` of a text or not."""
    if decoder is None:
        raise ValueError("stop strings need a tokenizer that decodes token by token; this one has no decoder")
    steps: list[Mapping[str, Any]] = decoder.get("decoders", [decoder])
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _byte_level_piece
    replaced: list[tuple[str, str]] = []
    stripped = b""
    for index, step in enumerate(steps):
        kind = step["type"]
        if kind == "Replace" and "String" in step["pattern"]:
            replaced.append((step["pattern"]["String"], step["content"]))
        elif kind == "Metaspace":
            replaced.append((step["replacement"], "" if first and step["prepend_scheme"] != "never" else " "))
        elif kind == "Strip" and "Fuse" in kinds[:index] and step["start"] <= 1:  # of the whole text, not of a token
            stripped = step["content"].encode() * step["start"]
        elif kind not in ("ByteFallback", "Fuse"):
            raise ValueError(f"stop strings need a tokenizer that decodes token by token, not by {kind}")

    def piece(token: str) -> bytes:
        if "ByteFallback" in kinds and _is_byte(token):
            raw = bytes([int(token[3:5], 16)])
        else:
            for old, new in replaced:
                token = token.replace(old, new)
            raw = token.encode()
        return raw.removeprefix(stripped) if first else raw

    return piece


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _byte_level_piece(token: str) -> bytes:
    alphabet = _byte_alphabet()
    return bytes(alphabet[letter] for letter in token) if all(c in alphabet for c in token) else token.encode()


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """Letter to byte in byte-level vocabularies: printable bytes stand for themselves, the rest from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
