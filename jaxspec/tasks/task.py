"""Tasks with answers that can be marked, by name."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxspec.tasks import arithmetic, sql_vocabulary, text_to_sql
from jaxspec.weights.tokenizer import Tokenizer

Ids = Sequence[int]


class Task(NamedTuple):
    """Attributes:
    example: (seed, index, split) -> (prompt, answer); splits are `train` and `held_out`. Prompts are texts, or ids of
      the tokenizer.
    tokenizer: the task's own, for models trained from scratch, or that of the model it was made for.
    grade: (answer, a model's text) -> whether it is right.
    rows: different examples to train on, which then come again; None if there is no end of them.
    """

    example: Callable[..., tuple[Any, str]]
    tokenizer: Callable[[], Tokenizer]
    grade: Callable[[str, str], bool]
    rows: int | None = None


TASKS = {
    "arithmetic": Task(arithmetic.example, arithmetic.tokenizer, arithmetic.grade),
    "text_to_sql": Task(text_to_sql.example, sql_vocabulary.tokenizer, text_to_sql.grade),
}


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
      ValueError: there is none.
    """
    if name not in TASKS:
        raise ValueError(f"task={name!r} is not known; known: {', '.join(TASKS)}")
    return TASKS[name]
