"""Whole numbers a user gives: sizes are static arguments of programs, counts are data."""

import operator
from typing import Any


def integer(name: str, value: Any) -> int:
    """`value` as an integer, of NumPy or JAX too.

    Raises:
      ValueError: it is none; a fraction is not rounded.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r} is not an integer; give a whole number") from None
