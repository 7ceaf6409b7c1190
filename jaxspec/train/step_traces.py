"""Paired step traces: at every step, what the draft and what the target write from the same text, and both scores.

The text follows ARBITRAGE's greedy oracle (arXiv 2512.05033, section 4.1): of two steps the better stays, the draft's
where they score alike. So the contexts are those of good mixed texts, whoever wrote which part.

Shapes: P problems, N steps of all problems, L tokens of prompt and result, T tokens a step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxspec.engine.request import encode_prompts
from jaxspec.engine.solution import Solved
from jaxspec.engine.solve import Prompt, solve
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps.policies import draft_only, oracle, target_only
from jaxspec.steps.segmentation import Segmentation
from jaxspec.steps.types import Policy, Scorer


class StepTraces(NamedTuple):
    """NumPy arrays; steps in order of problem, then turn.

    Attributes:
      tokens: (P, L) int32 prompt and what was kept.
      prompt_length, length: (P,) int32.
      problem, turn: (N,) int32.
      start: (N,) int32 where the step begins; `tokens[problem, :start]` is its context.
      draft, target: (N, T) int32 both steps, 0 beyond their ends.
      draft_length, target_length: (N,) int32.
      draft_score, target_score: (N,) float32; NaN where a score was no number.
      by_target: (N,) bool whose step was kept; together, the history of every context.
    """

    tokens: np.ndarray
    prompt_length: np.ndarray
    length: np.ndarray
    problem: np.ndarray
    turn: np.ndarray
    start: np.ndarray
    draft: np.ndarray
    target: np.ndarray
    draft_length: np.ndarray
    target_length: np.ndarray
    draft_score: np.ndarray
    target_score: np.ndarray
    by_target: np.ndarray

    @property
    def advantage(self) -> np.ndarray:
        """(N,) float32 the target's score minus the draft's; a score that is no number counts as the worst, 0."""
        return np.nan_to_num(self.target_score) - np.nan_to_num(self.draft_score)


def collect_traces(
    draft: LanguageModel,
    target: LanguageModel,
    problems: Sequence[Prompt],
    score: Scorer,
    *,
    scorer: LanguageModel | None = None,
    segmentation: Segmentation,
    max_new_tokens: int,
    max_steps: int,
    lanes: int = 16,
    seed: int = 0,
) -> StepTraces:
    """Solves problems by the oracle, greedily, then writes again the steps it discarded.

    Args:
      draft, target: the pair.
      problems: texts or ids.
      score: of steps.
      scorer: the model that `score` reads, if any.
      segmentation: of steps, at most T tokens each.
      max_new_tokens, max_steps: of every problem; L is the longest prompt and `max_new_tokens`.
      lanes: problems worked on at once.
      seed: of scores that draw.

    Raises:
      ValueError: no problem, or a setting that `solve` refuses.
    """
    if not problems:
        raise ValueError("there are no problems to trace")
    prompts = encode_prompts(target, problems, chat=False)
    settings: dict[str, Any] = {"segmentation": segmentation, "lanes": lanes, "seed": seed}
    solved = solve(
        draft,
        target,
        oracle(scorer=score),
        prompts,
        scorer=scorer,
        max_new_tokens=max_new_tokens,
        max_steps=max_steps,
        **settings,
    ).problems
    contexts, limits, kept = _contexts(prompts, solved, max_new_tokens)
    discarded: dict[str, list[list[int]]] = {}
    for author, policy in (("draft", draft_only()), ("target", target_only())):
        lost = [index for index, step in enumerate(kept) if step.author != author]
        written = next_steps(draft, target, policy, [contexts[i] for i in lost], [limits[i] for i in lost], **settings)
        own = [step.ids for step in kept]
        for index, ids in zip(lost, written, strict=True):
            own[index] = ids
        discarded[author] = own
    longest = max(map(len, prompts)) + max_new_tokens
    width = segmentation.max_step_tokens
    rows = [[*prompt, *one.ids] for prompt, one in zip(prompts, solved, strict=True)]
    return StepTraces(
        tokens=_padded(rows, longest),
        prompt_length=np.array([len(prompt) for prompt in prompts], np.int32),
        length=np.array([len(row) for row in rows], np.int32),
        problem=np.array([one.question for one in solved for _ in one.steps], np.int32),
        turn=np.array([step.turn for step in kept], np.int32),
        start=np.array([len(context) for context in contexts], np.int32),
        draft=_padded(discarded["draft"], width),
        target=_padded(discarded["target"], width),
        draft_length=np.array([len(ids) for ids in discarded["draft"]], np.int32),
        target_length=np.array([len(ids) for ids in discarded["target"]], np.int32),
        draft_score=np.array([np.nan if step.score is None else step.score for step in kept], np.float32),
        target_score=np.array([np.nan if s.target_score is None else s.target_score for s in kept], np.float32),
        by_target=np.array([step.author == "target" for step in kept], bool),
    )


def first_problems(traces: StepTraces, count: int) -> StepTraces:
    """The traces of problems 0 to `count - 1`."""
    steps = traces.problem < count
    of_problems = ("tokens", "prompt_length", "length")
    return StepTraces(
        **{name: array[:count] if name in of_problems else array[steps] for name, array in traces._asdict().items()}
    )


def concatenate(parts: Sequence[StepTraces]) -> StepTraces:
    """Several traces as one; rows are filled up to the longest."""
    first = np.cumsum([0, *(len(part.tokens) for part in parts)])
    parts = [part._replace(problem=part.problem + offset) for part, offset in zip(parts, first[:-1], strict=True)]
    width = {name: max(getattr(part, name).shape[1] for part in parts) for name in ("tokens", "draft", "target")}

    def column(name: str) -> np.ndarray:
        arrays = [getattr(part, name) for part in parts]
        if name in width:
            arrays = [np.pad(array, ((0, 0), (0, width[name] - array.shape[1]))) for array in arrays]
        return np.concatenate(arrays)

    return StepTraces(**{name: column(name) for name in StepTraces._fields})


def _contexts(
    prompts: Sequence[Sequence[int]], solved: Sequence[Solved], max_new_tokens: int
) -> tuple[list[list[int]], list[int], list]:
    """Of every step: the text before it, the tokens it may have, and the step that was kept."""
    contexts, limits, kept = [], [], []
    for prompt, one in zip(prompts, solved, strict=True):
        text = list(prompt)
        for step in one.steps:
            contexts.append(list(text))
            limits.append(max_new_tokens - (len(text) - len(prompt)))
            kept.append(step)
            text += step.ids
    return contexts, limits, kept


def next_steps(
    draft: LanguageModel,
    target: LanguageModel,
    policy: Policy,
    contexts: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    segmentation: Segmentation,
    **settings: Any,
) -> list[list[int]]:
    """The next step of every text, greedily, by `draft_only` or `target_only`, as a policy of both models has it.

    So a step of the draft ends at the target's EOS too, though the draft alone would write on.

    Args:
      draft, target, policy, segmentation: see `solve`.
      contexts: texts, as ids.
      limits: most tokens of each step.
      settings: of `solve`.
    """
    if not contexts:
        return []
    settings |= {"max_new_tokens": segmentation.max_step_tokens, "max_steps": 1, "max_turns": 1}
    if policy.first == "draft" and target.tokenizer is not None and not settings.get("ignore_eos"):
        settings["stop_ids"] = (*settings.get("stop_ids", ()), *target.tokenizer.eos_ids)
    out = solve(draft, target, policy, contexts, segmentation=segmentation, **settings)
    return [ids[:limit] for ids, limit in zip(out.ids, limits, strict=True)]


def _padded(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    table = np.zeros((len(rows), width), np.int32)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    return table
