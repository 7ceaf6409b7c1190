"""Trajectories on disk: safetensors shards and a manifest that says what they are and that they are whole.

A shard is written beside its place and moved there, then named in the manifest the same way. Whatever interrupts a
collection leaves finished shards, which the next run skips, and at most one file nobody names, which it overwrites.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from jaxspec.train.trajectories import Trajectories

MANIFEST = "manifest.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Description:
    """What all shards of a folder have in common.

    Attributes:
      model: fingerprint of the weights that gave the answers.
      vocabulary: ids.
      block: tokens a block, n.
      blocks: blocks an answer, T.
      sequence: tokens of prompt and answer, L.
      settings: whatever else decided the contents (seed, start, cleaning), as JSON text.
    """

    model: str
    vocabulary: int
    block: int
    blocks: int
    sequence: int
    settings: str = ""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Attributes:
    index: its place in the collection.
    file: name in the folder.
    sha256: of the file.
    examples: answers.
    states: of trajectories, fixed points included.
    dropped: answers that cleaning removed.
    """

    index: int
    file: str
    sha256: str
    examples: int
    states: int
    dropped: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Attributes:
    description: of the collection.
    shards: finished ones, in order of index.
    """

    description: Description
    shards: tuple[Shard, ...] = ()

    @property
    def examples(self) -> int:
        return sum(shard.examples for shard in self.shards)

    def has(self, index: int) -> bool:
        """Whether shard number `index` is finished."""
        return any(shard.index == index for shard in self.shards)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a collection.

    Raises:
      FileNotFoundError: the folder holds none.
      ValueError: it is damaged or of a version this one does not read.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; collect trajectories into this folder first")
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        if raw["format"] != FORMAT:
            raise ValueError(f"its format is {raw['format']}, not {FORMAT}")
        shards = tuple(Shard(**shard) for shard in raw["shards"])
        return Manifest(Description(**raw["description"]), shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not describe trajectories: {error!r}; collect into a new folder") from None


def open_collection(folder: str | Path, description: Description) -> Manifest:
    """The manifest of a folder to collect into: a new one, or that of an earlier run with the same description.

    Shards whose file was removed count as not finished.

    Raises:
      ValueError: the folder holds another collection; nothing is changed.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        folder.mkdir(parents=True, exist_ok=True)
        manifest = Manifest(description)
        _write_manifest(folder, manifest)
        return manifest
    manifest = read_manifest(folder)
    manifest = Manifest(manifest.description, tuple(s for s in manifest.shards if (folder / s.file).exists()))
    for field in dataclasses.fields(Description):
        there, here = getattr(manifest.description, field.name), getattr(description, field.name)
        if there != here:
            raise ValueError(
                f"{folder} holds trajectories with {field.name}={there!r}, not {here!r}; collect into another folder"
            )
    return manifest


def write_shard(
    folder: str | Path, manifest: Manifest, index: int, trajectories: Trajectories, dropped: int = 0
) -> Manifest:
    """Writes shard number `index` and names it in the manifest, which is returned.

    Raises:
      ValueError: the shard is finished already, or the arrays do not fit the description; nothing is written then.
    """
    folder, description = Path(folder), manifest.description
    if manifest.has(index):
        raise ValueError(f"shard {index} of {folder} is finished; it is not overwritten")
    arrays = {name: np.asarray(field) for name, field in trajectories._asdict().items()}
    examples = len(arrays["tokens"])
    for name, (shape, kind) in _layout(description, examples).items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} of shard {index} has shape {arrays[name].shape}, not {shape} of the description")
        arrays[name] = np.ascontiguousarray(arrays[name].astype(kind))
    content = save(arrays)
    shard = Shard(
        index=index,
        file=f"trajectories-{index:05d}.safetensors",
        sha256=hashlib.sha256(content).hexdigest(),
        examples=examples,
        states=int(np.sum(arrays["count"])),
        dropped=dropped,
    )
    _replace(folder / shard.file, content)
    shards = sorted((*manifest.shards, shard), key=lambda shard: shard.index)
    manifest = Manifest(description, tuple(shards))
    _write_manifest(folder, manifest)
    return manifest


