"""The tokenizer of a Hugging Face folder: `tokenizer.json`, and what the files beside it say of it."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from jaxspec.weights.tokenizer import GENERATION_FILE, SETTINGS_FILE, TOKENIZER_FILE, Tokenizer, begin_with

TEMPLATE_FILE = "chat_template.jinja"
OLD_TEMPLATE_FILE = "chat_template.json"
CONFIG_FILE = "config.json"
BESIDE = (SETTINGS_FILE, TEMPLATE_FILE, OLD_TEMPLATE_FILE, GENERATION_FILE, CONFIG_FILE)


def has_tokenizer(folder: Path) -> bool:
    """Whether `tokenizer_from_folder` would find one."""
    return (folder / TOKENIZER_FILE).exists()


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    Raises:
      FileNotFoundError: there is no `tokenizer.json`.
      ValueError: a file cannot be parsed.
    """
    path = folder / TOKENIZER_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} has no tokenizer: {TOKENIZER_FILE} is missing (beside it, {', '.join(BESIDE)} are read)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path} is not a tokenizer: {error}") from None
    settings, generation, config = (_json(folder / name) for name in (SETTINGS_FILE, GENERATION_FILE, CONFIG_FILE))
    ends = [*_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id"))]
    eos = _special(backend, settings.get("eos_token"), ends)
    bos = _special(backend, settings.get("bos_token"), _ids(config.get("bos_token_id")))
    if "add_bos_token" in settings:
        begin_with(backend, bos if settings["add_bos_token"] else None)
    return Tokenizer(backend, bos_id=bos, eos_id=eos, more_eos_ids=ends, chat_template=_chat_template(folder, settings))


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    if (folder / TEMPLATE_FILE).exists():
        return (folder / TEMPLATE_FILE).read_text()
    template = settings.get("chat_template", _json(folder / OLD_TEMPLATE_FILE).get("chat_template"))
    if isinstance(template, list):  # several, by name
        return next((named["template"] for named in template if named["name"] == "default"), None)
    return template


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path} is not JSON; fetch it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object; fetch it again")
    return content


def _ids(value: Any) -> list[int]:
    """An id, several, or none."""
    return [value] if isinstance(value, int) else list(value or [])


def _special(backend: tokenizers.Tokenizer, token: Any, otherwise: list[int]) -> int | None:
    """The id of a special token, published as a text or as a record with its text."""
    name = token.get("content") if isinstance(token, dict) else token
    index = backend.token_to_id(name) if name else None
    return next(iter(otherwise), None) if index is None else index
