"""Pictures of test-time scaling: lanes over time, rates by turn, accuracy against the target's tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxspec.evaluate.a1_report import ScalingRow
from jaxspec.steps.state import Usage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def utilisation(usages: Sequence[Usage], lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Ticks at the end of every slice, and the share of its lane-ticks in which a model worked for the lane."""
    ticks = np.array([0, *(int(usage.ticks) for usage in usages)])
    busy = np.array([0, *(int(usage.busy) for usage in usages)])
    spent = np.diff(ticks) > 0
    return ticks[1:][spent], np.diff(busy)[spent] / (np.diff(ticks)[spent] * lanes)


def plot_utilisation(usages: Mapping[str, Sequence[Usage]], lanes: int, path: Path) -> None:
    """A line a system: busy lanes over ticks."""
    figure, axes = _axes("tick", "share of lanes busy")
    for system, recorded in usages.items():
        axes.step(*utilisation(recorded, lanes), where="pre", label=system)
    axes.set_ylim(0, 1.02)
    _save(figure, axes, path)


def plot_rates(rows: Sequence[ScalingRow], path: Path) -> None:
    """A line a system that decides: the share handed over in every turn, with intervals, and the share wanted."""
    figure, axes = _axes("turn", "share handed to the target")
    for row in rows:
        if row.coverage is None:
            continue
        groups = row.coverage.groups
        rate = np.array([group.rate for group in groups.values()])
        ends = np.array([(group.binomial.low, group.binomial.high) for group in groups.values()]).T
        axes.errorbar(list(groups), rate, yerr=np.abs(ends - rate), capsize=2, label=row.system)
        axes.axhline(row.coverage.reject_rate, color="0.6", linestyle="--")
    axes.set_ylim(0, 1)
    _save(figure, axes, path)


def plot_accuracy(rows: Sequence[ScalingRow], path: Path) -> None:
    """A line a system, a point a sample count: majority-vote accuracy against tokens the target wrote."""
    figure, axes = _axes("tokens the target wrote, a question", "accuracy of the majority vote")
    for system in dict.fromkeys(row.system for row in rows):
        mine = sorted((row for row in rows if row.system == system), key=lambda row: row.samples)
        tokens = [row.target_tokens / row.questions for row in mine]
        axes.plot(tokens, [row.majority for row in mine], marker="o", label=system)
        for x, row in zip(tokens, mine, strict=True):
            axes.annotate(str(row.samples), (x, row.majority), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set_xscale("symlog")
    _save(figure, axes, path)


def _axes(x: str, y: str) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _save(figure: "Figure", axes: "Axes", path: Path) -> None:
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
