"""Files of texts that drafts are copied from."""

import json
from pathlib import Path
from typing import Any

from jaxspec.models.token_ids import token_ids


def read_texts(path: Path, language_model: Any) -> list[list[int]]:
    """Token ids of every text of a file.

    A `.jsonl` file holds one text a line: a string, or a list of token ids. Any other is one text.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read as that, is empty, holds ids outside the vocabulary, or texts for a model without
        tokenizer; the message names file and line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"corpus file {path} does not exist or is no file; give the path of a text or .jsonl")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"corpus file {path} cannot be read as UTF-8 text: {error}") from None
    texts = []
    for number, text in _entries(content, path):
        texts.append(token_ids(text, language_model, f"corpus file {path}, line {number}", special=False))
    if not any(texts):
        raise ValueError(f"corpus file {path} holds no text; leave the path out or put some in")
    return texts


def _entries(content: str, path: Path) -> list[tuple[int, str | list[int]]]:
    """Line numbers and texts."""
    if path.suffix != ".jsonl":
        return [(1, content)]
    entries = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"corpus file {path}, line {number} is not JSON: {error}") from None
        if not isinstance(entry, str) and not (isinstance(entry, list) and all(type(i) is int for i in entry)):
            raise ValueError(f"corpus file {path}, line {number} is neither a string nor a list of ids: {line[:60]}")
        entries.append((number, entry))
    return entries
