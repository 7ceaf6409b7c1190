"""Tokens per call over the two sizes of a drafter, by replay: Figures 3 and 5 to 9 of N-Grammys (arXiv 2411.03786).

One recording of a model serves every point of the grid, so that a sweep costs no more decoding than a single setting.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxspec.decode.types import Drafter
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.ngrammys import ngrammys
from jaxspec.evaluate.pricing import CostTable, seconds_of
from jaxspec.evaluate.recording import Recording
from jaxspec.evaluate.replay import replay
from jaxspec.evaluate.report import markdown_table, write_report
from jaxspec.models.language_model import LanguageModel

PAPER_K = (1, 5, 10, 15, 20)
PAPER_W = (2, 4, 6, 8, 10, 14)


class SweepRow(NamedTuple):
    """One point of the grid.

    Attributes:
      k: rows.
      w: tokens a row.
      nodes: draft nodes of a block.
      tokens_per_call: of the target.
      speed: predicted, as a multiple of plain decoding, drafting not counted; None without a cost table.
      exact: see `jaxspec.evaluate.replay`.
    """

    k: int
    w: int
    nodes: int
    tokens_per_call: float
    speed: float | None
    exact: bool


def sweep(
    recording: Recording,
    lm: LanguageModel,
    rows: Sequence[int] = PAPER_K,
    widths: Sequence[int] = PAPER_W,
    *,
    build: Callable[[int, int], Drafter] = ngrammys,
    lanes: int | None = None,
    costs: CostTable | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SweepRow]:
    """Replays `build(k, w)` for every k of `rows` and w of `widths`.

    Args:
      recording: from `record`.
      lm: the recorded model.
      rows: k.
      widths: w.
      build: gives the drafter of k rows of w tokens.
      lanes: None for every prompt on its own, else all of them as one job, see `jaxspec.evaluate.replay`.
      costs: of passes, up to the widest block and for as many lanes, see `pricing`; with them speed is predicted
        too.
      progress: called with points done and points in all.

    Raises:
      ValueError: an empty grid, a setting that `build` refuses, or what `replay` raises.
    """
    grid = [(k, w) for k in rows for w in widths]
    if not grid:
        raise ValueError(f"rows={tuple(rows)} and widths={tuple(widths)} span no grid; give at least one of each")
    plain = seconds_of(replay(recording, autoregressive(), lanes=lanes), costs) if costs else None
    points = []
    for k, w in grid:
        drafter = build(k, w)
        step_seconds = tuple(costs.at(width) for width in drafter.widths) if costs else None
        replayed = replay(recording, drafter, lm, lanes=lanes, step_seconds=step_seconds)
        speed = plain / seconds_of(replayed, costs) if costs and plain else None
        tokens_per_call = replayed.statistics.tokens_per_call
        points.append(SweepRow(k, w, drafter.nodes, tokens_per_call, speed, replayed.exact))
        progress(len(points), len(grid))
    return points


def table(points: Sequence[SweepRow], value: str = "tokens_per_call") -> str:
    """Markdown, a line for each k and a column for each w, of one field of the points."""
    rows, widths, cells = _grid(points, value)
    return markdown_table([{"k": k} | {f"w={w}": cells[k, w] for w in widths} for k in rows])


def write_sweep(points: Sequence[SweepRow], folder: Path, name: str, config: Mapping[str, Any]) -> Path:
    """Writes `<name>.md`, `<name>.json` and `<name>.png` into `folder`, and returns the first."""
    path = write_report(folder, name, [point._asdict() for point in points], config)
    plot(points, folder / f"{name}.png", str(config.get("title", name)))
    return path


def plot(points: Sequence[SweepRow], path: Path, title: str) -> None:
    """Draws the grid as the paper does: a number in every cell, and speed beside tokens per call where it is known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = {"tokens_per_call": "tokens per call"}
    if all(point.speed is not None for point in points):
        values["speed"] = "predicted speed / plain"
    rows, widths, _ = _grid(points, "nodes")
    figure = Figure(figsize=(len(values) * (1.5 + 0.8 * len(widths)), 1.4 + 0.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (value, label) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        cells = _grid(points, value)[2]
        drawn = [[cells[k, w] for w in widths] for k in rows]
        image = axes.imshow(drawn, cmap="viridis", aspect="auto")
        for line, k in enumerate(rows):
            for column, w in enumerate(widths):
                level = image.norm(cells[k, w])
                colour = "black" if level > 0.6 else "white"
                axes.text(column, line, f"{cells[k, w]:.2f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(widths)), [str(w) for w in widths])
        axes.set_yticks(range(len(rows)), [str(k) for k in rows])
        axes.set_xlabel("w, tokens a row")
        axes.set_ylabel("k, rows")
        axes.set_title(label)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _grid(points: Sequence[SweepRow], value: str) -> tuple[list[int], list[int], dict[tuple[int, int], Any]]:
    """All k and all w, ascending, and the field `value` of every point."""
    cells = {(point.k, point.w): getattr(point, value) for point in points}
    return sorted({point.k for point in points}), sorted({point.w for point in points}), cells
