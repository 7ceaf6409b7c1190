"""What solutions are worth: which answers are right and, where steps can be told right from wrong, which steps."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from jaxspec.engine.solution import Solved
from jaxspec.tasks.grade import grade, grade_stated
from jaxspec.tasks.math_verifier import MathVerifier


class Marks(NamedTuple):
    """Attributes:
    right: for every problem, whether its answer is right.
    step_accuracy: share of steps that are right given those before; None where nobody can tell.
    wasted: share of the target's steps that are right no more than the draft's were, 0 without any; None likewise.
    """

    right: tuple[bool, ...]
    step_accuracy: float | None = None
    wasted: float | None = None


class Marking(Protocol):
    """Problems and their marker.

    Attributes:
      prompts: of the problems, texts or token ids.
    """

    @property
    def prompts(self) -> Sequence[Any]: ...

    def mark(self, solved: Sequence[Solved]) -> Marks:
        """Marks of one solution of every problem, in order."""
        ...


def grade_by(verifier: MathVerifier | None) -> Callable[[str, str], bool]:
    """(reference, text) -> whether the text's answer is right, by a verifier where it is neither number nor the same
    text as the reference's; without one such answers are wrong."""
    return lambda reference, text: grade_stated(reference, text) or grade(text, reference, verifier).correct


@dataclasses.dataclass(frozen=True)
class AnswerMarking:
    """Problems of which only the answer is known.

    Attributes:
      prompts: texts or token ids.
      answers: reference solutions, one each.
      grade: (reference, text) -> whether the text's answer is right.
    """

    prompts: Sequence[Any]
    answers: Sequence[str]
    grade: Callable[[str, str], bool] = grade_stated

    def mark(self, solved: Sequence[Solved]) -> Marks:
        return Marks(tuple(self.grade(answer, one.text) for answer, one in zip(self.answers, solved, strict=True)))
