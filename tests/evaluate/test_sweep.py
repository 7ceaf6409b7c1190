"""Sweeps: every point is a replay, tables and pictures hold every point."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread
from toy_model import toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.evaluate.pricing import CostTable
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.replay import replay
from jaxspec.evaluate.sweep import PAPER_K, PAPER_W, SweepRow, sweep, table, write_sweep


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


class Spy:
    """Counts nothing and remembers how prompts were to be replayed."""

    def __init__(self) -> None:
        self.lanes: list[int | None] = []

    def __call__(self, recording, drafter, lm=None, *, lanes=None, step_seconds=None):
        self.lanes.append(lanes)
        return SimpleNamespace(statistics=SimpleNamespace(tokens_per_call=2.0), passes={0: 5}, exact=True)


def test_every_point_and_plain_decoding_are_one_job_of_so_many_lanes(kept: Recording, monkeypatch) -> None:
    spy = Spy()
    monkeypatch.setattr(importlib.import_module("jaxspec.evaluate.sweep"), "replay", spy)
    (point,) = sweep(kept, toy_model(0), (1,), (3,), lanes=2, costs=CostTable((0, 3), (1.0, 1.0)))
    assert spy.lanes == [2, 2] and point.speed == 1.0


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("sweep")


def written_by(benchmark, monkeypatch, kept: Recording, folder: Path, data: list[Path], settings: str) -> dict:
    """What the benchmark reports of `data` files, whatever they hold, if it records `kept` of them."""
    monkeypatch.setattr(jaxspec, "load", lambda model, dtype: toy_model(0))
    monkeypatch.setattr(benchmark, "record", lambda *_, **__: kept)
    config = folder / "sweep.yaml"
    usual = "model: toy\ndtype: float32\nmax_new_tokens: 12\nprompts: 2\ndrafters: ['corpus:width=3,slots=256']\n"
    config.write_text(usual + settings)
    arguments = [f"--config={config}", f"--results={folder / 'results'}", *(f"--data={file}" for file in data)]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments])
    benchmark.main()
    return json.loads((folder / "results" / "replay_toy.json").read_text())


@pytest.mark.parametrize(
    ("line", "lanes", "said"),
    [
        ("", [None], ["each on its own"]),
        ("lanes: 1\n", [1], ["one job, lanes=1"]),
        ("jobs: true\n", [None, 1], ["each on its own", "one job, lanes=1"]),
        ("lanes: 1\njobs: true\n", [1], ["one job, lanes=1"]),
    ],
)
def test_the_benchmark_says_how_prompts_are_replayed(
    benchmark, kept: Recording, tmp_path: Path, monkeypatch, line: str, lanes: list[int | None], said: list[str]
) -> None:
    spy, data = Spy(), tmp_path / "data.jsonl"
    data.write_text('{"prompt": "abcabc"}\n')
    monkeypatch.setattr(benchmark, "replay", spy)
    written = written_by(benchmark, monkeypatch, kept, tmp_path, [data], f"rows: []\nwidths: []\n{line}")
    assert spy.lanes == lanes and [row["prompts"] for row in written["rows"]] == said
    assert written["config"]["lanes"] == lanes[0]


def test_files_with_the_same_categories_are_told_apart(benchmark, kept, tmp_path: Path, monkeypatch, capsys) -> None:
    one, two, again = (tmp_path / name for name in ("one.jsonl", "two.jsonl", "deep/one.jsonl"))
    one.write_text('{"turns": ["abc"], "category": "a/b"}\n{"turns": ["abc"], "category": "one"}\n')
    two.write_text('{"turns": ["bcd"], "category": "a/b"}\n')
    written = written_by(benchmark, monkeypatch, kept, tmp_path, [one, two], "rows: [1]\nwidths: [2]\n")
    assert [row["data"] for row in written["rows"]] == ["one: a/b", "one", "two: a/b"]
    sweeps = sorted(path.stem for path in (tmp_path / "results").glob("sweep_*.json"))
    assert sweeps == ["sweep_toy_one", "sweep_toy_one_a_b", "sweep_toy_two_a_b"]
    alone = written_by(benchmark, monkeypatch, kept, tmp_path, [two], "rows: []\nwidths: []\n")
    assert [row["data"] for row in alone["rows"]] == ["a/b"]
    with pytest.raises(SystemExit):
        written_by(benchmark, monkeypatch, kept, tmp_path, [one, two, again], "rows: []\nwidths: []\n")
    assert "--data names one more than once" in capsys.readouterr().err


def test_what_replay_does_not_know_is_decoded(benchmark, kept: Recording) -> None:
    drafter = drafters.token_recycling(branches=3, nodes=8, start="empty")
    lm = toy_model(0)
    for lanes in (None, 1):
        found = benchmark.decoded(lm, kept, drafter, 16, lanes)
        assert found["same texts"] == f"{kept.texts} of {kept.texts}" and found["decoded"] > 1
    with_other_answers = dataclasses.replace(kept, tokens=(kept.tokens + 1) % 7)
    assert benchmark.decoded(lm, with_other_answers, drafter, 16, 1)["same texts"] != found["same texts"]


def test_the_benchmark_refuses_no_lanes(benchmark) -> None:
    with pytest.raises(ValueError, match="lanes=0 is below 1; leave it out"):
        benchmark.SweepBenchmark("toy", "float32", 1, 1, (), (), (), lanes=0)


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
