"""`jaxspec demo` and its kin: each shows one system at work and checks what it claims."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import jaxspec
from jaxspec.drafters.initial_tokens import Initial
from jaxspec.drafters.spec import parse_drafter
from jaxspec.engine.load import load_pair
from jaxspec.evaluate import a1_demo, a1_plots, arbitrage_demo, demo_report, jacobi_demo
from jaxspec.evaluate import demo as demonstration
from jaxspec.evaluate.a1_report import row_object, table_row
from jaxspec.evaluate.a1_systems import SYSTEMS, Scaling
from jaxspec.evaluate.report import markdown_table
from jaxspec.evaluate.terminal import progress_bar
from jaxspec.tasks.demo_prompts import PROMPTS
from jaxspec.tasks.task import find_task

DIFFERENT = 1  # exit code

demo = typer.Typer(invoke_without_command=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output, nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the traceback.")]
Seed = Annotated[int, typer.Option(help="Of the generated problems.")]


@demo.callback()
def tokens(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", "-m", help="A known name, a folder, a .gguf file or a hub id.")] = (
        "smollm2-135m"
    ),
    drafter: Annotated[str, typer.Option("--drafter", "-d", help="plain, or name:key=value,key=value.")] = "best",
    max_new_tokens: Annotated[int, typer.Option(help="At most so many tokens a prompt.")] = 64,
    rounds: Annotated[int, typer.Option(help="Timed runs of each prompt; medians are shown.")] = 3,
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            help="float32, bfloat16 or auto: by device. In bfloat16 near ties can make ids differ from plain decoding.",
        ),
    ] = "float32",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Decode a dozen prompts plainly and with a drafter, compare the ids, show the speed.

    The commands below show further systems. The exit code is 1 when ids differ from plain decoding.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    started = time.perf_counter()
    chosen = parse_drafter(drafter)
    with Console(stderr=True).status(f"loading {model}"):
        lm = jaxspec.load(model, dtype=dtype)
    screen = Console(highlight=False)
    rows = []
    with progress_bar() as progress:
        task = progress.add_task("compiling", total=len(PROMPTS))
        for row in demonstration.compare(lm, PROMPTS, chosen, drafter, max_new_tokens=max_new_tokens, rounds=rounds):
            rows.append(row)
            progress.update(task, advance=1, description="decoding")
            if not as_json:
                progress.stop()
                demo_report.print_row(row, screen)
                progress.start()
    seconds = time.perf_counter() - started
    if as_json:
        objects = [demo_report.row_object(row) for row in rows]
        _print_json({"rows": objects, "model": lm.name, "seconds": seconds})
    else:
        demo_report.print_summary(rows, lm.name, seconds, screen)
    if not all(row.identical for row in rows):
        raise typer.Exit(DIFFERENT)


@demo.command()
def jacobi(
    base: Annotated[str, typer.Option(help="The model before consistency training.")] = "checkpoints/text-to-sql",
    cllm: Annotated[str, typer.Option(help="The model after it.")] = "checkpoints/text-to-sql-cllm",
    task: Annotated[str, typer.Option(help="What both were trained on.")] = "text_to_sql",
    prompts: Annotated[int, typer.Option(help="Generated from the seed.")] = 64,
    seed: Seed = 0,
    n: Annotated[int, typer.Option(help="Tokens iterated on at once.")] = 16,
    initial: Annotated[Initial, typer.Option(help="What stands where the model has not guessed yet.")] = "repeat",
    rounds: Annotated[int, typer.Option(help="Timed runs of each prompt; medians are shown.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="Draw the pictures of both into this PNG file.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Decode generated prompts with a model before and after consistency training.

    The exit code is 1 when ids differ from the same model's plain decoding.
    """
    what = find_task(task)
    if plot is not None and plot.suffix.lower() != ".png":
        raise ValueError(f"--plot={plot} does not end in .png")
    with Console(stderr=True).status("loading"):
        models = {"base": jaxspec.load(base, dtype="float32"), "cllm": jaxspec.load(cllm, dtype="float32")}
    with _counting("decoding", 2 * prompts) as advance:
        rows = jacobi_demo.compare(
            models["base"],
            models["cllm"],
            what,
            prompts=prompts,
            seed=seed,
            n=n,
            initial=initial,
            rounds=rounds,
            advance=advance,
        )
    example = what.example(seed, 0, "held_out")[0]
    pictures = {}
    for name, lm in models.items() if plot is not None or not as_json else ():
        length = jacobi_demo.picture_length(lm, example, n)
        if length:
            pictures[name] = jacobi_demo.picture(lm, example, n, length, initial)
    if as_json:
        _print_json({"rows": [row._asdict() for row in rows], "task": task, "seed": seed, "n": n, "initial": initial})
    else:
        screen = Console(highlight=False, soft_wrap=True)
        screen.print(f"[bold]prompt[/bold] {example}")
        for name, lm in models.items():
            screen.print(f"\n[bold]{name}[/bold]")
            if name in pictures:
                screen.print(jacobi_demo.terminal_picture(pictures[name]))
            else:
                screen.print(
                    f"no picture: a context of {lm.config.context} has no room for {n} tokens behind this prompt"
                )
        print(markdown_table([row._asdict() for row in rows]), end="")
    if plot is not None and pictures:
        jacobi_demo.plot_pictures(pictures, plot)
    elif plot is not None:
        print(f"{plot} was not drawn: no context has room for {n} tokens behind this prompt", file=sys.stderr)
    if not all(row.identical for row in rows):
        raise typer.Exit(DIFFERENT)


