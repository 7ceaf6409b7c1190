"""Headers of GGUF files that say what cannot be are refused at once, in little memory."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_gguf import write_gguf

from jaxspec.weights.gguf import GGUFFile
from jaxspec.weights.gguf_header import MOST_ENTRIES, check_header

UINT8, UINT32, STRING, ARRAY, UINT64 = 0, 4, 8, 9, 10
HUGE = 2**62


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def header(fields: bytes = b"", tensors: bytes = b"", *, counts: tuple[int, int] | None = None) -> bytes:
    """Of one field and one tensor, where they are given."""
    numbers = (int(bool(tensors)), int(bool(fields))) if counts is None else counts
    return b"GGUF" + struct.pack("<IQQ", 3, *numbers) + fields + tensors


def array(kind: int, count: int, content: bytes = b"") -> bytes:
    return string("x.list") + struct.pack("<IIQ", ARRAY, kind, count) + content


def tensor(dimensions: int, sizes: tuple[int, ...], offset: int) -> bytes:
    return string("w") + struct.pack(f"<I{len(sizes)}QIQ", dimensions, *sizes, 0, offset)


NESTED = struct.pack("<IQ", ARRAY, 1) * 4000
HOSTILE = {
    "many fields": (header(counts=(0, HUGE)), "end beyond the file"),
    "many tensors": (header(counts=(HUGE, 0)), "end beyond the file"),
    "a long name": (header(struct.pack("<Q", HUGE) + b"x" * 40), f"{HUGE} bytes at .* end beyond the file's 72"),
    "a long string": (header(string("k") + struct.pack("<IQ", STRING, HUGE)), f"{HUGE} bytes"),
    "a long array of numbers": (header(array(UINT64, HUGE)), f"{8 * HUGE} bytes"),
    "a long array of strings": (
        header(array(STRING, HUGE, bytes(80))),
        "more than 8388608 entries|end beyond the file",
    ),
    "arrays of arrays": (header(array(ARRAY, 1, NESTED)), "'x.list' is an array of arrays"),
    "an unknown type": (header(string("k") + struct.pack("<I", 77)), "'k' is of type 77"),
    "an array of an unknown type": (header(array(13, 1, bytes(8))), "'x.list' is of type 13"),
    "many dimensions": (header(tensors=tensor(2**31, (1,), 0)), "tensor 'w' has 2147483648 dimensions, more than 4"),
    "a tensor far away": (header(tensors=tensor(1, (1,), HUGE)), f"tensor 'w' begins at {HUGE}, beyond the 57 bytes"),
    "a size that wraps around": (header(tensors=tensor(2, (2**32, 2**32), 0)) + bytes(64), ""),
    "an old version": (b"GGUF" + struct.pack("<III", 1, 0, 0) + bytes(40), "version 1 of the format"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_at_once(tmp_path, name: str) -> None:
    content, said = HOSTILE[name]
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=f"x.gguf is truncated or corrupt.*({said})"):
        GGUFFile(tmp_path / "x.gguf")


def test_entries_that_are_there_but_too_many(tmp_path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(header(array(UINT8, MOST_ENTRIES + 1)))
    with path.open("r+b") as file:
        file.truncate(2 * MOST_ENTRIES)  # sparse: takes no room
    with pytest.raises(ValueError, match=f"more than {MOST_ENTRIES} entries"):
        check_header(path)


def test_every_type_of_the_format_passes(tmp_path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "uint64", "int64", "float64"):
        getattr(writer, f"add_{kind}")(f"a.{kind}", 1)
    writer.add_bool("a.bool", True)
    writer.add_array("a.texts", ["one", "two"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.flags", [True, False])
    writer.add_tensor("w", np.ones((2, 3, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_header(path)
    assert GGUFFile(path).metadata["a.texts"] == ["one", "two"]


def test_files_of_the_other_byte_order_pass(tmp_path) -> None:
    path: Path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_array("a.texts", ["one", "two"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_header(path)


def test_whole_models_pass(tmp_path) -> None:
    check_header(write_gguf(tmp_path / "x.gguf", "llama", {}, {"block_count": 2, "tokenizer.ggml.tokens": ["a", "ж"]}))
