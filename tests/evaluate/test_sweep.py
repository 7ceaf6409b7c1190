"""Sweeps: every point is a replay, tables and pictures hold every point."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from toy_model import toy_model

from jaxspec import drafters
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.replay import replay
from jaxspec.evaluate.sweep import PAPER_K, PAPER_W, SweepRow, sweep, table, write_sweep
from jaxspec.evaluate.tune import CostTable


@pytest.fixture(scope="module")
def kept() -> Recording:
    rng = np.random.default_rng(1)
    return record(toy_model(0), [rng.integers(0, 7, 12).tolist() for _ in range(3)], 16, top=0)


def test_every_point_is_a_replay(kept: Recording) -> None:
    lm, seen = toy_model(0), []
    costs = CostTable((0, 12), (1.0, 2.0))
    points = sweep(kept, lm, (1, 3), (2, 4), costs=costs, progress=lambda done, total: seen.append((done, total)))
    assert [(point.k, point.w, point.nodes) for point in points] == [(1, 2, 2), (1, 4, 4), (3, 2, 6), (3, 4, 12)]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    last = replay(kept, drafters.ngrammys(3, 4), lm)
    assert points[3].tokens_per_call == last.statistics.tokens_per_call and points[3].exact
    assert points[3].speed == pytest.approx(last.statistics.tokens_per_call / 2)
    for narrow, wide in ((0, 2), (1, 3)):  # rows are nested in k
        assert points[narrow].tokens_per_call <= points[wide].tokens_per_call


def test_any_drafter_of_two_sizes(kept: Recording) -> None:
    points = sweep(kept, toy_model(0), (1,), (3,), build=lambda k, w: drafters.suffix(width=w, rows=k))
    own = replay(kept, drafters.suffix(width=3)).statistics.tokens_per_call
    assert points == [SweepRow(1, 3, 3, own, None, True)]


def test_an_empty_grid_is_refused(kept: Recording) -> None:
    with pytest.raises(ValueError, match=r"rows=\(\) and widths=\(2,\) span no grid"):
        sweep(kept, toy_model(0), (), (2,))


def points(speed: float | None) -> list[SweepRow]:
    return [SweepRow(k, w, k * w, 1 + k * w / 100, speed, True) for k in PAPER_K for w in PAPER_W]


def test_the_table_has_a_line_for_each_k() -> None:
    lines = table(points(None)).splitlines()
    assert lines[0] == "| k | w=2 | w=4 | w=6 | w=8 | w=10 | w=14 |"
    assert lines[2] == "| 1 | 1.02 | 1.04 | 1.06 | 1.08 | 1.1 | 1.14 |"
    assert len(lines) == 2 + len(PAPER_K)


@pytest.mark.parametrize("speed", [None, 1.5])
def test_a_report_has_numbers_and_a_picture(tmp_path: Path, speed: float | None) -> None:
    path = write_sweep(points(speed), tmp_path / "results", "grid", {"title": "toy", "prompts": 3})
    written = json.loads((tmp_path / "results" / "grid.json").read_text())
    assert path.name == "grid.md" and len(written["rows"]) == 30 and written["config"]["prompts"] == 3
    picture = imread(tmp_path / "results" / "grid.png")
    assert picture.shape[1] > (1500 if speed else 800) and picture.std() > 0.1
