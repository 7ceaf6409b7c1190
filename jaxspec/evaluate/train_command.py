"""`jaxspec train`: a config in, a checkpoint with its card out."""

import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxspec.evaluate.config import read_config, read_yaml
from jaxspec.tasks.question_file import is_question_file
from jaxspec.train.run import LanguageModelConfig, run
from jaxspec.train.run_consistency import ConsistencyConfig, run_consistency
from jaxspec.train.run_step_head import StepHeadConfig, run_step_head

STOPPED = 1  # exit code

KINDS = {
    "language_model": (LanguageModelConfig, run),
    "consistency": (ConsistencyConfig, run_consistency),
    "step_head": (StepHeadConfig, run_step_head),
}


def train(
    config: Annotated[Path, typer.Option(help="A YAML file; see configs/.")],
    folder: Annotated[
        str | None,
        typer.Option(help="Where to write; the finished model is in its model/.", show_default="the config's"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all draws.", show_default="the config's")] = None,
    base: Annotated[
        str | None, typer.Option(help="The model consistency training starts from.", show_default="the config's")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines of questions and answers, for consistency training.", show_default="the config's task"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run in the folder stopped.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object to standard output, nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, show the traceback.")] = False,
) -> None:
    """Train a model as a config says: from scratch, for parallel decoding, or to score steps.

    Progress goes to standard error. Ctrl-C saves a checkpoint first; --resume goes on from it. The exit code is 1
    when a monitor stopped the training; no model is written then.
    """
    settings, go = read_train_config(config, folder, seed, data, base)
    words = ["jaxspec", "train", "--config", str(config)]
    words += [] if folder is None else ["--folder", folder]
    words += [] if seed is None else ["--seed", str(seed)]
    words += [] if base is None else ["--base", base]
    words += [] if data is None else ["--data", data.name]
    report = go(settings, resume=resume, command=shlex.join(words))
    if as_json:
        print(json.dumps(_plain(report), allow_nan=False))
    elif report.stopped is not None:
        print(f"stopped, nothing was written: {report.stopped}")
    else:
        print(f"wrote {report.folder}")
        print((report.folder / "README.md").read_text().split("## Measured")[-1].strip())
    if report.stopped is not None:
        raise typer.Exit(STOPPED)


def read_train_config(
    path: Path,
    folder: str | None = None,
    seed: int | None = None,
    data: Path | None = None,
    base: str | None = None,
) -> tuple[Any, Any]:
    """The config a file describes, by its `kind`, and the function that runs it.

    Args:
      path: of the file.
      folder: to write to, instead of the config's.
      seed: of every draw, instead of the config's.
      data: questions and answers to train on, instead of the config's task.
      base: model to start from, instead of the config's.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no YAML, of an unknown kind or setting, or `data` or `base` is given to a kind that takes
        none, or `base` besides the config's
        `weights`, or `data` is not named as JSON lines.
    """
    raw = read_yaml(path)
    kind = raw.pop("kind", "language_model") if isinstance(raw, dict) else "language_model"
    if kind not in KINDS:
        raise ValueError(f"{path}: kind={kind!r} is not one of {', '.join(KINDS)}")
    if isinstance(raw, dict) and folder is not None:
        raw["folder"] = folder
    for name, value in (("data", data), ("base", base)):
        if value is not None and kind != "consistency":
            raise ValueError(f"--{name}={value} is for kind=consistency, and {path} is of kind={kind}; leave it out")
    if data is not None and not is_question_file(str(data)):
        raise ValueError(f"--data={data} is not the path of JSON lines; give a .jsonl file")
    if isinstance(raw, dict) and data is not None:
        raw["task"] = str(data)
    if isinstance(raw, dict) and base is not None:
        if raw.get("weights") is not None:
            raise ValueError(f"--base={base}: {path} starts from weights={raw['weights']}; take that setting out")
        raw["base"] = base
    form, go = KINDS[kind]
    config = read_config(path, form, raw)
    return config if seed is None else _seeded(config, seed), go


def _seeded(config: Any, seed: int) -> Any:
    """A config with one seed for all that it draws."""
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
    if isinstance(config, ConsistencyConfig) and config.answers == "own":
        config = dataclasses.replace(config, collection=dataclasses.replace(config.collection, seed=seed))
    return config


def _plain(value: Any) -> Any:
    """Records as JSON objects, paths as text, what is no number as nothing."""
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # such as the AUC of examples with one label
    return str(value) if isinstance(value, Path) else value
