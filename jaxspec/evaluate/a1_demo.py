"""Test-time scaling on the arithmetic task: what `jaxspec demo a1` runs."""

from collections.abc import Callable, Sequence

from jaxspec.evaluate.a1_report import Run, compare
from jaxspec.evaluate.a1_systems import SYSTEMS, Scaling
from jaxspec.models.language_model import LanguageModel
from jaxspec.tasks import arithmetic


def stated_answer(text: str) -> str | None:
    """What the first answer line of a complete text states, or None without one or with an empty one."""
    for line in text.split("\n"):
        if line.startswith(arithmetic.ANSWER):
            return line.removeprefix(arithmetic.ANSWER).strip() or None
    return None


def arithmetic_questions(questions: int, seed: int) -> list[tuple[str, str | None]]:
    """Held-out prompts and their answers, the difficulties in turn."""
    examples = [arithmetic.example(seed, index, "held_out") for index in range(questions)]
    return [(prompt, stated_answer(solution)) for prompt, solution in examples]


def run(
    draft: LanguageModel,
    target: LanguageModel,
    questions: int,
    scaling: Scaling,
    *,
    systems: Sequence[str] = SYSTEMS,
    rounds: int = 1,
    slice_ticks: int | None = None,
    advance: Callable[[str], None] = lambda system: None,
) -> dict[str, Run]:
    """All `systems` on freshly generated problems of `scaling.seed`.

    Raises:
      ValueError: fewer than two questions or one round, or settings that cannot be honoured.
    """
    asked = arithmetic_questions(questions, scaling.seed)
    return compare(
        draft,
        target,
        asked,
        stated_answer,
        scaling,
        systems=systems,
        rounds=rounds,
        slice_ticks=slice_ticks,
        advance=advance,
    )
