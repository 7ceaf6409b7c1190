"""A draft model within steps: it reads what others wrote, forgets what was taken back, and is right about the rest."""

import dataclasses
import math

import numpy as np
import pytest
from toy_model import toy_model

from jaxspec import drafters, steps
from jaxspec.conformal import fixed
from jaxspec.decode.rewind import rewind
from jaxspec.drafters.autoregressive import autoregressive

CHUNK, WIDTH = 4, 2
DRAFT, TARGET = toy_model(1, order=3, context=256), toy_model(2, order=3, context=256)
# Longer than a cache would be that was sized for other blocks than are read.
PROMPTS = [np.random.default_rng(seed).integers(0, 7, 60 + 5 * seed).tolist() for seed in range(6)]


@pytest.mark.parametrize("on_escalation", ["replace", pytest.param("continue", marks=pytest.mark.slow)])
def test_each_models_own_copy_drafts_nothing_but_what_it_says(on_escalation: str) -> None:
    policy = steps.a1(samples=2, turns=8, chunk=CHUNK, calibrator=fixed(-7.5))
    policy = dataclasses.replace(policy, on_escalation=on_escalation)
    found = steps.solve(
        DRAFT, TARGET, policy, PROMPTS, max_new_tokens=32, temperature=3.0, lanes=3, cache=128,
        drafter=drafters.draft_model(DRAFT, WIDTH), target_drafter=drafters.draft_model(TARGET, WIDTH),
    )  # fmt: skip
    authors = ["".join(step.author[0] for step in solved.steps) for solved in found.problems]
    assert all(sum(order in by for by in authors) > 3 for order in ("td", "dt", "dd"))
    for solved in found.problems:
        by_target = [len(step.ids) for step in solved.steps if step.author == "target"]
        assert solved.work["target_calls"] == sum(math.ceil(size / (WIDTH + 1)) for size in by_target)
        drafted = [step.drafted for step in solved.steps]
        assert solved.work["draft_calls"] == sum(math.ceil(size / (WIDTH + 1)) for size in drafted)


def test_a_drafter_that_keeps_nothing_need_not_rewind() -> None:
    assert rewind(autoregressive(), (), np.zeros(2, np.int32), np.ones(2, bool)) == ()
