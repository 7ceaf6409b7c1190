"""Configs are dataclasses: nothing unknown, nothing of the wrong type."""

import dataclasses
from pathlib import Path

import pytest

from jaxspec.evaluate.config import read_config, read_yaml
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
    outer: Inner = Inner("x")
    highest: float | None = None


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_a_file_becomes_the_dataclass(tmp_path) -> None:
    assert read_config(write(tmp_path, "count: 3\nshare: 1\nnames: [a, b]\n"), Outer) == Outer(3, 1.0, ("a", "b"))


def test_optional_parts_may_be_there(tmp_path) -> None:
    read = read_config(write(tmp_path, "count: 3\nhighest: 1\ninner: {name: a}\n"), Outer)
    assert read == Outer(3, inner=Inner("a"), highest=1.0) and isinstance(read.highest, float)
    assert read_config(write(tmp_path, "count: 3\nhighest:\ninner:\n"), Outer) == Outer(3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 3\ncolour: red\n", "unknown settings colour; known: count, share"),
        ("share: 1\n", "missing settings count"),
        ("count: many\n", "count='many' is not of type int"),
        ("count: true\n", "count=True is not of type int"),
        ("count: 3\nnames: a\n", r"c.yaml: names='a' is not a list; put it into brackets"),
        ("count: 3\nnames:\n", r"c.yaml: names=None is not a list"),
        ("count: 3\nnames: [1]\n", r"c.yaml: names=1 is not of type str"),
        ("count: 3\nouter:\n", r"c.yaml: outer=None is not a mapping of settings; give some, or leave it out"),
        ("count: 3\nouter: 128\n", r"c.yaml: outer=128 is not a mapping of settings"),
        ("count: 3\ninner: a\n", r"c.yaml: inner='a' is not a mapping of settings"),
        ("count: 3\ninner: {name: 1}\n", r"c.yaml: inner: name=1 is not of type str"),
        ("count: 3\nhighest: true\n", r"c.yaml: highest=True is not of type float$"),
        ("count: 3\nshare:\n", r"c.yaml: share=None is not of type float$"),
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
            if dataclasses.is_dataclass(value)
            and value.__module__ == script.stem
            and value.__name__.endswith(("Benchmark", "BestRates"))
        )
        read_config(config, kind)
        checked.append(script.stem)
    assert {"decode", "learning_free", "sweep"} <= set(checked)


def test_every_ablation_is_a_run(monkeypatch) -> None:
    from jaxspec.train.run_consistency import ConsistencyConfig

    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(root / "benchmarks")
    import consistency_ablations

    config = read_config(root / "configs" / "consistency_ablations.yaml", consistency_ablations.AblationBenchmark)
    raw = read_yaml(root / config.base)
    raw.pop("kind")
    whole = consistency_ablations.merged(raw, config.changes)
    runs = {
        name: read_config(name, ConsistencyConfig, consistency_ablations.merged(whole, changes))
        for name, changes in config.variants.items()
    }
    assert runs["own answers, random blocks alone"].states.random_source == "prompt"
    assert runs["own answers, initial blocks alone"].states.kind == "initial"
    assert len({str(dataclasses.asdict(run)) for run in runs.values()}) == len(runs)  # no two are the same
