"""The card of a trained checkpoint: a README.md that says how it was made and how good it was measured to be."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CARD = "README.md"


def write_card(
    folder: str | Path,
    *,
    title: str,
    summary: str,
    command: str,
    config: Any,
    data: str,
    quality: Mapping[str, object],
    usage: str | None = None,
) -> None:
    """Writes the card into a checkpoint's folder.

    Args:
      folder: of the checkpoint.
      title: its name.
      summary: what it is and what it is for, a sentence or two.
      command: that made it.
      config: the dataclass that the command read; printed as YAML.
      data: what it was trained on, and what measured on.
      quality: what was measured, by name.
      usage: Python that uses it as it was measured, or None.
    """
    settings = yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False).strip()
    rows = "\n".join(f"| {name} | {_shown(value)} |" for name, value in quality.items())
    how = "" if usage is None else f"## How it is used\n\n```python\n{usage}\n```\n\n"
    Path(folder, CARD).write_text(
        f"# {title}\n\n{summary}\n\n{how}"
        f"## How it was made\n\n```\n{command}\n```\n\nwith these settings:\n\n```yaml\n{settings}\n```\n\n"
        f"## Data\n\n{data}\n\n"
        f"## Measured\n\n| | |\n|---|---|\n{rows}\n"
    )


def _plain(value: Any) -> Any:
    """With lists for tuples, which YAML would mark as Python's own."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
