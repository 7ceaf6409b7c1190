"""Bytes of arrays, and what a compiled program takes."""

import dataclasses
from typing import Any, NamedTuple

import jax


class ProgramMemory(NamedTuple):
    """Bytes on the device, as the compiler assigned them.

    Attributes:
      temporaries: of one call, free again after it.
      peak: arguments, results and temporaries, donated arguments counted once.
    """

    temporaries: int
    peak: int


def program_memory(lowered: Any) -> ProgramMemory:
    """Compiles a `lowered` program, runs nothing, and reads off what it takes.

    Raises:
      RuntimeError: the compiler of this device does not say.
    """
    memory = lowered.compile().memory_analysis()
    if memory is None:
        raise RuntimeError(f"the compiler of {jax.default_backend()} does not say what memory a program takes")
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return ProgramMemory(memory.temp_size_in_bytes, kept + memory.temp_size_in_bytes)


def bytes_of(tree: Any) -> int:
    """Of all arrays, or shapes in their place."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def in_mebibytes(plan: Any) -> str:
    """The fields of a plan, in words."""
    parts = (f"{field.name} {getattr(plan, field.name) / 2**20:,.0f} MiB" for field in dataclasses.fields(plan))
    return ", ".join(parts).replace("_", " ")
