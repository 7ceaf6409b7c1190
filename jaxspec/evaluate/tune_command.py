"""`jaxspec tune`: which drafter is fastest for a model on this machine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import jaxspec
from jaxspec.evaluate.report import markdown_table
from jaxspec.evaluate.tune import BIGRAM_CANDIDATES, CONTEXT_CANDIDATES, TuneReport, TuneRow
from jaxspec.evaluate.tune import tune as tune_drafters
from jaxspec.tasks.demo_prompts import PROMPTS
from jaxspec.tasks.prompt_file import read_prompt_file


def tune(
    model: Annotated[
        str, typer.Option("--model", "-m", help="A known name, a folder, a .gguf file or a hub id.")
    ] = "smollm2-135m",
    prompts: Annotated[
        Path | None, typer.Option(help='JSON lines of {"prompt": "..."}.', show_default="the demo's")
    ] = None,
    drafter: Annotated[
        list[str] | None, typer.Option("--drafter", "-d", help="A candidate; repeatable.", show_default="a grid")
    ] = None,
    bigram: Annotated[
        bool,
        typer.Option(
            "--bigram",
            help="Also those that first read the model's whole vocabulary, once, which takes a while on a CPU. "
            "`best` drafts from what they find, in later runs too.",
        ),
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts into the model's chat template.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens a prompt.")] = 64,
    lanes: Annotated[int | None, typer.Option(help="Prompts decoded at once.", show_default="one alone")] = None,
    confirm: Annotated[int, typer.Option(help="How many of the best to time in real decoding.")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or auto: by device.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object to standard output, nothing else.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, show the traceback.")] = False,
) -> None:
    """Predict the speed of many drafters from one recording, and name the fastest.

    The prompts are decoded once, every candidate is replayed on what the model said, and its passes are priced by
    what they cost on this device.
    """
    if drafter and bigram:
        raise ValueError("--drafter and --bigram were both given; name the candidates yourself, or take the grid")
    candidates = tuple(drafter or (BIGRAM_CANDIDATES if bigram else ()) + CONTEXT_CANDIDATES)
    texts = [prompt.text for prompt in PROMPTS] if prompts is None else read_prompt_file(prompts)
    errors = Console(stderr=True, highlight=False)
    with errors.status(f"loading {model}") as status:
        lm = jaxspec.load(model, dtype=dtype)
        if prompts is None:  # the demo's are messages to a chat model
            chat = bool(getattr(lm.tokenizer, "has_chat_template", False))
        report = tune_drafters(
            lm,
            texts,
            candidates,
            max_new_tokens=max_new_tokens,
            chat=chat,
            lanes=lanes,
            confirm=confirm,
            progress=status.update,
        )
    if as_json:
        print(json.dumps(report_object(report, lm.name), allow_nan=False))
        return
    print(markdown_table([_cost_line(report, nodes) for nodes in report.costs.nodes]))
    print(markdown_table([_line(row) for row in report.rows]))
    print(f"choice: {report.choice}")
    if not all(row.exact for row in report.rows):
        note = (
            "~ learns from rejected drafts, which replay cannot know, or chooses its widths by decoding's own clock: "
            "tokens per call are approximate, usually low; --confirm times the best in real decoding"
        )
        errors.print(Text(note, style="dim"), soft_wrap=True)
    if report.disagreements:
        note = (
            f"{report.disagreements} of {report.tokens} tokens are near ties in this dtype, where the width of a "
            "block decides; float32 predicts more exactly"
        )
        errors.print(Text(note, style="dim"), soft_wrap=True)


def report_object(report: TuneReport, model: str) -> dict[str, Any]:
    """What `--json` prints."""
    nodes, seconds = report.costs
    return {
        "model": model,
        "choice": report.choice,
        "prompts": report.prompts,
        "tokens": report.tokens,
        "disagreements": report.disagreements,
        "costs": [{"nodes": width, "seconds": time} for width, time in zip(nodes, seconds, strict=True)],
        "rows": [row._asdict() for row in report.rows],
    }


def _cost_line(report: TuneReport, nodes: int) -> dict[str, Any]:
    seconds = report.costs.at(nodes)
    return {
        "draft nodes": nodes,
        "ms a pass": 1000 * seconds,
        "of a plain pass": seconds / report.costs.at(0),
    }


def _line(row: TuneRow) -> dict[str, Any]:
    return {
        "drafter": row.drafter,
        "tokens / call": f"{'' if row.exact else '~'}{row.tokens_per_call:.3g}",
        "draft nodes": row.nodes,
        "drafting": f"{row.drafting:.1%}",
        "predicted speed / plain": row.predicted,
        "measured": "-" if row.measured is None else row.measured,
    }
