"""Shards on disk: whole, resumable, and refused by name when they are not what they should be."""

import dataclasses
import json

import numpy as np
import pytest

from jaxspec.train.shards import (
    MANIFEST,
    Description,
    open_collection,
    read_manifest,
    read_shards,
    write_missing,
    write_shard,
)
from jaxspec.train.trajectories import Trajectories

DESCRIPTION = Description(model="abc", vocabulary=100, block=4, blocks=2, sequence=12, settings="{}")


def make(index: int, examples: int = 3, vocabulary: int = 100) -> tuple[Trajectories, int]:
    random = np.random.default_rng(index)
    return (
        Trajectories(
            random.integers(0, vocabulary, (examples, 12), np.int32),
            random.integers(1, 4, examples, np.int32),
            random.integers(4, 12, examples, np.int32),
            random.integers(0, vocabulary, (examples, 2, 5, 4), np.int32),
            random.integers(1, 6, (examples, 2), np.int32),
            random.random((examples, 2)) < 0.5,
        ),
        index,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("vocabulary", [100, 70_000])
def test_what_is_written_is_read(tmp_path, vocabulary):
    description = dataclasses.replace(DESCRIPTION, vocabulary=vocabulary)
    write_missing(tmp_path, description, 3, lambda index: make(index, index + 1, vocabulary))
    manifest, data = read_shards(tmp_path, vocabulary)
    assert manifest.description == description
    assert [shard.examples for shard in manifest.shards] == [1, 2, 3] and manifest.examples == 6
    assert [shard.dropped for shard in manifest.shards] == [0, 1, 2]
    expected = [make(index, index + 1, vocabulary)[0] for index in range(3)]
    for position, field in enumerate(data):
        np.testing.assert_array_equal(field, np.concatenate([part[position] for part in expected]))
        assert field.dtype == (bool if position == 5 else np.int32)
    assert manifest.shards[1].states == int(np.sum(expected[1].count))


def test_an_interrupted_collection_goes_on_to_the_same_bytes(tmp_path):
    write_missing(tmp_path / "whole", DESCRIPTION, 4, make)
    made = []

    def interrupted(index):
        made.append(index)
        if index == 2 and len(made) == 3:
            raise KeyboardInterrupt
        return make(index)

    with pytest.raises(KeyboardInterrupt):
        write_missing(tmp_path / "again", DESCRIPTION, 4, interrupted)
    assert len(read_manifest(tmp_path / "again").shards) == 2
    write_missing(tmp_path / "again", DESCRIPTION, 4, interrupted)
    assert made == [0, 1, 2, 2, 3]
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_a_crash_between_shard_and_manifest_leaves_a_readable_folder(tmp_path, monkeypatch):
    manifest = write_missing(tmp_path, DESCRIPTION, 1, make)
    with monkeypatch.context() as patched:
        patched.setattr("jaxspec.train.shards._write_manifest", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_shard(tmp_path, manifest, 1, *make(1))
    assert read_shards(tmp_path)[0].examples == 3
    assert write_missing(tmp_path, DESCRIPTION, 2, make).examples == 6
    assert sorted(contents(tmp_path)) == [MANIFEST, "trajectories-00000.safetensors", "trajectories-00001.safetensors"]


@pytest.mark.parametrize("damage", [lambda raw: raw[:-3], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])])
def test_a_corrupt_shard_is_named_and_made_anew(tmp_path, damage):
    write_missing(tmp_path, DESCRIPTION, 3, make)
    before = contents(tmp_path)
    path = tmp_path / "trajectories-00001.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="trajectories-00001.safetensors is corrupt.*remove the file and collect"):
        read_shards(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="trajectories-00001.safetensors is missing"):
        read_shards(tmp_path)
    made = []
    write_missing(tmp_path, DESCRIPTION, 3, lambda index: made.append(index) or make(index))
    assert made == [1] and contents(tmp_path) == before


def test_another_vocabulary_is_refused(tmp_path):
    write_missing(tmp_path, DESCRIPTION, 1, make)
    with pytest.raises(ValueError, match="a vocabulary of 100, but the model has 101"):
        read_shards(tmp_path, 101)


@pytest.mark.parametrize("change", [{"model": "def"}, {"block": 5}, {"vocabulary": 99}, {"settings": '{"seed": 1}'}])
def test_another_collection_is_not_overwritten(tmp_path, change):
    write_missing(tmp_path, DESCRIPTION, 1, make)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"holds trajectories with {next(iter(change))}="):
        write_missing(tmp_path, dataclasses.replace(DESCRIPTION, **change), 2, make)
    assert contents(tmp_path) == before


def test_finished_shards_and_wrong_shapes_are_refused(tmp_path):
    manifest = write_missing(tmp_path, DESCRIPTION, 1, make)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="shard 0 of .* is finished"):
        write_shard(tmp_path, manifest, 0, make(0)[0])
    wrong = make(1)[0]._replace(tokens=np.zeros((3, 13), np.int32))
    with pytest.raises(ValueError, match=r"tokens of shard 1 has shape \(3, 13\), not \(3, 12\)"):
        write_shard(tmp_path, manifest, 1, wrong)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "[]", '{"format": 9}', '{"format": 1, "shards": [{"index": 0}]}'])
def test_damaged_manifests_are_named(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    for read in (read_manifest, lambda folder: open_collection(folder, DESCRIPTION)):
        with pytest.raises(ValueError, match=f"{MANIFEST} does not describe trajectories"):
            read(tmp_path)
    assert (tmp_path / MANIFEST).read_text() == text


def test_a_manifest_cannot_name_files_elsewhere(tmp_path):
    folder = tmp_path / "inner"
    write_missing(folder, DESCRIPTION, 1, make)
    raw = json.loads((folder / MANIFEST).read_text())
    raw["shards"][0]["file"] = "../outside.safetensors"
    (folder / MANIFEST).write_text(json.dumps(raw))
    (tmp_path / "outside.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="lies outside the folder"):
        read_shards(folder)


def test_empty_collections_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="collect trajectories into this folder first"):
        read_shards(tmp_path / "nowhere")
    write_missing(tmp_path, DESCRIPTION, 1, lambda index: make(index, 0))
    with pytest.raises(ValueError, match="holds no trajectories"):
        read_shards(tmp_path)
