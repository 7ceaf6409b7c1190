"""Prompts from a file: JSON lines, one `{"prompt": "..."}` each; further keys are ignored."""

from pathlib import Path

from jaxspec.tasks.json_lines import read_json_lines


def read_prompt_file(path: Path) -> list[str]:
    """The prompts of a file, in order; blank lines are skipped.

    Raises:
      ValueError: a line is not such an object, or there is none; the message names file and line.
      OSError: there is no such file.
    """
    prompts = []
    for where, text, entry in read_json_lines(path, "prompt file"):
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
            raise ValueError(f'{where} is not of the form {{"prompt": "..."}}: {text[:60]}')
        prompts.append(entry["prompt"])
    if not prompts:
        raise ValueError(f'prompt file {path} holds no prompts; give one {{"prompt": "..."}} a line')
    return prompts
