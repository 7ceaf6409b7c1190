"""Drafters written as text, for command lines and configurations: `name` or `name:key=value,key=value`."""

import inspect
import typing
from collections.abc import Callable
from typing import Any

from jaxspec import drafters
from jaxspec.decode.types import Drafter

PLAIN = "plain"
SCALARS = (int, float, bool, str)


def parse_drafter(text: str) -> Drafter:
    """The drafter a text names.

    `plain` is plain decoding; every other name is a function of `jaxspec.drafters`, and its keys are those
    parameters that are numbers, strings or booleans. A model named in a text is loaded in the device's own dtype.

    Example:
      >>> parse_drafter("context_ngram:width=4").nodes
      4

    Raises:
      ValueError: an unknown name or key, a value of the wrong type or out of range, a setting without which there is
        no such drafter, or a malformed text.
    """
    name, _, settings = text.strip().partition(":")
    builders = {PLAIN: drafters.autoregressive} | {
        other: getattr(drafters, other) for other in drafters.__all__ if other != "mix"
    }
    if name not in builders:
        raise ValueError(f"unknown drafter {name!r}; known: {', '.join(builders)}")
    types = _settings(builders[name])
    values = {}
    for setting in filter(None, settings.split(",")):
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ValueError(f"drafter {text!r}: {setting!r} is not of the form key=value")
        if key not in types:
            raise ValueError(f"drafter {name!r} has no setting {key!r}; it has: {', '.join(types) or 'none'}")
        if key in values:
            raise ValueError(f"drafter {text!r} sets {key!r} twice")
        values[key] = _convert(name, key, value, types[key])
    for key, parameter in inspect.signature(builders[name]).parameters.items():
        if parameter.default is parameter.empty and key not in values:
            raise ValueError(f"drafter {name!r} needs {key}; write {name}:{key}=VALUE")
    return builders[name](**values)


def _settings(builder: Callable[..., Drafter]) -> dict[str, type]:
    """The scalar parameters of a drafter's function, and their types."""
    hints = typing.get_type_hints(builder)
    types = {}
    for key in inspect.signature(builder).parameters:
        scalars = [kind for kind in _kinds(hints[key]) if kind in SCALARS]
        if scalars:
            types[key] = scalars[0]
    return types


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types a parameter may have, where it is annotated with several, or with the values themselves."""
    if typing.get_origin(hint) is typing.Literal:
        return tuple(type(value) for value in typing.get_args(hint))
    return typing.get_args(hint) or (hint,)


def _convert(name: str, key: str, value: str, kind: type) -> int | float | bool | str:
    """`value` as the parameter's annotated type."""
    try:
        return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        raise ValueError(f"drafter {name!r}: {key}={value} is not of type {kind.__name__}") from None
