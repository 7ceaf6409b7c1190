"""Configs are dataclasses: nothing unknown, nothing of the wrong type."""

import dataclasses
from pathlib import Path

import pytest

from jaxspec.evaluate.config import read_config
from jaxspec.evaluate.report import markdown_table, write_report
from jaxspec.evaluate.timing import interleaved


@dataclasses.dataclass(frozen=True)
class Inner:
    name: str


@dataclasses.dataclass(frozen=True)
class Outer:
    count: int
    share: float = 0.5
    names: tuple[str, ...] = ()
    inner: Inner | None = None


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_a_file_becomes_the_dataclass(tmp_path) -> None:
    assert read_config(write(tmp_path, "count: 3\nshare: 1\nnames: [a, b]\n"), Outer) == Outer(3, 1.0, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 3\ncolour: red\n", "unknown settings colour; known: count, share"),
        ("share: 1\n", "missing settings count"),
        ("count: many\n", "count='many' is not of type int"),
        ("count: true\n", "count=True is not of type int"),
        ("- 1\n", "not a mapping"),
        ("a: [1\n", "is not YAML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(write(tmp_path, text), Outer)


def test_an_absent_file_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing.yaml does not exist"):
        read_config(tmp_path / "nothing.yaml", Outer)


def test_a_report_holds_rows_and_setting(tmp_path) -> None:
    rows = [{"name": "a", "ratio": 1.23456}, {"name": "b", "ratio": 2.0}]
    assert markdown_table(rows) == "| name | ratio |\n|---|---|\n| a | 1.23 |\n| b | 2 |\n"
    text = write_report(tmp_path, "speed", rows, {"model": "m"}).read_text()
    assert text.startswith("# speed") and "- jax: " in text and "| a | 1.23 |" in text
    assert (tmp_path / "speed.json").exists()


def test_variants_are_timed_in_turn() -> None:
    order: list[str] = []
    timings = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, rounds=5)
    assert order == ["a", "b"] * 6 and set(timings) == {"a", "b"}
    with pytest.raises(ValueError, match="rounds=4"):
        interleaved({}, rounds=4)


def test_committed_configs_are_understood(monkeypatch) -> None:
    import importlib

    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(root / "benchmarks")
    checked = []
    for script in sorted((root / "benchmarks").glob("*.py")):
        config = root / "configs" / f"{script.stem}.yaml"
        if not config.exists():
            continue
        module = importlib.import_module(script.stem)
        kind = next(
            value
            for value in vars(module).values()
            if dataclasses.is_dataclass(value) and value.__module__ == script.stem
        )
        read_config(config, kind)
        checked.append(script.stem)
    assert {"decode", "learning_free", "sweep"} <= set(checked)
