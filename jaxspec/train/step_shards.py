"""Paired step traces on disk: safetensors shards, and a manifest that says of which pair and whether they are whole.

A shard is made of problems decided by its number alone, written beside its place and moved there, and then named in
the manifest. An interrupted collection goes on with the first shard that is missing.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from jaxspec.engine.score_model import weights_hash
from jaxspec.models.language_model import LanguageModel
from jaxspec.train.step_traces import StepTraces, concatenate

MANIFEST = "manifest.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class TraceDescription:
    """What all shards of a folder have in common.

    Attributes:
      draft, target: hashes of the pair's weights.
      settings: whatever else decided the contents, as JSON text.
    """

    draft: str
    target: str
    settings: str = ""


def describe(draft: LanguageModel, target: LanguageModel, **settings: Any) -> TraceDescription:
    """The description of traces of a pair."""
    return TraceDescription(weights_hash(draft), weights_hash(target), json.dumps(settings, sort_keys=True))


def write_missing(
    folder: str | Path,
    description: TraceDescription,
    shards: int,
    make: Callable[[int], StepTraces],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Makes and writes every shard that is not there.

    Args:
      folder: of the collection.
      description: of it.
      shards: how many it has.
      make: from a shard's number to its traces; depends on the number alone.
      progress: called as `progress(finished, shards)`.

    Raises:
      ValueError: the folder holds another collection, or its manifest is damaged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    if (folder / MANIFEST).exists():
        there, found = _read_manifest(folder)
        for field in dataclasses.fields(TraceDescription):
            theirs, ours = getattr(there, field.name), getattr(description, field.name)
            if theirs != ours:
                raise ValueError(f"{folder} holds traces with {field.name}={theirs!r}, not {ours!r}; take another one")
    for index in range(shards):
        name = f"steps-{index:05d}.safetensors"
        if name not in found or not (folder / name).exists():
            traces = make(index)
            content = save({field: np.ascontiguousarray(array) for field, array in traces._asdict().items()})
            _replace(folder / name, content)
            found[name] = hashlib.sha256(content).hexdigest()
            record = {"format": FORMAT, "description": dataclasses.asdict(description), "shards": found}
            _replace(folder / MANIFEST, (json.dumps(record, indent=2) + "\n").encode())
        if progress is not None:
            progress(index + 1, shards)


def read_traces(folder: str | Path) -> tuple[TraceDescription, StepTraces]:
    """All shards of a folder as one.

    Raises:
      FileNotFoundError: there is no manifest, or a shard is missing.
      ValueError: a file is damaged, or there are no shards.
    """
    folder = Path(folder)
    description, found = _read_manifest(folder)
    parts = []
    for name in sorted(found):
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != found[name]:
            raise ValueError(f"{folder / name} is not what was written; remove it and collect again")
        parts.append(StepTraces(**load(content)))
    if not parts:
        raise ValueError(f"{folder} holds no traces yet; finish the collection")
    return description, concatenate(parts)


def _read_manifest(folder: Path) -> tuple[TraceDescription, dict[str, str]]:
    path = folder / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; collect step traces into this folder first")
    try:
        raw = json.loads(path.read_text())
        if raw["format"] != FORMAT:
            raise ValueError(f"its format is {raw['format']}, not {FORMAT}")
        names = {Path(str(name)).name: str(digest) for name, digest in raw["shards"].items()}
        return TraceDescription(**raw["description"]), names
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not describe step traces: {error!r}; collect into a new folder") from None


def _replace(path: Path, content: bytes) -> None:
    """Puts `content` in place of `path`, which at no time holds a part of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
