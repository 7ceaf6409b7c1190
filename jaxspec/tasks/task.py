"""Tasks with answers that can be marked, by name."""

from collections.abc import Callable
from typing import NamedTuple

from jaxspec.tasks import arithmetic, sql_vocabulary, text_to_sql
from jaxspec.weights.tokenizer import Tokenizer


class Task(NamedTuple):
    """Attributes:
    example: (seed, index, split) -> (prompt, answer); splits are `train` and `held_out`.
    tokenizer: the task's own, for models trained from scratch.
    grade: (answer, a model's text) -> whether it is right.
    """

    example: Callable[..., tuple[str, str]]
    tokenizer: Callable[[], Tokenizer]
    grade: Callable[[str, str], bool]


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
