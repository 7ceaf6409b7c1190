"""The step loop: whole reasoning steps drafted, scored, and kept or handed to the target."""

from jaxspec.steps import aggregate, weights
from jaxspec.steps.exact_score import exact_score, noisy_score
from jaxspec.steps.policies import a1, arbitrage, draft_only, oracle, random, rsd, synchronous, target_only
from jaxspec.steps.rejected_step import rejected_step
from jaxspec.steps.scorers import AdvantageRouter, Likelihood, RandomScore, RewardModel, TextScore
from jaxspec.steps.segmentation import Segmentation
from jaxspec.steps.types import Policy, ReadingScorer, StepContext, TextScorer

__all__ = [
    "AdvantageRouter",
    "Likelihood",
    "Policy",
    "RandomScore",
    "ReadingScorer",
    "RewardModel",
    "Segmentation",
    "StepContext",
    "StepMemoryPlan",
    "TextScore",
    "TextScorer",
    "a1",
    "aggregate",
    "arbitrage",
    "draft_only",
    "exact_score",
    "noisy_score",
    "oracle",
    "plan",
    "random",
    "rejected_step",
    "rsd",
    "solve",
    "synchronous",
    "target_only",
    "weights",
]

from jaxspec.engine.solve import solve  # noqa: E402  the facade of a higher layer, last because that layer needs this one
from jaxspec.engine.step_plan import StepMemoryPlan, plan  # noqa: E402  likewise
