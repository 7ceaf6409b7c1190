"""Where one model writes everything, its texts are those of `generate`, sampled ones and their ends included."""

import functools
import math

import numpy as np
import pytest
from toy_model import toy_model
from toy_steps import CAP, CUT, SCORER

import jaxspec
from jaxspec import steps
from jaxspec.engine.request import Request
from jaxspec.engine.step_job import build_step_job, step_settings

NEW = 40
DRAFT, TARGET = toy_model(1, eos_ids=(5,)), toy_model(2, eos_ids=(6,))
PROMPTS = [np.random.default_rng(seed).integers(0, 5, 3 + seed % 9).tolist() for seed in range(10)]
SETTINGS = dict(max_new_tokens=NEW, temperature=3.0, seed=4, lanes=4, cache=128)


@functools.cache
def plain(author: str) -> list[list[int]]:
    return jaxspec.generate(DRAFT if author == "draft" else TARGET, PROMPTS, **SETTINGS).ids


@pytest.mark.parametrize(
    ("policy", "author"),
    [
        (steps.draft_only(), "draft"),
        (steps.target_only(), "target"),
        pytest.param(steps.rsd(math.inf, SCORER), "target", marks=pytest.mark.slow),
        pytest.param(steps.a1(0.0, 1, NEW, CAP), "draft", marks=pytest.mark.slow),
    ],
    ids=["draft only", "target only", "every step replaced", "no chunk written on"],
)
def test_a_model_alone_says_and_ends_what_it_does_in_generate(policy, author: str) -> None:
    found = steps.solve(DRAFT, TARGET, policy, PROMPTS, segmentation=CUT, max_steps=NEW, **SETTINGS)
    expected, ends = plain(author), {"draft": 5, "target": 6}
    assert sum(ids[-1] == ends[author] for ids in expected) > 3
    assert any(ends["target" if author == "draft" else "draft"] in ids for ids in expected)
    if policy.name == "a1":  # where the target might write on, its EOS ends the draft's text too
        expected = [ids[: ids.index(6) + 1] if 6 in ids else ids for ids in expected]
    assert found.ids == expected


def ends_of(policy, **settings) -> tuple[set[int], set[int]]:
    """Ids at which a text of the draft ends, and one of the target."""
    settings = step_settings(policy, segmentation=CUT, **settings)
    inputs = build_step_job(DRAFT, TARGET, policy, [Request((1, 2), 5)], settings).inputs
    return tuple(set(np.asarray(model.text_rules.ids).tolist()) - {-1} for model in (inputs.draft, inputs.target))


def test_the_target_ends_what_it_might_write_on() -> None:
    assert ends_of(steps.draft_only()) == ({5}, {6})
    assert ends_of(steps.rsd(0.5, SCORER)) == ({5, 6}, {6})
    assert ends_of(steps.rsd(0.5, SCORER), stop_ids=(1,)) == ({1, 5, 6}, {1, 6})
    assert ends_of(steps.rsd(0.5, SCORER), ignore_eos=True) == (set(), set())


def test_no_tokens_asked_for_are_none_said() -> None:
    policy = steps.rsd(0.5, SCORER)
    found = steps.solve(DRAFT, TARGET, policy, PROMPTS[:2], samples=2, max_new_tokens=0, segmentation=CUT)
    assert found.ids == [[]] * 4 and found.texts == [""] * 4
    assert [(p.question, p.sample, p.finish) for p in found.problems] == [
        (question, sample, "length") for question in range(2) for sample in range(2)
    ]
    assert found.statistics.tokens == found.statistics.draft_passes == found.statistics.target_passes == 0
