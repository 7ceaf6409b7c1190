"""The header of a GGUF file, walked once before a library believes what it says.

The `gguf` library makes objects of every entry, so a length of 2 ** 62 in a file of a few bytes would fill the memory.
"""

import mmap
import struct
from pathlib import Path

STRING, ARRAY = 8, 9  # types of metadata, by the format's numbers
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of the other types
VERSIONS = (2, 3)
MOST_ENTRIES = 2**23  # in all arrays together; a vocabulary of 262,144 with merges and scores has under 2**21
MOST_DIMENSIONS = 4


def check_header(path: Path) -> None:
    """Checks that all counts and lengths of a GGUF file's header fit the file.

    Args:
      path: of a file that begins with `GGUF`.

    Raises:
      ValueError: one does not, or the header holds what no model needs: arrays of arrays, or millions of entries.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _Walk(data).header()


class _Walk:
    """A place in the header, which moves forward and never beyond the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._order = "<"
        self._entries = 0

    def header(self) -> None:
        self._bytes(4)
        version = self._number("I")
        if version & 0xFFFF == 0:  # written for machines of the other byte order
            self._order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in VERSIONS:
            raise ValueError(f"version {version} of the format is not one of {', '.join(map(str, VERSIONS))}")
        tensors, fields = self._number("Q"), self._number("Q")
        for _ in range(fields):
            name = self._string()
            self._value(self._number("I"), name)
        for _ in range(tensors):
            name = self._string()
            dimensions = self._number("I")
            if dimensions > MOST_DIMENSIONS:
                raise ValueError(f"tensor {_shown(name)} has {dimensions} dimensions, more than {MOST_DIMENSIONS}")
            self._bytes(8 * dimensions + 4)  # sizes and type
            offset = self._number("Q")
            if offset > len(self._data):
                raise ValueError(f"tensor {_shown(name)} begins at {offset}, beyond the {len(self._data)} bytes")

    def _value(self, kind: int, name: bytes) -> None:
        if kind == STRING:
            self._string()
        elif kind == ARRAY:
            self._array(name)
        else:
            self._bytes(self._size(kind, name))

    def _array(self, name: bytes) -> None:
        kind, count = self._number("I"), self._number("Q")
        if kind == ARRAY:
            raise ValueError(f"{_shown(name)} is an array of arrays, which no model needs")
        self._entries += min(count, len(self._data))
        if kind != STRING:
            self._bytes(count * self._size(kind, name))
        if self._entries > MOST_ENTRIES:
            raise ValueError(f"arrays up to {_shown(name)} have more than {MOST_ENTRIES} entries, which no model needs")
        if kind == STRING:
            for _ in range(count):
                self._string()

    def _size(self, kind: int, name: bytes) -> int:
        if kind not in SIZES:
            raise ValueError(f"{_shown(name)} is of type {kind}, which the format does not have")
        return SIZES[kind]

    def _string(self) -> bytes:
        return self._bytes(self._number("Q"))

    def _number(self, kind: str) -> int:
        code = self._order + kind
        return struct.unpack(code, self._bytes(struct.calcsize(code)))[0]

    def _bytes(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError(f"{count} bytes at {self._at} end beyond the file's {len(self._data)}")
        self._at += count
        return self._data[self._at - count : self._at]


def _shown(name: bytes) -> str:
    return repr(name[:64].decode(errors="replace"))
