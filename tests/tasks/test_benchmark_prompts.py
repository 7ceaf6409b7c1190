"""Rows of every layout become prompts, evenly by kind."""

import json

import pytest

from jaxspec.tasks.benchmark_prompts import read_benchmark


def write(path, rows: list[dict]):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"prompt": "def f():", "task_id": "1"}, False),
        ({"question": "def f():", "answer": "#### 4"}, True),
        ({"problem": "def f():"}, True),
        ({"turns": ["def f():", "more"], "question_id": 3}, True),
    ],
)
def test_layouts(tmp_path, row: dict, asked: bool) -> None:
    path = write(tmp_path / "code.jsonl", [row] * 3)
    assert read_benchmark(path, 2) == {"code": (["def f():"] * 2, asked)}


def test_categories_apart_and_the_small_ones_evenly(tmp_path) -> None:
    rows = [{"category": kind, "turns": [f"{kind} {i}"]} for kind in ("writing", "math", "qa") for i in range(3)]
    found = read_benchmark(write(tmp_path / "spec.jsonl", rows), 4)
    assert found["mt_bench"] == (["writing 0", "math 0", "writing 1", "math 1"], True)
    assert found["qa"][0] == ["qa 0", "qa 1", "qa 2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no rows"), ('{"a": 1}', "line 1 is not a row"), ("{", "line 1 is not"), ("[1]", "line 1 is not")],
)
def test_other_rows_are_refused(tmp_path, text: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_benchmark(path, 1)


def test_a_limit_below_one_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="limit=0 is below 1"):
        read_benchmark(tmp_path / "none.jsonl", 0)