def read_shard(folder: str | Path, manifest: Manifest, shard: Shard) -> Trajectories:
    """One shard, checked against its manifest.

    Raises:
      FileNotFoundError: its file is missing.
      ValueError: its bytes are not those that were written.
    """
    path = Path(folder) / shard.file
    again = "remove the file and collect again, which makes this shard anew and keeps the others"
    if path.parent.resolve() != Path(folder).resolve():
        raise ValueError(f"{MANIFEST} names {shard.file}, which lies outside the folder")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; collect again, which makes this shard anew and keeps the others")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != shard.sha256:
        raise ValueError(f"{path} is corrupt: its SHA-256 is {digest[:12]}..., not {shard.sha256[:12]}...; {again}")
    arrays = load(content)
    layout = _layout(manifest.description, shard.examples)
    if {name: (array.shape, array.dtype) for name, array in arrays.items()} != layout:
        raise ValueError(f"{path} does not hold the arrays that {MANIFEST} describes; {again}")
    return Trajectories(
        **{name: array if array.dtype == bool else array.astype(np.int32) for name, array in arrays.items()}
    )


def read_shards(folder: str | Path, vocabulary: int | None = None) -> tuple[Manifest, Trajectories]:
    """All finished shards as one, in order of index.

    Args:
      folder: of the collection.
      vocabulary: ids of the model to train, or None not to check.

    Raises:
      FileNotFoundError: no manifest, or a shard is missing.
      ValueError: a shard is corrupt, there is no example, or the ids are those of another vocabulary.
    """
    manifest = read_manifest(folder)
    if vocabulary is not None and manifest.description.vocabulary != vocabulary:
        raise ValueError(
            f"{folder} holds ids of a vocabulary of {manifest.description.vocabulary}, but the model has {vocabulary}; "
            "collect trajectories with this model"
        )
    if manifest.examples == 0:
        raise ValueError(f"{folder} holds no trajectories; finish the collection, or clean less strictly")
    parts = [read_shard(folder, manifest, shard) for shard in manifest.shards]
    return manifest, concatenate(parts)


def concatenate(parts: Sequence[Trajectories]) -> Trajectories:
    """Several trajectories of one geometry as one."""
    return Trajectories(*(np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(len(parts[0]))))


def write_missing(
    folder: str | Path,
    description: Description,
    shards: int,
    make: Callable[[int], tuple[Trajectories, int]],
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Makes and writes every shard that is not finished.

    Args:
      folder: of the collection.
      description: see `open_collection`.
      shards: how many the collection has.
      make: `index -> (trajectories, dropped)`; must depend on the index alone.
      progress: called as `progress(finished, shards)`.

    Raises:
      ValueError: see `open_collection` and `write_shard`.
    """
    manifest = open_collection(folder, description)
    for index in range(shards):
        if not manifest.has(index):
            manifest = write_shard(folder, manifest, index, *make(index))
        if progress is not None:
            progress(index + 1, shards)
    return manifest


def _layout(description: Description, examples: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every array: ids take two bytes where the vocabulary allows."""
    ids = np.dtype(np.uint16 if description.vocabulary <= 2**16 else np.int32)
    counts, blocks, block = np.dtype(np.int32), description.blocks, description.block
    return {
        "tokens": ((examples, description.sequence), ids),
        "prompt_length": ((examples,), counts),
        "length": ((examples,), counts),
        "states": ((examples, blocks, block + 1, block), ids),
        "count": ((examples, blocks), counts),
        "converged": ((examples, blocks), np.dtype(bool)),
    }


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    content = {"format": FORMAT, **dataclasses.asdict(manifest), "examples": manifest.examples}
    _replace(folder / MANIFEST, (json.dumps(content, indent=2) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    """Puts `content` in place of `path`, which at no time holds a part of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
