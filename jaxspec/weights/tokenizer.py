"""Text to ids and back, and what every id contributes to a text, from a folder or from GGUF metadata."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from jaxspec.weights.chat_template import render_chat

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
)


class Tokenizer:
    """A `tokenizers` tokenizer with what decoding needs to know of it.

    Attributes:
      bos_id: begins a text, if the model has such an id.
      eos_ids: end a text or a turn.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        bos_id: int | None,
        eos_ids: Sequence[int],
        prepend_bos: bool,
        chat_template: str | None,
    ) -> None:
        """`prepend_bos` is for backends whose own post-processing does not add it."""
        self._backend = backend
        self._prepend_bos = prepend_bos and bos_id is not None
        self._chat_template = chat_template
        self.bos_id = bos_id
        ends = [backend.token_to_id(name) for name in TURN_ENDS]
        self.eos_ids = tuple(dict.fromkeys([*eos_ids, *(i for i in ends if i is not None)]))

    @property
    def vocabulary_size(self) -> int:
        """Ids the tokenizer knows; a model's vocabulary may be padded beyond."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def has_chat_template(self) -> bool:
        return self._chat_template is not None

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        """Ids of a text, with the special tokens that begin one if `add_special`."""
        ids = self._backend.encode(text, add_special_tokens=add_special).ids
        if add_special and self._prepend_bos and ids[:1] != [self.bos_id]:
            ids = [self.bos_id, *ids]
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of ids."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def chat(self, messages: str | Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of a conversation up to where the model answers; a bare text is one user turn.

        Raises:
          ValueError: the model has no chat template.
        """
        if self._chat_template is None:
            raise ValueError("the model has no chat template; use chat=False, or a model tuned for conversation")
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        ends = [self._backend.id_to_token(i) for i in self.eos_ids]
        text = render_chat(
            self._chat_template,
            messages,
            bos_token=None if self.bos_id is None else self._backend.id_to_token(self.bos_id),
            eos_token=ends[0] if ends else None,
        )
        return self._backend.encode(text, add_special_tokens=False).ids

    @functools.cache  # noqa: B019 - tokenizers live as long as the program
    def token_bytes(self) -> list[bytes]:
        """For every id, the bytes it adds to a decoded text; none for special tokens and unused ids."""
        decoder = json.loads(self._backend.to_str())["decoder"] or {}
        steps = {step["type"] for step in decoder.get("decoders", [decoder]) if "type" in step}
        piece = _byte_level_piece if "ByteLevel" in steps else _sentence_piece
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        added = self._backend.get_added_tokens_decoder()
        found = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for token, index in vocabulary.items():
            if index not in added:
                found[index] = piece(token)
            elif not added[index].special:
                found[index] = added[index].content.encode()
        return found


def _byte_level_piece(token: str) -> bytes:
    alphabet = _byte_alphabet()
    return bytes(alphabet[letter] for letter in token) if all(c in alphabet for c in token) else token.encode()


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """Letter to byte in byte-level vocabularies: printable bytes stand for themselves, the rest from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _sentence_piece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    Raises:
      FileNotFoundError: there is no `tokenizer.json`.
    """
    path = folder / FILES[0]
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} has no tokenizer: {FILES[0]} is missing (the other files looked at: {', '.join(FILES[1:])})"
        )
    backend = tokenizers.Tokenizer.from_file(str(path))
    settings = _json(folder / "tokenizer_config.json")
    ends: list[int] = []
    for name in ("generation_config.json", "config.json"):
        value = _json(folder / name).get("eos_token_id")
        ends += [value] if isinstance(value, int) else list(value or [])
    named = backend.token_to_id(_content(settings.get("eos_token")))
    if named is not None:
        ends.append(named)
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    beside = folder / "chat_template.jinja"
    if beside.exists():
        template = beside.read_text()
    bos = backend.token_to_id(_content(settings.get("bos_token")))
    if bos is None:
        bos = _json(folder / "config.json").get("bos_token_id")
    return Tokenizer(backend, bos_id=bos, eos_ids=ends, prepend_bos=False, chat_template=template)


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path} is not JSON; fetch it again") from None


def _content(token: Any) -> str:
    """A special token is published as a text or as a record with its text."""
    return (token.get("content") if isinstance(token, dict) else token) or ""


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that GGUF metadata describes.

    Raises:
      ValueError: the metadata describes none.
    """
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

    prefix = "tokenizer.ggml."
    fields = {name.removeprefix(prefix): value for name, value in metadata.items() if name.startswith(prefix)}
    if "model" not in fields or "tokens" not in fields:
        raise ValueError("the GGUF file has no tokenizer: tokenizer.ggml.model or tokenizer.ggml.tokens is missing")
    fields["tokenizer_type"] = fields["model"]
    backend, _ = convert_gguf_tokenizer(metadata["general.architecture"], fields)
    ends = [int(fields[name]) for name in ("eos_token_id", "eot_token_id") if name in fields]
    bos = fields.get("bos_token_id")
    return Tokenizer(
        backend,
        bos_id=None if bos is None else int(bos),
        eos_ids=ends,
        prepend_bos=bool(fields.get("add_bos_token", fields["model"] == "llama")),
        chat_template=metadata.get("tokenizer.chat_template"),
    )
