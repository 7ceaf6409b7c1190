"""Tables as Markdown and records as JSON, with what they were measured on."""

import datetime
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax


def setting() -> dict[str, str]:
    """Device, versions, date and command of this run."""
    device = jax.devices()[0]
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{device.platform}: {device.device_kind} x {jax.device_count()}",
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "command": shlex.join(["python", *sys.argv]),
    }


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with the keys of the first row as columns; numbers to three figures."""
    if not rows:
        return ""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_report(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Path:
    """Writes `<name>.md` and `<name>.json` into `folder` and returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    where = setting()
    record = {"setting": where, "config": dict(config), "rows": list(rows)}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2, default=str) + "\n")
    facts = "\n".join(f"- {key}: {value}" for key, value in where.items())
    path = folder / f"{name}.md"
    path.write_text(f"# {name}\n\n{facts}\n\n{markdown_table(rows)}")
    return path
