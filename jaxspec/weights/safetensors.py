"""Hugging Face folders: `model.safetensors`, or shards with an index, read tensor by tensor.

Headers are checked before a byte of weights is used, so that a file cut short is refused by name.
"""

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_HEADER = 100 * 2**20  # bytes, the limit of the format
GIT_LFS = b"version https://git-lfs"
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


class SafetensorsFolder:
    """The tensors of a folder, by name."""

    def __init__(self, folder: Path, *, text_only: bool = False) -> None:
        """Reads and checks every header.

        Args:
          folder: holds the file or its shards.
          text_only: the model is wrapped with others (vision): keep the text model, under its own names.

        Raises:
          FileNotFoundError: there is no such file, or a shard is missing.
          ValueError: a file is truncated, corrupt, or of a type that is not supported.
        """
        self._entries: dict[str, tuple[Path, np.dtype, tuple[int, ...], int]] = {}
        for path in _files(folder):
            for published, (dtype, shape, start) in _read_header(path).items():
                name = _text_name(published) if text_only else published
                if name is None:
                    continue
                if name in self._entries:
                    raise ValueError(f"{path} repeats tensor {name} of {self._entries[name][0].name}")
                self._entries[name] = (path, dtype, shape, start)

    def names(self) -> Iterable[str]:
        return self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name][2]

    def read(self, name: str) -> np.ndarray:
        """The tensor, mapped from its file."""
        path, dtype, shape, start = self._entries[name]
        if not all(shape):
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", start, shape)


def _files(folder: Path) -> list[Path]:
    single, index = folder / SINGLE, folder / INDEX
    if single.exists():
        return [single]
    if not index.exists():
        raise FileNotFoundError(f"{folder} holds neither {SINGLE} nor {INDEX}")
    try:
        shards = sorted({str(shard) for shard in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not an index of shards: {error!r}") from None
    paths = [folder / shard for shard in shards]
    for path in paths:
        if path.parent.resolve() != folder.resolve():
            raise ValueError(f"{index} names {path.name}, which lies outside the folder")
        if not path.exists():
            raise FileNotFoundError(f"{index} names {path.name}, which is missing; fetch the whole folder")
    return paths


def _read_header(path: Path) -> dict[str, tuple[np.dtype, tuple[int, ...], int]]:
    """Name to (type, shape, first byte in the file)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(GIT_LFS):
            raise ValueError(f"{path} is a git-lfs pointer, not weights; run `git lfs pull`")
        if size < 8:
            raise ValueError(f"{path} is truncated: {size} bytes cannot hold a header")
        (length,) = struct.unpack("<Q", start[:8])
        if length > min(LONGEST_HEADER, size - 8):
            raise ValueError(f"{path} is truncated or corrupt: its header claims {length} bytes of {size}")
        file.seek(8)
        raw = file.read(length)
    found, end = {}, 0
    for name, kind, shape, first, last in _records(path, raw):
        if kind not in DTYPES:
            raise ValueError(f"{path}: tensor {name} has type {kind}, which is not supported")
        dtype = DTYPES[kind]
        if first != end or last - first != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{path} is corrupt: tensor {name} does not fill bytes {first} to {last}")
        found[name] = (dtype, shape, 8 + length + first)
        end = last
    if 8 + length + end != size:
        raise ValueError(f"{path} is truncated or corrupt: {size} bytes instead of {8 + length + end}")
    return found


def _records(path: Path, raw: bytes) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """(name, type, shape, first byte, last byte) of every tensor, in the order of the file."""
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        records = []
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            sizes = (*entry["shape"], first, last)
            if not all(isinstance(size, int) and size >= 0 for size in sizes):
                raise TypeError(f"tensor {name} has sizes {sizes}")
            records.append((name, str(entry["dtype"]), tuple(entry["shape"]), first, last))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is corrupt: its header does not describe tensors ({error})") from None
    return sorted(records, key=lambda record: record[3:])


def _text_name(name: str) -> str | None:
    """The name of a wrapped text model's tensor on its own, or None for tensors of what is wrapped beside it."""
    inner = name.removeprefix("model.")
    if inner.startswith(("vision_tower.", "multi_modal_projector.")):
        return None
    if not inner.startswith("language_model."):
        return name
    inner = inner.removeprefix("language_model.").removeprefix("model.")
    return inner if inner.startswith("lm_head.") else f"model.{inner}"
