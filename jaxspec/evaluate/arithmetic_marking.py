"""Solutions of the arithmetic task, marked step by step.

Escalations are judged by what they replaced: the discarded step of the draft is written once more from the same text,
and an escalation is wasted if the target's step is right no more than it was (ARBITRAGE, arXiv 2512.05033, section
3.2).
"""

from collections.abc import Sequence

import numpy as np

from jaxspec.engine.solution import Solved
from jaxspec.evaluate.frontier import RolloutSettings
from jaxspec.evaluate.marking import Marks
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps import policies
from jaxspec.tasks.arithmetic import Problem, check_text, prompt_text
from jaxspec.train.step_traces import next_steps


class ArithmeticMarking:
    """`Marking` of the arithmetic task; remembers the draft's steps, which policies share."""

    def __init__(
        self, draft: LanguageModel, target: LanguageModel, problems: Sequence[Problem], settings: RolloutSettings
    ) -> None:
        """Args:
        draft, target: the pair.
        problems: of the arithmetic task.
        settings: of the runs to be marked.
        """
        self._pair, self._problems, self._settings = (draft, target), problems, settings
        self._drafted: dict[tuple[int, str], str] = {}

    @property
    def prompts(self) -> list[str]:
        return [prompt_text(problem) for problem in self._problems]

    def mark(self, solved: Sequence[Solved]) -> Marks:
        checks = [
            check_text(problem, one.text, ended=one.finish == "eos")
            for problem, one in zip(self._problems, solved, strict=True)
        ]
        lines = [each for check in checks for each in check.right]
        right = tuple(check.answer_right for check in checks)
        return Marks(right, float(np.mean(lines)) if lines else 0.0, self._wasted(solved))

    def _wasted(self, solved: Sequence[Solved]) -> float:
        """Share of the target's steps that are right no more than the draft's would have been."""
        escalated = []
        for one in solved:
            before, ids = "", []
            for step in one.steps:
                if step.author == "target":
                    escalated.append((one.question, before, list(ids), step.text))
                before, ids = before + step.text, ids + step.ids
        if not escalated:
            return 0.0
        self._write({(question, before): ids for question, before, ids, _ in escalated})
        gains = 0
        for question, before, _, text in escalated:
            drafted = self._drafted[question, before]
            gains += self._right(question, before, text) > self._right(question, before, drafted)
        return 1.0 - gains / len(escalated)

    def _right(self, question: int, before: str, step: str) -> bool:
        problem = self._problems[question]
        ahead = len(check_text(problem, before).right)
        right = check_text(problem, before + step, ended=not step.endswith("\n")).right
        return len(right) == ahead + 1 and right[-1]

    def _write(self, contexts: dict[tuple[int, str], list[int]]) -> None:
        missing = {place: ids for place, ids in contexts.items() if place not in self._drafted}
        draft, target = self._pair
        tokenizer = target.tokenizer
        texts = [[*tokenizer.encode(prompt_text(self._problems[q])), *ids] for (q, _), ids in missing.items()]
        limits = [self._settings.max_new_tokens - len(ids) for ids in missing.values()]
        options = self._settings.of_solve()
        options = {name: options[name] for name in ("segmentation", "lanes", "cache", "seed")}
        found = next_steps(draft, target, policies.draft_only(), texts, limits, **options)
        self._drafted |= {place: tokenizer.decode(ids) for place, ids in zip(missing, found, strict=True)}
