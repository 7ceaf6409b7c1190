"""Files of text and of JSON lines, read with errors that name the file and the line."""

import json
from pathlib import Path
from typing import Any, NamedTuple


class Line(NamedTuple):
    """Attributes:
    where: file and line number, for errors.
    text: as it stands in the file.
    entry: what it says.
    """

    where: str
    text: str
    entry: Any


def read_text(path: Path, what: str) -> str:
    """The text of a file.

    Args:
      path: of the file.
      what: kind of file, for errors.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not UTF-8 text, or cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist or is no file; give the path of one")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {path} cannot be read as UTF-8 text: {error}") from None


def read_json_lines(path: Path, what: str) -> list[Line]:
    """The lines of a file that are not blank, in order.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read, or a line is not JSON.
    """
    lines = []
    for number, text in enumerate(read_text(path, what).split("\n"), start=1):
        if not text.strip():
            continue
        where = f"{what} {path}, line {number}"
        try:
            lines.append(Line(where, text, json.loads(text)))
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is not JSON: {error}") from None
    return lines