@demo.command()
def a1(
    draft: Annotated[str, typer.Option(help="The model that drafts.")] = "checkpoints/arithmetic-draft",
    target: Annotated[str, typer.Option(help="The model that takes over.")] = "checkpoints/arithmetic-target",
    questions: Annotated[int, typer.Option(help="Generated from the seed.")] = 32,
    samples: Annotated[int, typer.Option(help="Of every question.")] = 16,
    reject_rate: Annotated[float, typer.Option(help="Share of draft chunks to hand to the target.")] = 0.4,
    turns: Annotated[int, typer.Option(help="Draft chunks of a sample.")] = 15,
    chunk: Annotated[int, typer.Option(help="Tokens of a chunk.")] = Scaling.chunk,
    temperature: Annotated[float, typer.Option(help="Of both models.")] = Scaling.temperature,
    lanes: Annotated[int | None, typer.Option(help="Samples at once.", show_default="twice the samples")] = None,
    target_lanes: Annotated[
        int | None, typer.Option(help="Of which the target writes for so many.", show_default="half the lanes")
    ] = None,
    seed: Seed = 0,
    plots: Annotated[Path | None, typer.Option(help="Write pictures into this folder.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer arithmetic questions many times over: A1, its synchronous forerunner, either model alone.

    A1 is shown as published, where the target writes on behind an unlikely chunk, and as a1_resample, where the
    target writes the chunk anew.
    """
    lanes = 2 * samples if lanes is None else lanes
    scaling = Scaling(
        reject_rate=reject_rate,
        samples=samples,
        turns=turns,
        chunk=chunk,
        max_new_tokens=turns * chunk,
        temperature=temperature,
        lanes=lanes,
        target_lanes=max(1, lanes // 2) if target_lanes is None else target_lanes,
        seed=seed,
    )
    with Console(stderr=True).status("loading"):
        pair = load_pair(draft, target, dtype="float32")
    systems = [name for name in SYSTEMS if samples > 1 or name != "synchronous"]  # which ranks a question's samples
    with _counting("sampling", len(systems)) as advance:
        runs = a1_demo.run(
            *pair,
            questions,
            scaling,
            systems=systems,
            slice_ticks=None if plots is None else 16,
            advance=lambda system: advance(),
        )
    rows = [each.row for each in runs.values()]
    if plots is not None:
        a1_plots.plot_utilisation({name: each.usages for name, each in runs.items()}, lanes, plots / "utilisation.png")
        a1_plots.plot_rates(rows, plots / "rates.png")
        a1_plots.plot_accuracy(rows, plots / "accuracy.png")
    if as_json:
        _print_json({"rows": [row_object(row) for row in rows], "task": "arithmetic", "seed": seed})
    else:
        print(markdown_table([table_row(row) for row in rows]), end="")


@demo.command()
def arbitrage(
    draft: Annotated[str, typer.Option(help="The small model.")] = "checkpoints/arithmetic-draft",
    target: Annotated[str, typer.Option(help="The large model.")] = "checkpoints/arithmetic-target",
    reward: Annotated[str, typer.Option(help="The reward model, for RSD.")] = "checkpoints/arithmetic-reward",
    router: Annotated[str, typer.Option(help="The router, for ARBITRAGE.")] = "checkpoints/arithmetic-router",
    problems: Annotated[int, typer.Option(help="Generated from the seed.")] = 100,
    seed: Seed = 0,
    lanes: Annotated[int, typer.Option(help="Problems worked on at once.")] = 8,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Solve generated problems step by step, with a small model, a large one, and policies that choose between them.

    Accuracy against the share of steps the large model writes, and what it costs, for every policy and threshold.
    """
    fresh = arbitrage_demo.fresh_problems(problems, seed)
    with Console(stderr=True).status("loading"):
        models = arbitrage_demo.load_models(draft, target, reward, router)
    total = sum(len(each.thresholds) for each in arbitrage_demo.contending(models))
    with _counting("solving", total) as advance:
        runs = arbitrage_demo.run_demo(models, fresh, seed=seed, lanes=lanes, advance=advance)
    if as_json:
        _print_json({"policies": arbitrage_demo.points_object(runs), "problems": problems, "seed": seed})
        return
    routed = [run for run in runs if run.point.policy == "arbitrage"]
    shown = routed[len(routed) // 2]
    index = arbitrage_demo.most_telling(fresh, shown)
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(arbitrage_demo.picture(fresh[index], shown.solved[index], shown.point.threshold, sign=-1.0))
    print(markdown_table([run.point._asdict() for run in runs]), end="")


def _refuse_options(context: typer.Context) -> None:
    """Options before the name of a subcommand are `demo`'s own, and the subcommand never sees them, but for --debug."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name != "debug" and source is not None and source.name == "COMMANDLINE":
            option, name = max(parameter.opts, key=len), context.invoked_subcommand
            raise ValueError(
                f"{option} stands before {name}, which does not see it; put it behind: demo {name} {option}"
            )


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


@contextlib.contextmanager
def _counting(what: str, total: int) -> Iterator[Any]:
    """A bar on standard error; yields a function that moves it on."""
    with progress_bar() as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.update(task, advance=1)
