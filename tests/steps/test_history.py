"""An annotated router reads which steps the target wrote, and scores what was kept as a fresh reading of it does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

from jaxspec import steps
from jaxspec.engine.solution import Solved
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.transformer import transformer_fn
from jaxspec.train.forward import init_params
from jaxspec.train.step_heads import HeadExamples, step_outputs

DRAFT, TARGET = toy_model(1), toy_model(2)
VOCABULARY = TARGET.config.vocabulary
CONFIG = ModelConfig("llama", 2 * VOCABULARY, 16, 16, 1, 2, 2, 8, context=256, outputs=2)
PARAMS = jax.tree.map(lambda leaf: 8.0 * leaf, init_params(CONFIG, jax.random.key(3)))
PROMPTS = [np.random.default_rng(seed).integers(0, VOCABULARY, 3 + seed % 4).tolist() for seed in range(6)]


@functools.cache
def solved(lanes: int) -> list[Solved]:
    router = LanguageModel(CONFIG, transformer_fn(CONFIG), PARAMS, None, jnp.float32, jnp.float32, "router")
    return steps.solve(
        DRAFT,
        TARGET,
        steps.arbitrage(0.5),
        PROMPTS,
        scorer=router,
        segmentation=steps.Segmentation.custom(["a", "cd"], 6),
        max_new_tokens=40,
        lanes=lanes,
    ).problems


def score_of(ids: list[int]) -> float:
    """Of the last step of an annotated text, read in one go."""
    padded = np.zeros((1, 64), np.int32)
    padded[0, : len(ids)] = ids
    zero = np.zeros(1)
    outputs = step_outputs(PARAMS, CONFIG, HeadExamples(padded, np.array([len(ids) - 1]), zero, zero))
    return float(steps.AdvantageRouter().value(outputs[:, None])[0, 0])


@pytest.mark.parametrize("lanes", [1, 4])
def test_scores_equal_a_fresh_reading_of_the_annotated_text(lanes: int) -> None:
    authors = [step.author for one in solved(lanes) for step in one.steps]
    assert {"draft", "target"} <= set(authors)
    told_apart = 0
    for prompt, one in zip(PROMPTS, solved(lanes), strict=True):
        text, plain = list(prompt), list(prompt)
        for step in one.steps:
            if step.author == "draft":
                assert step.score == pytest.approx(score_of(text + step.ids), abs=1e-4)
                told_apart += abs(step.score - score_of(plain + step.ids)) > 1e-3
            text += [i + VOCABULARY if step.author == "target" else i for i in step.ids]
            plain += step.ids
    assert told_apart > 3  # by a model that reads all alike


def test_lanes_change_nothing() -> None:
    assert [one.ids for one in solved(1)] == [one.ids for one in solved(4)]
