"""Rows of every layout become examples in a model's own tokens; splits never meet."""

import json
from pathlib import Path

import pytest

from jaxspec.tasks.question_file import is_question_file, question_task, read_questions
from jaxspec.tasks.symbol_tokenizer import symbol_tokenizer
from jaxspec.tasks.task import Task
from jaxspec.weights.tokenizer import Tokenizer

LETTERS = symbol_tokenizer("abcdefghij 0123456789#\\{}ox")


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def task_of(path: Path, held_out: int = 1, tokenizer: Tokenizer = LETTERS, fits=lambda prompt, answer: True) -> Task:
    return question_task(read_questions(path), tokenizer, held_out, fits)


class Asking(Tokenizer):
    """Puts what it is asked behind the letter a."""

    def __init__(self) -> None:
        super().__init__(LETTERS._backend, eos_id=1, chat_template="a{{ messages[0]['content'] }}")


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"question": "bc", "answer": "#### 4", "prompt": "no"}, True),
        ({"problem": "bc", "solution": "4", "answer": "5"}, True),
        ({"text": "bc", "code": "4"}, True),
        ({"prompt": "bc", "answer": "4"}, False),
    ],
)
def test_layouts(tmp_path, row: dict, asked: bool) -> None:
    path = write(tmp_path / "rows.jsonl", [row] * 2)
    answer = row.get("solution") or row.get("code") or row["answer"]
    assert task_of(path).example(0, 0) == (LETTERS.encode("bc"), answer)
    prompt, _ = task_of(path, tokenizer=Asking()).example(0, 0, "held_out")
    assert prompt == LETTERS.encode("abc" if asked else "bc")


def test_every_row_once_an_epoch_and_held_out_rows_never(tmp_path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": f"a{i}", "answer": str(i)} for i in range(10)])
    task = task_of(path, held_out=3)
    assert task.rows == 7 and [task.example(0, i, "held_out")[1] for i in range(3)] == ["7", "8", "9"]
    epochs = [[task.example(seed, i)[1] for i in range(start, start + 7)] for seed in (0, 1) for start in (0, 7, 700)]
    assert all(sorted(epoch) == list("0123456") for epoch in epochs)
    assert epochs[0] == epochs[1] == epochs[2] and epochs[0] != epochs[3] and epochs[0] != sorted(epochs[0])


def test_rows_that_do_not_fit_are_left_out(tmp_path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": "a" * i, "answer": "b"} for i in range(1, 7)])
    task = task_of(path, held_out=2, fits=lambda prompt, answer: len(prompt) + len(answer) <= 5)
    assert task.rows == 2 and [len(task.example(0, i, "held_out")[0]) for i in range(2)] == [3, 4]
    with pytest.raises(
        ValueError, match="3 of 6 questions fit .* 3 are held out: none is left to train on; raise tokens"
    ):
        task_of(path, held_out=3, fits=lambda prompt, answer: len(prompt) <= 3)


def test_stated_results_are_graded_as_such_and_other_answers_by_their_text(tmp_path) -> None:
    grade = task_of(write(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "b"}] * 2)).grade
    assert grade("2 and 2 are 4\n#### 4", "it is \\boxed{4.0}") and not grade("#### 4", "it is 5")
    assert grade("\\boxed{4}", "so 4") and grade(" abc\n", "abc ") and not grade("abc 4", "bca 4")


@pytest.mark.parametrize("row", [{"question": "a"}, {"prompt": "", "answer": "b"}, {"text": 3, "code": "b"}, ["a"]])
def test_other_rows_are_refused_by_line(tmp_path, row) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "b"}, row])
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2 holds none of question and answer, problem and solution"):
        task_of(path)


def test_names_of_tasks_are_no_files(tmp_path) -> None:
    assert is_question_file("data/gsm8k_train.jsonl") and not is_question_file("text_to_sql")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        task_of(tmp_path / "none.jsonl")
