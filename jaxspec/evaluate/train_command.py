"""`jaxspec train`: a config in, a checkpoint with its card out."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxspec.evaluate.config import read_config, read_yaml
from jaxspec.train.run import LanguageModelConfig, run
from jaxspec.train.run_consistency import ConsistencyConfig, run_consistency
from jaxspec.train.run_step_head import StepHeadConfig, run_step_head

KINDS = {
    "language_model": (LanguageModelConfig, run),
    "consistency": (ConsistencyConfig, run_consistency),
    "step_head": (StepHeadConfig, run_step_head),
}


def train(
    config: Annotated[Path, typer.Option(help="A YAML file; see configs/.")],
    folder: Annotated[str | None, typer.Option(help="Where to write.", show_default="the config's")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything.", show_default="the config's")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run in the folder stopped.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object to standard output, nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, show the traceback.")] = False,
) -> None:
    """Train a model as a config says: a language model from scratch, or one for parallel decoding.

    Progress goes to standard error. Ctrl-C saves a checkpoint first; --resume goes on from it.
    """
    settings, go = read_train_config(config, folder, seed)
    words = ["jaxspec", "train", "--config", str(config)]
    words += [] if folder is None else ["--folder", folder]
    words += [] if seed is None else ["--seed", str(seed)]
    report = go(settings, resume=resume, command=shlex.join(words))
    if as_json:
        print(json.dumps(_plain(report), allow_nan=False))
        return
    if report.stopped is not None:
        print(f"stopped, nothing was written: {report.stopped}")
        raise typer.Exit(1)
    print(f"wrote {report.folder}")
    print((report.folder / "README.md").read_text().split("## Measured")[-1].strip())


def read_train_config(path: Path, folder: str | None = None, seed: int | None = None) -> tuple[Any, Any]:
    """The config a file describes, by its `kind`, and the function that runs it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no YAML, or of an unknown kind or setting.
    """
    raw = read_yaml(path)
    kind = raw.pop("kind", "language_model") if isinstance(raw, dict) else "language_model"
    if kind not in KINDS:
        raise ValueError(f"{path}: kind={kind!r} is not one of {', '.join(KINDS)}")
    if isinstance(raw, dict):
        raw |= {} if folder is None else {"folder": folder}
        if seed is not None:
            raw["training"] = (raw.get("training") or {}) | {"seed": seed}
    form, go = KINDS[kind]
    return read_config(path, form, raw), go


def _plain(value: Any) -> Any:
    """Records as JSON objects, paths as text."""
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
