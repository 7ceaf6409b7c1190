"""The `jaxspec` command: pull, generate, demo, bench, tune, train.

Results go to standard output, everything else to standard error. Errors are one line and exit code 2, with
`--debug` a traceback; an interrupt is exit code 130. Either way `generate` prints the prompts that are finished first.
"""

import contextlib
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import jaxspec
from jaxspec.drafters.spec import parse_drafter
from jaxspec.engine.result import Generation, GenerationStatistics, PromptResult, generation_of
from jaxspec.evaluate.bench import BenchRow
from jaxspec.evaluate.bench import bench as bench_drafters
from jaxspec.evaluate.demo_command import demo
from jaxspec.evaluate.report import markdown_table
from jaxspec.evaluate.terminal import progress_bar
from jaxspec.evaluate.train_command import train
from jaxspec.evaluate.tune_command import tune
from jaxspec.models.language_model import LanguageModel
from jaxspec.tasks.prompt_file import read_prompt_file

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_DRAFTER = "best"
STRICT_DRAFTER = "context_ngram"  # --strict needs chains, and the default drafter proposes trees
DIFFERENT, FAILED, INTERRUPTED = 1, 2, 130  # exit codes

app = typer.Typer(
    name="jaxspec",
    help="Lossless speculative decoding of language models in JAX.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(demo, name="demo")
app.command()(tune)
app.command()(train)

Model = Annotated[str, typer.Option("--model", "-m", help="A known name, a folder, a .gguf file or a hub id.")]
DrafterSpec = Annotated[
    str | None,
    typer.Option(
        "--drafter",
        "-d",
        help="plain, or name:key=value,key=value.",
        show_default=f"{DEFAULT_DRAFTER}, or {STRICT_DRAFTER} with --strict",
    ),
]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or auto: by device.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output, nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the traceback.")]


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A known name or a hub id.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch a model into checkpoints/, and print where it lies."""
    with _status(f"pulling {name}"):
        path = jaxspec.pull(name)
    if as_json:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        _print_json({"model": name, "path": str(path), "files": {file.name: file.stat().st_size for file in files}})
    else:
        print(path)


@app.command()
def generate(
    model: Model = DEFAULT_MODEL,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="Text; repeatable.")] = None,
    prompts: Annotated[Path | None, typer.Option(help='JSON lines of {"prompt": "..."}.')] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts into the model's chat template.")] = False,
    drafter: DrafterSpec = None,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens a prompt.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw among the k most probable tokens; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among the most probable of this mass; 1 for all.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Draw among those of this share of the best; 0 for all.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 disfavours ids already said.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; repeatable.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Prompts decoded at once.", show_default="chosen")] = None,
    cache: Annotated[int | None, typer.Option(help="Tokens a lane may hold.", show_default="chosen")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Bit-equal for all chain drafters, in any dtype.")] = False,
    dtype: Dtype = "auto",
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it appears; one prompt.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    r"""Continue prompts given by --prompt, --prompts or standard input.

    In --stop, \n and \t are a new line and a tab, \\ is a backslash. An interrupt, or an error once decoding has begun,
    prints the prompts that are finished; "complete" is false then in the object of --json.
    """
    texts = _read_prompts(prompt, prompts)
    if stream and as_json:
        raise ValueError("--stream prints text as it appears and --json one object at the end; choose one")
    if stream and len(texts) != 1:
        raise ValueError(f"--stream shows one prompt, there are {len(texts)}; leave --stream out")
    drafter = drafter or (STRICT_DRAFTER if strict else DEFAULT_DRAFTER)
    options: dict[str, Any] = {
        "drafter": parse_drafter(drafter),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": [_unescape(text) for text in stop or []],
        "chat": chat,
        "lanes": lanes,
        "cache": cache,
        "strict": strict,
    }
    with _status(f"loading {model}"):
        lm = jaxspec.load(model, dtype=dtype)
    finished: dict[int, PromptResult] = {}
    if stream:
        for piece in jaxspec.stream(lm, texts[0], on_result=finished.__setitem__, **options):
            print(piece, end="", flush=True)
        print()
        _note_failures(finished)
        return
    out = None
    try:
        with progress_bar() as progress:
            task = progress.add_task("decoding", total=len(texts))
            out = jaxspec.generate(
                lm,
                texts,
                progress=lambda done, _: progress.update(task, completed=done),
                on_result=finished.__setitem__,
                **options,
            )
    finally:  # whatever ended it: a long job's answers are worth keeping
        if as_json and (out or finished):
            _print_json(_generation_object(lm, drafter, texts, finished, out))
        elif out or finished:
            _print_generation(len(texts), finished, out)


@app.command()
def bench(
    prompts: Annotated[Path, typer.Option(help='JSON lines of {"prompt": "..."}.')],
    drafter: Annotated[list[str], typer.Option("--drafter", "-d", help="name:key=value,...; repeatable.")],
    model: Model = DEFAULT_MODEL,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts into the model's chat template.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens a prompt.")] = 128,
    rounds: Annotated[int, typer.Option(help="Timed runs of each prompt; medians are shown.")] = 1,
    lanes: Annotated[
        int | None, typer.Option(help="All prompts in one job of so many lanes; by default each on its own.")
    ] = None,
    dtype: Dtype = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare drafters with plain decoding on the prompts of a file.

    The exit code is 1 when ids differ from plain decoding.
    """
    chosen = {name: parse_drafter(name) for name in drafter}
    texts = read_prompt_file(prompts)
    with _status(f"loading {model}"):
        lm = jaxspec.load(model, dtype=dtype)
    with progress_bar() as progress:
        task = progress.add_task("decoding", total=len(texts) * rounds)
        rows = bench_drafters(
            lm,
            texts,
            chosen,
            max_new_tokens=max_new_tokens,
            chat=chat,
            rounds=rounds,
            lanes=lanes,
            advance=lambda: progress.update(task, advance=1),
        )
    if as_json:
        _print_json({"model": lm.name, "rows": [row._asdict() for row in rows]})
    else:
        print(markdown_table([_bench_line(row) for row in rows]), end="")
    if not all(row.identical for row in rows):
        raise typer.Exit(DIFFERENT)


def _bench_line(row: BenchRow) -> dict[str, Any]:
    return {
        "drafter": row.drafter,
        "tokens / call": row.tokens_per_call,
        "speed / plain": "-" if row.speed_ratio is None else row.speed_ratio,
        "identical": "yes" if row.identical else f"{row.same:.0%} of prompts",
        "accepted by source": ", ".join(f"{name} {share:.0%}" for name, share in row.sources.items()) or "-",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # else it reports that PyTorch is missing
    try:
        return typer.main.get_command(app).main(arguments, prog_name="jaxspec", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        else:
            print(f"jaxspec: {_one_line(error)}", file=sys.stderr)
        return FAILED


def _read_prompts(prompts: list[str] | None, file: Path | None) -> list[str]:
    """The prompts of --prompt, of --prompts or of standard input.

    Raises:
      ValueError: there is none, or both options were given.
    """
    if prompts and file:
        raise ValueError("--prompt and --prompts were both given; choose one")
    if prompts:
        return prompts
    if file:
        return read_prompt_file(file)
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("no prompt: give --prompt TEXT, --prompts FILE.jsonl, or pipe text to standard input")
    text = sys.stdin.read().removesuffix("\n")
    if not text:
        raise ValueError("standard input is empty; give --prompt TEXT, --prompts FILE.jsonl, or pipe some text")
    return [text]


def _unescape(text: str) -> str:
    r"""A shell argument in which \n, \t and \\ mean what they do in Python."""
    return re.sub(r"\\([nt\\])", lambda match: {"n": "\n", "t": "\t", "\\": "\\"}[match[1]], text)


def _statistics_object(statistics: GenerationStatistics) -> dict[str, Any]:
    return {
        "tokens": statistics.tokens,
        "target_calls": statistics.target_calls,
        "tokens_per_call": statistics.tokens_per_call,
        "drafted": statistics.drafted,
        "accepted": statistics.accepted,
        "histogram": list(statistics.histogram),
    }


def _generation_object(
    lm: LanguageModel, drafter: str, prompts: list[str], finished: Mapping[int, PromptResult], out: Generation | None
) -> dict[str, Any]:
    """What was finished, in the order of the prompts; `out` is None where that is not all."""
    results = [
        {"index": index, "prompt": prompts[index], "text": result.text, "ids": result.ids, "finish": result.finish}
        | _statistics_object(result.statistics)
        for index, result in sorted(finished.items())
    ]
    summary = out or generation_of(list(finished.values()), 0.0, 0.0)
    return {
        "model": lm.name,
        "drafter": drafter,
        "complete": out is not None,
        "lossless": summary.lossless,
        "results": results,
        "statistics": _statistics_object(summary.statistics),
        "prefill_seconds": out.prefill_seconds if out else None,
        "decode_seconds": out.decode_seconds if out else None,
    }


def _print_generation(count: int, finished: Mapping[int, PromptResult], out: Generation | None) -> None:
    """Texts of what was finished of `count` prompts; `out` is None where that is not all."""
    for index, result in sorted(finished.items()):
        if count > 1:
            print(f"--- prompt {index + 1} of {count} ---")
        print(result.text)
    _note_failures(finished)
    if out is None:
        _note(f"ended early: {len(finished)} of {count} prompts are finished")
        return
    statistics = out.statistics
    _note(
        f"{statistics.tokens} tokens in {statistics.target_calls} calls of the model "
        f"({statistics.tokens_per_call:.2f} a call), {statistics.accepted} of {statistics.drafted} drafted "
        f"accepted; compilation and prefill {out.prefill_seconds:.2f} s, decoding {out.decode_seconds:.2f} s"
    )


def _note_failures(finished: Mapping[int, PromptResult]) -> None:
    for index, result in sorted(finished.items()):
        if result.finish == "numerical":
            _note(f"prompt {index + 1} ended early: the model's logits were not finite")


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _note(text: str) -> None:
    Console(stderr=True, highlight=False).print(Text(text, style="dim"), soft_wrap=True)


def _one_line(error: Exception) -> str:
    """An error's message; with its type where that is not a matter of what the user asked for."""
    of_usage = hasattr(error, "format_message")
    message = " ".join((error.format_message() if of_usage else str(error)).split())  # type: ignore[attr-defined]
    if of_usage:
        return f"{message} (--help shows what is allowed)"
    if isinstance(error, ValueError | OSError) and message:
        return message
    return f"{type(error).__name__}: {message} (--debug shows the traceback)"


def _status(text: str) -> contextlib.AbstractContextManager[Any]:
    """A spinner on standard error while something takes long; silent where that is not a terminal."""
    return Console(stderr=True).status(text)
