"""Questions and answers from local JSON lines, in the layouts data sets are published in, as a task to train on.

A row holds `question` and `answer` (GSM8K), `problem` and `solution` (MATH), `text` and `code` (MBPP), or `prompt` and
`answer`. The first three are requests, which a model with a chat template is asked in it; the last is continued as it
stands.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxspec.tasks.grade import grade_stated
from jaxspec.tasks.json_lines import read_json_lines
from jaxspec.tasks.task import Ids, Task
from jaxspec.weights.tokenizer import Tokenizer

SUFFIX = ".jsonl"
LAYOUTS = (("question", "answer"), ("problem", "solution"), ("text", "code"), ("prompt", "answer"))
CONTINUED = "prompt"

Example = tuple[Ids, str]


class Question(NamedTuple):
    """Attributes:
    prompt, answer: as the file has them.
    asked: whether the prompt is a request, and not a text to be continued.
    """

    prompt: str
    answer: str
    asked: bool


def is_question_file(task: str) -> bool:
    """Whether a task's name is the path of such a file."""
    return Path(task).suffix == SUFFIX


def read_questions(path: str | Path) -> list[Question]:
    """The rows of a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read, or a row has none of the layouts.
    """
    return [_question(where, text, entry) for where, text, entry in read_json_lines(Path(path), "data file")]


def question_task(
    questions: Sequence[Question], tokenizer: Tokenizer, held_out: int, fits: Callable[[Ids, str], bool]
) -> Task:
    """Questions as a task in a model's own tokens.

    The last `held_out` of those that fit are never trained on. The others come in an order of the seed's own, again
    and again. Answers that state a result behind `####` or in a box are graded by it, others by their text.

    Args:
      questions: see `read_questions`.
      tokenizer: of the model, with its chat template.
      held_out: questions to measure on.
      fits: from a prompt's ids and an answer to whether the question is taken.

    Raises:
      ValueError: too few questions fit.
    """
    rows: list[Example] = []
    for question in questions:
        ids = prompt_ids(question, tokenizer)
        if fits(ids, question.answer):
            rows.append((ids, question.answer))
    trained = len(rows) - held_out
    if trained < 1:
        raise ValueError(
            f"{len(rows)} of {len(questions)} questions fit into the tokens of a text, and {held_out} are held out: "
            "none is left to train on; raise tokens, lower held_out or give more questions"
        )

    def example(seed: int, index: int, split: str = "train") -> Example:
        return rows[trained + index] if split == "held_out" else rows[_order(seed, trained)[index % trained]]

    return Task(example, lambda: tokenizer, grade_stated, trained)


def prompt_ids(question: Question, tokenizer: Tokenizer) -> list[int]:
    """The prompt as a model sees it: a request in its chat template, if it has one."""
    if question.asked and tokenizer.has_chat_template:
        return tokenizer.chat(question.prompt)
    return tokenizer.encode(question.prompt)


def _question(where: str, text: str, entry: Any) -> Question:
    entry = entry if isinstance(entry, dict) else {}
    for prompt, answer in LAYOUTS:
        if all(isinstance(entry.get(name), str) and entry[name] for name in (prompt, answer)):
            return Question(entry[prompt], entry[answer], prompt != CONTINUED)
    known = ", ".join(" and ".join(layout) for layout in LAYOUTS)
    raise ValueError(f"{where} holds none of {known}: {text[:60]}")


@functools.lru_cache(maxsize=4)
def _order(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng((seed, rows)).permutation(rows)
