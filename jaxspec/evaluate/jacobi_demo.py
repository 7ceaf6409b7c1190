"""A base model and its consistency-trained copy side by side: tokens a forward pass, answers, speed, a trajectory.

n tokens a block, T iterates.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.text import Text

from jaxspec.decode.types import Drafter
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.initial_tokens import Initial
from jaxspec.drafters.jacobi import Jacobi, jacobi
from jaxspec.engine.generate import generate
from jaxspec.engine.request import encode_prompts
from jaxspec.evaluate.trajectory import record
from jaxspec.evaluate.trajectory_statistics import reached, settled, summary
from jaxspec.models.language_model import LanguageModel
from jaxspec.tasks.task import Task

WRONG, RIGHT, FAST_FORWARDED, STATIONARY = range(4)  # what a token of an iterate is
STYLES = ("dim", "green", "bold green", "bold cyan")
COLOURS = ("0.9", "#9bd49b", "#2e8b57", "#3aa6c8")
PICTURED = 3  # blocks
RECORDED = 64  # prompts at once
LABELS = ("wrong", "right", "fast-forwarded", "stationary")


class JacobiDemoRow(NamedTuple):
    """Attributes:
    name: `base`, `base_jacobi`, `cllm` or `cllm_rolling`.
    prompts: how many.
    tokens_per_forward: prefill apart.
    exact_match: share of right answers.
    speed_ratio: plain decode seconds of the same model over its own, prompt by prompt on one lane.
    identical: whether all ids equal the same model's plain decoding.
    fast_forwarded, stationary: of decoding in blocks, as CLLM counts them, see `trajectory_statistics.summary`: tokens
      an iteration that came right in a row, and tokens a block that stood right behind a wrong one. None otherwise,
      or where the longest prompt leaves no room for a block in the model's context.
    """

    name: str
    prompts: int
    tokens_per_forward: float
    exact_match: float
    speed_ratio: float
    identical: bool
    fast_forwarded: float | None = None
    stationary: float | None = None


def compare(
    base: LanguageModel,
    trained: LanguageModel,
    task: Task,
    *,
    prompts: int = 64,
    seed: int = 0,
    n: int = 16,
    initial: Initial = "repeat",
    max_new_tokens: int = 128,
    rounds: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> list[JacobiDemoRow]:
    """Decodes freshly generated prompts with both models, plainly and by Jacobi iteration.

    Args:
      base, trained: models of the task.
      task: generates prompts and grades answers.
      prompts: how many.
      seed: of their generation.
      n: tokens iterated on at once.
      initial: what a model that has not guessed yet is shown; see `drafters.jacobi`.
      max_new_tokens: of every answer.
      rounds: timed runs; the ratio is of medians.
      advance: called after every prompt of every model.

    Raises:
      ValueError: `prompts` or `rounds` is below 1, or a model has another vocabulary than the task.
    """
    for name, value in (("prompts", prompts), ("rounds", rounds)):
        if value < 1:
            raise ValueError(f"{name}={value} is below 1; there would be nothing to compare")
    wanted = task.tokenizer().vocabulary_size
    for lm in (base, trained):
        if lm.config.vocabulary != wanted:
            raise ValueError(
                f"{lm.name} has {lm.config.vocabulary} ids and the task has {wanted}; take a model that was trained "
                "on the task"
            )
    examples = [task.example(seed, index, "held_out") for index in range(prompts)]
    contenders: list[tuple[LanguageModel, dict[str, Drafter]]] = [
        (base, {"base": autoregressive(), "base_jacobi": jacobi(n, "block", initial)}),
        (
            trained,
            {"": autoregressive(), "cllm": jacobi(n, "block", initial), "cllm_rolling": jacobi(n, "rolling", initial)},
        ),
    ]
    rows = []
    for lm, drafters in contenders:
        rows += _rows(lm, drafters, examples, task, max_new_tokens, rounds, advance)
    return rows


def _rows(
    lm: LanguageModel,
    drafters: dict[str, Drafter],
    examples: Sequence[tuple[str, str]],
    task: Task,
    max_new_tokens: int,
    rounds: int,
    advance: Callable[[], None],
) -> list[JacobiDemoRow]:
    encoded = encode_prompts(lm, [prompt for prompt, _ in examples], chat=False)
    longest_pass = max(drafter.depth for drafter in drafters.values()) + 1
    room = max(max(map(len, encoded)) + max_new_tokens, longest_pass)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "cache": room}
    for drafter in drafters.values():
        generate(lm, encoded[0], drafter=drafter, **settings)
    seconds = {name: [0.0] * rounds for name in drafters}
    outs: dict[str, list[Any]] = {name: [] for name in drafters}
    for ids in encoded:
        for number in range(rounds):
            for name, drafter in drafters.items():
                out = generate(lm, ids, drafter=drafter, **settings)
                seconds[name][number] += out.decode_seconds
                if number == 0:
                    outs[name].append(out)
        advance()
    plain = next(iter(drafters))
    in_blocks = next(
        drafter for drafter in drafters.values() if isinstance(drafter, Jacobi) and drafter.mode == "block"
    )
    counts = _counts(lm, encoded, in_blocks, max_new_tokens)
    rows = []
    for name in drafters:
        if not name:
            continue
        mine = outs[name]
        right = [task.grade(answer, out.texts[0]) for (_, answer), out in zip(examples, mine, strict=True)]
        tokens = sum(out.statistics.tokens for out in mine)
        calls = sum(out.statistics.target_calls for out in mine)
        rows.append(
            JacobiDemoRow(
                name=name,
                prompts=len(examples),
                tokens_per_forward=tokens / calls,
                exact_match=sum(right) / len(right),
                speed_ratio=statistics.median(seconds[plain]) / statistics.median(seconds[name]),
                identical=all(a.ids == b.ids for a, b in zip(mine, outs[plain], strict=True)),
                **(counts if drafters[name] is in_blocks else {}),
            )
        )
    return rows


def _counts(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], drafter: Jacobi, max_new_tokens: int
) -> dict[str, float]:
    """The two counts of tokens that Jacobi iteration brings beyond one a pass."""
    n = drafter.n
    blocks = min(-(-max_new_tokens // n), (lm.config.context - max(map(len, prompts))) // n)
    if blocks == 0:
        return {}
    recorded = [
        record(lm, prompts[first : first + RECORDED], n, blocks * n, init=drafter.initial)
        for first in range(0, len(prompts), RECORDED)
    ]
    found = summary(
        np.concatenate([part.iterates for part in recorded]), np.concatenate([part.passes for part in recorded])
    )
    counts = {"fast_forwarded": found.fast_forwarded, "stationary": found.stationary}
    return {name: value for name, value in counts.items() if not math.isnan(value)}


def kinds_of(iterates: np.ndarray) -> np.ndarray:
    """(T, n) int what every token of every iterate is, by the definitions of CLLM (arXiv 2403.00835, section 3.3).

    Right from an iterate on for good, a token is stationary while one before it is still wrong; it is fast-forwarded
    in the iterate that brings it right together with others before it, the first of which any pass brings.
    """
    tau, pi = settled(iterates), reached(iterates)
    number = np.arange(len(iterates))[:, None]
    kinds = np.where(number >= tau, RIGHT, WRONG)
    kinds = np.where((number >= tau) & (number < pi), STATIONARY, kinds)
    together = (pi == np.concatenate([[-1], pi[:-1]])) & (pi > 0)
    return np.where((number == pi) & together, FAST_FORWARDED, kinds)


def picture_length(lm: LanguageModel, prompt: str, n: int) -> int:
    """Tokens of the blocks of n, three at most, that fit behind a prompt in the model's context."""
    room = lm.config.context - len(encode_prompts(lm, [prompt], chat=False)[0])
    return min(PICTURED, room // n) * n


def picture(
    lm: LanguageModel, prompt: str, n: int, max_new_tokens: int, initial: Initial = "repeat"
) -> list[tuple[list[list[str]], np.ndarray]]:
    """Every block of one answer: the texts of its iterates' tokens, and what each token is (T, n)."""
    recorded = record(lm, prompt, n, max_new_tokens, init=initial)
    blocks = []
    for iterates in recorded.iterates[0][recorded.passes[0] > 0]:
        iterates = iterates[: np.argmax(np.all(iterates == iterates[-1], axis=1)) + 1]  # it repeats from there on
        shown = [[lm.tokenizer.decode([int(index)]) for index in iterate] for iterate in iterates]
        blocks.append((shown, kinds_of(iterates)))
    return blocks


def terminal_picture(blocks: Sequence[tuple[list[list[str]], np.ndarray]]) -> Text:
    """The picture for a terminal, a line an iterate."""
    text = Text()
    for label, style in zip(LABELS, STYLES, strict=True):
        text.append(f"{label}  ", style)
    text.append("\n")
    for number, (iterates, kinds) in enumerate(blocks):
        text.append(f"block {number + 1}\n", "bold")
        for row, (tokens, what) in enumerate(zip(iterates, kinds, strict=True)):
            text.append(f"{row:3d} ", "dim")
            for token, kind in zip(tokens, what, strict=True):
                text.append(token.replace("\n", "\\n"), STYLES[int(kind)])
            text.append("\n")
    return text


def plot_pictures(pictures: Mapping[str, Sequence[tuple[list[list[str]], np.ndarray]]], path: Path) -> None:
    """The same as a plot, one model beside the other: a column a token, a row an iterate.

    Args:
      pictures: what `picture` gave, by the name of the model.
      path: of the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = max(sum(len(kinds) for _, kinds in blocks) for blocks in pictures.values())
    figure = Figure(figsize=(8 * len(pictures), 0.9 + 0.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for part, (name, blocks) in zip(
        figure.subfigures(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True
    ):
        part.suptitle(f"{name}: iterates of one answer", fontsize=9)
        heights = [len(kinds) for _, kinds in blocks]
        spare = rows - sum(heights)  # so that an iterate is as high in every picture
        places = part.subplots(
            len(blocks) + bool(spare), 1, squeeze=False, height_ratios=[*heights, spare] if spare else heights
        )[:, 0]
        for place in places[len(blocks) :]:
            place.set_axis_off()
        for place, (iterates, kinds) in zip(places, blocks, strict=False):
            place.imshow(kinds, cmap=ListedColormap(COLOURS), vmin=0, vmax=len(COLOURS) - 1, aspect="auto")
            for row, tokens in enumerate(iterates):
                for column, token in enumerate(tokens):
                    place.text(column, row, token.strip(), ha="center", va="center", fontsize=6, parse_math=False)
            place.set_xticks([])
            place.set_yticks(range(len(iterates)))
            place.tick_params(labelsize=6)
    figure.legend(
        handles=[Patch(color=colour, label=label) for colour, label in zip(COLOURS, LABELS, strict=True)],
        loc="outside upper center",
        ncols=len(LABELS),
        fontsize=7,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
