"""The systems of test-time scaling that are compared, and how each is run: all on one engine.

A1 runs twice: as published, the target writes on behind an unlikely chunk, which stays in the text with whatever is
wrong with it; as `a1_resample`, the target writes the chunk anew. A third time, if asked for, as `a1_released`, by the
rule of the code published with it: a pass before the run writes the first chunk of as many samples, and chunks of all
turns are ranked among those.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxspec.conformal import StaticConformal, fixed, static_conformal
from jaxspec.engine.solution import Solution
from jaxspec.engine.solve import solve
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps import policies
from jaxspec.steps.segmentation import Segmentation
from jaxspec.steps.state import Usage
from jaxspec.steps.types import Policy

REFERENCE = "target_only"  # what accuracies are compared with
SYSTEMS = ("a1", "a1_resample", "synchronous", "target_only", "draft_only")
RELEASED = "a1_released"
ALL_SYSTEMS = (*SYSTEMS, RELEASED)


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How all systems run.

    Attributes:
      reject_rate: share of draft chunks to hand over.
      samples: M, of every question.
      turns, chunk: draft chunks of a sample, and tokens of a chunk of either model.
      max_new_tokens: of every sample.
      temperature: of both models.
      lanes: samples worked on at once.
      target_lanes: of which the target writes for so many at once; `target_only` may use all lanes.
      wave: share of the target's places that must be taken before it writes; see `solve`.
      cache: tokens a sample may hold, prompt included.
      seed: of all draws.
    """

    reject_rate: float = 0.4
    samples: int = 16
    turns: int = 15
    chunk: int = 8
    max_new_tokens: int = 120
    temperature: float = 0.8
    lanes: int = 32
    target_lanes: int = 16
    wave: float = 0.75
    cache: int = 256
    seed: int = 0


def policy_of(system: str, scaling: Scaling, questions: int) -> Policy:
    """The policy of a name in `ALL_SYSTEMS`, for so many questions."""
    if system == RELEASED:
        rule = static_conformal(scaling.reject_rate, side="released", size=questions * scaling.samples)
        return policies.a1(
            scaling.reject_rate, scaling.samples, scaling.turns, scaling.chunk, calibrator=rule, groups="none"
        )
    if system in ("a1", "a1_resample"):
        resample = system == "a1_resample"
        return policies.a1(scaling.reject_rate, scaling.samples, scaling.turns, scaling.chunk, resample=resample)
    if system == "synchronous":
        return policies.synchronous(scaling.reject_rate)
    return policies.target_only() if system == "target_only" else policies.draft_only()


class Ran(NamedTuple):
    """One run of a system.

    Attributes:
      solution: all samples.
      usages: accounting after every slice.
      before: the pass before it, if it took one.
    """

    solution: Solution
    usages: list[Usage]
    before: Solution | None

    @property
    def passes(self) -> list[Solution]:
        """What it took, in order."""
        return [self.solution] if self.before is None else [self.before, self.solution]

    @property
    def seconds(self) -> float:
        """Wall time, compilation apart."""
        return sum(each.seconds for each in self.passes)


def run_system(
    draft: LanguageModel,
    target: LanguageModel,
    system: str,
    prompts: Sequence[str],
    scaling: Scaling,
    slice_ticks: int | None = None,
) -> Ran:
    """All samples by one system, compiled before its clock starts.

    Args:
      draft, target: models of one vocabulary.
      system: a name from `ALL_SYSTEMS`.
      prompts: one a question.
      scaling: how it runs.
      slice_ticks: rounds between looks at the accounting; None for none before the end.

    Raises:
      ValueError: settings `solve` refuses.
    """
    usages: list[Usage] = []
    policy = policy_of(system, scaling, len(prompts))
    settings: dict[str, Any] = dict(
        samples=scaling.samples,
        segmentation=Segmentation.chunks(scaling.chunk),
        max_turns=scaling.turns if policy.first == "draft" else None,
        temperature=scaling.temperature,
        seed=scaling.seed,
        lanes=scaling.lanes,
        target_lanes=scaling.lanes if system == "target_only" else scaling.target_lanes,
        wave=scaling.wave,
        cache=scaling.cache,
    )
    limit, before = scaling.max_new_tokens, None
    if system == RELEASED:
        before = _first_chunks(draft, target, prompts, limit, settings)
        settings["calibrator"] = _ranked_among(policy, before)
    solve(draft, target, policy, prompts[:1], max_new_tokens=1, **settings)
    solution = solve(
        draft, target, policy, prompts, max_new_tokens=limit, slice_ticks=slice_ticks, watch=usages.append, **settings
    )
    return Ran(solution, usages, before)


def _first_chunks(
    draft: LanguageModel, target: LanguageModel, prompts: Sequence[str], limit: int, settings: dict[str, Any]
) -> Solution:
    """Every sample's first chunk, scored and kept, with draws that are not those of the run."""
    chunk = settings["segmentation"].max_step_tokens
    policy = policies.a1(samples=settings["samples"], turns=1, chunk=chunk, calibrator=fixed(-math.inf), groups="none")
    settings = settings | {"max_turns": 1, "seed": settings["seed"] + 1}
    solve(draft, target, policy, prompts[:1], max_new_tokens=1, **settings)
    return solve(draft, target, policy, prompts, max_new_tokens=limit, **settings)


def _ranked_among(policy: Policy, before: Solution) -> Any:
    """The state of the policy's static calibrator with the scores of a pass."""
    scores = [step.score for solved in before.problems for step in solved.decided if step.score is not None]
    assert isinstance(policy.calibrator, StaticConformal)
    return policy.calibrator.calibrate(jnp.array(scores, jnp.float32), jnp.zeros(len(scores), jnp.int32))
