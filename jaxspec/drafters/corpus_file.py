"""Files of texts that drafts are copied from."""

from pathlib import Path
from typing import Any

from jaxspec.models.token_ids import token_ids
from jaxspec.tasks.json_lines import read_json_lines, read_text

WHAT = "corpus file"


def read_texts(path: Path, language_model: Any) -> list[list[int]]:
    """Token ids of every text of a file.

    A `.jsonl` file holds one text a line: a string, or a list of token ids. Any other is one text.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read as that, is empty, holds ids outside the vocabulary, or texts for a model without
        tokenizer; the message names file and line.
    """
    texts = [token_ids(text, language_model, where, special=False) for where, text in _entries(path)]
    return _not_empty(path, texts)


def check_file(path: Path) -> None:
    """Refuses a file that `read_texts` refuses for every model.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read as texts, or is empty; the message names file and line.
    """
    _not_empty(path, [text for _, text in _entries(path)])


def _not_empty(path: Path, texts: list[Any]) -> list[Any]:
    if not any(texts):
        raise ValueError(f"{WHAT} {path} holds no text; leave the path out or put some in")
    return texts


def _entries(path: Path) -> list[tuple[str, str | list[int]]]:
    """Texts, each with where it stands."""
    if path.suffix != ".jsonl":
        return [(f"{WHAT} {path}", read_text(path, WHAT))]
    entries = []
    for where, text, entry in read_json_lines(path, WHAT):
        if not isinstance(entry, str) and not (isinstance(entry, list) and all(type(i) is int for i in entry)):
            raise ValueError(f"{where} is neither a string nor a list of ids: {text[:60]}")
        entries.append((where, entry))
    return entries
