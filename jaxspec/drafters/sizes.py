"""Sizes of drafters, checked as whole numbers before anything is built: drafters are static arguments of programs."""

from typing import Any

from jaxspec.decode.whole_number import integer


def sizes(drafter: str, **values: Any) -> tuple[int, ...]:
    """The `values` as integers, in their order.

    Args:
      drafter: whose they are, for errors.
      **values: by the names a user knows them by.

    Raises:
      ValueError: one is no integer, or below 1.
    """
    found = tuple(integer(name, value) for name, value in values.items())
    for name, value in zip(values, found, strict=True):
        if value < 1:
            raise ValueError(f"{name}={value} is below 1; {drafter} needs at least one")
    return found
