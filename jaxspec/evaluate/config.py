"""Experiments as data: a YAML file is one frozen dataclass, and an unknown key is an error."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


def read_config(path: str | Path, kind: type[T], raw: Any = None) -> T:
    """The dataclass `kind` that a YAML file describes; lists become tuples.

    Args:
      path: of the file.
      kind: the dataclass.
      raw: the file's content, if it was read and changed before.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no YAML or no mapping, names an unknown key, or lacks one without a default.
    """
    path = Path(path)
    raw = read_yaml(path) if raw is None else raw
    if not isinstance(raw, dict):
        raise ValueError(f"{path} is not a mapping of settings")
    return _build(raw, kind, str(path))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no YAML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist or is no file; give the path of a .yaml, see configs/")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config {path} is not YAML: {error}") from None


def _build(raw: dict[str, Any], kind: type[T], where: str) -> T:
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(raw) - set(fields))
    if unknown:
        raise ValueError(f"{where}: unknown settings {', '.join(unknown)}; known: {', '.join(fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in raw and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: missing settings {', '.join(missing)}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(value, hints[name], f"{where}: {name}") for name, value in raw.items()})


def _value(value: Any, hint: Any, where: str) -> Any:
    """A value of a file as the field of type `hint` wants it."""
    either = typing.get_origin(hint) in (types.UnionType, typing.Union)
    allowed = typing.get_args(hint) if either else (hint,)
    if value is None and types.NoneType in allowed:
        return None
    for kind in allowed:
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            if not isinstance(value, dict):
                raise ValueError(f"{where}={value!r} is not a mapping of settings; give some, or leave it out")
            return _build(value, kind, where)
        if typing.get_origin(kind) is tuple:
            if not isinstance(value, list | tuple):
                raise ValueError(f"{where}={value!r} is not a list; put it into brackets")
            return tuple(_value(item, typing.get_args(kind)[0], where) for item in value)
    plain = tuple(kind for kind in allowed if isinstance(kind, type))
    if float in plain and int not in plain and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if plain and (not isinstance(value, plain) or (isinstance(value, bool) and bool not in plain)):
        names = " or ".join(kind.__name__ for kind in plain if kind is not types.NoneType)
        raise ValueError(f"{where}={value!r} is not of type {names}")
    return value
