"""Prompts from a file: JSON lines, one `{"prompt": "..."}` each; further keys are ignored."""

import json
from pathlib import Path


def read_prompt_file(path: Path) -> list[str]:
    """The prompts of a file, in order; blank lines are skipped.

    Raises:
      ValueError: a line is not such an object, or there is none; the message names file and line.
      OSError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"prompt file {path} does not exist or is no file; give the path of a .jsonl")
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompt file {path} cannot be read as UTF-8 text: {error}") from None
    prompts = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
            raise ValueError(f'{path}, line {number} is not of the form {{"prompt": "..."}}: {line[:60]}')
        prompts.append(entry["prompt"])
    if not prompts:
        raise ValueError(f'{path} holds no prompts; give one {{"prompt": "..."}} a line')
    return prompts
