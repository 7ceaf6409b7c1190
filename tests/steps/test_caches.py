"""Caches of real arithmetic after steps were kept, replaced and compared: what fresh passes over whole texts give."""

import dataclasses
import functools
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import CONFIG, small_transformer

from jaxspec import conformal, drafters, steps
from jaxspec.models.cache import init_cache
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import BlockOutput, chain_block
from jaxspec.models.transformer import transformer_fn
from jaxspec.steps.loop import run_slice
from jaxspec.steps.scorers import Likelihood, RewardModel
from jaxspec.steps.segmentation import Segmentation
from jaxspec.train.forward import init_params

step_engine = importlib.import_module("jaxspec.engine.step_engine")

LANES, NEW, CAP, ENDS = 4, 40, 6, (2, 9)
LENGTH = 64  # of fresh passes; no text is longer
PROMPTS = [np.random.default_rng(seed).integers(0, 17, 2 + 3 * seed % 11).tolist() for seed in range(5)]


@functools.cache
def model(name: str) -> LanguageModel:
    """The pair, and a scoring model whose outputs differ from token to token by more than the sigmoid hides."""
    if name != "scorer":
        return small_transformer(seed={"draft": 1, "target": 2}[name])
    config = dataclasses.replace(CONFIG, tied=False, outputs=1)
    key = jax.random.key(3)
    noise = iter(jax.random.split(key, 100))
    params = init_params(config, key)
    params = jax.tree.map(lambda p: p + 0.4 * jax.random.normal(next(noise), p.shape), params)
    return LanguageModel(config, transformer_fn(config, jnp.float32), params, None, jnp.float32, jnp.float32, "reward")


@functools.partial(jax.jit, static_argnums=0)
def _fresh(config, params, ids) -> BlockOutput:
    empty = init_cache(config, ids.shape[0], LENGTH, jnp.float32)
    return transformer_fn(config, jnp.float32)(params, chain_block(ids), empty)


def fresh(name: str, texts: list[list[int]]) -> BlockOutput:
    """One pass over every whole text, and nothing kept from an earlier one."""
    ids = np.array([text + [0] * (LENGTH - len(text)) for text in texts], np.int32)
    return jax.device_get(_fresh(model(name).config, model(name).params, ids))


def outputs(name: str, text: list[int]) -> np.ndarray:
    """(L, V) float64."""
    return np.asarray(fresh(name, [text]).logits, np.float64)[0, : len(text)]


def written(name: str, text: list[int], limit: int) -> list[int]:
    """The step that a model says next, every token by a pass of its own."""
    step: list[int] = []
    while len(step) < CAP and len(text + step) < limit and not (step and step[-1] in ENDS):
        step.append(int(outputs(name, text + step)[-1].argmax()))
    return step


def likelihood(text: list[int], step: list[int]) -> float:
    logits = outputs("target", text + step)[len(text) - 1 : -1]
    peak = logits.max(axis=1, keepdims=True)
    log_p = logits - peak - np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
    return log_p[np.arange(len(step)), step].mean()


def reward(text: list[int], step: list[int]) -> float:
    return 1.0 / (1.0 + np.exp(-outputs("scorer", text + step)[-1, 0]))


class Held(NamedTuple):
    """What a lane should hold after a tick: the row's text, the draft's step set aside behind `start`, if there is."""

    lane: int
    text: list[int]
    start: int
    aside: list[int]

    def read_by(self, model: str) -> list[int]:
        """The text as the model saw it: the draft's own step stays in its cache while the target writes another."""
        return self.text[: self.start] + self.aside if model == "draft" and self.aside else self.text


def recorded(monkeypatch) -> list[Any]:
    """The whole state after every slice from now on."""
    seen: list[Any] = []

    def recording(program, inputs, state):
        state = run_slice(program, inputs, state)
        seen.append(jax.device_get(state._replace(calibrator=())))
        return state

    monkeypatch.setattr(step_engine, "run_slice", recording)
    return seen


def held(seen: list[Any]) -> Iterator[tuple[Any, list[Held]]]:
    """Every state with the lanes that have a problem, or had one until this tick."""
    rows = len(seen[0].problems.status)
    before = np.full((LANES,), rows)
    for state in seen:
        lanes, problems = state.lanes, state.problems
        row = np.where(lanes.row < rows, lanes.row, before)
        yield (
            state,
            [
                Held(
                    lane,
                    problems.tokens[row[lane], : lanes.written[lane]].tolist(),
                    int(problems.length[row[lane]]),
                    lanes.kept.tokens[lane, : lanes.kept.length[lane]].tolist(),
                )
                for lane in np.flatnonzero(row < rows)
            ],
        )
        before = lanes.row


def check_cache(name: str, cache: Any, lanes: list[Held]) -> None:
    """Keys and values below every lane's length are those of a fresh pass."""
    texts: list[list[int]] = [[] for _ in range(LANES)]
    for each in lanes:
        texts[each.lane] = each.read_by(name)
        assert cache.length[each.lane] <= len(texts[each.lane])
    output = fresh(name, texts)
    length = np.where([len(text) > 0 for text in texts], cache.length, 0)
    below = (np.arange(LENGTH) < length[:, None])[:, None, :, None]
    for kept, expected in zip((*cache.keys, *cache.values), (*output.keys, *output.values), strict=True):
        np.testing.assert_allclose(np.where(below, kept[:, :, :LENGTH], 0), np.where(below, expected, 0), atol=1e-4)


REPLACE = dict(policy=steps.rsd(conformal.adaptive_conformal(0.5), Likelihood()))
COMPARE = dict(policy=steps.oracle(0.05, RewardModel()))
DRAFTERS = dict(drafter=drafters.suffix(width=3, rows=2), target_drafter=steps.rejected_step(3, step_tokens=CAP))


@pytest.mark.parametrize(
    "setting",
    [
        REPLACE,
        pytest.param(COMPARE, marks=pytest.mark.slow),
        pytest.param(REPLACE | DRAFTERS, marks=pytest.mark.slow),
        pytest.param(COMPARE | DRAFTERS, marks=pytest.mark.slow),
    ],
    ids=["replace", "compare", "replace-drafters", "compare-drafters"],
)
def test_caches_and_texts_are_those_of_fresh_passes(monkeypatch, setting: dict[str, Any]) -> None:
    compares = setting["policy"].on_escalation == "compare"
    seen = recorded(monkeypatch)
    found = steps.solve(
        model("draft"), model("target"), problems=PROMPTS, segmentation=Segmentation((), CAP, ENDS), lanes=LANES,
        target_lanes=2, max_new_tokens=NEW, cache=128, slice_ticks=1,
        scorer=model("scorer") if compares else None, **setting,
    )  # fmt: skip
    stayed, gave_way = 0, 0  # drafts that the target would have written otherwise
    for prompt, solved in zip(PROMPTS, found.problems, strict=True):
        text, limit = list(prompt), len(prompt) + NEW
        for step in solved.steps:
            ours, theirs = (written(name, text, limit) for name in ("draft", "target"))
            assert step.ids == (theirs if step.author == "target" else ours)
            score = reward if compares else likelihood
            assert step.score == pytest.approx(score(text, ours), abs=1e-4)
            if compares:
                assert step.target_score == pytest.approx(score(text, theirs), abs=1e-4)
                assert (step.author == "target") == (step.target_score - step.score > 0.05)
            text += step.ids
            stayed += step.author == "draft" and ours != theirs
            gave_way += step.author == "target" and ours != theirs
        assert text == prompt + solved.ids and len(text) == limit
    assert min(stayed, gave_way) > 10

    names = ("draft", "target", "scorer") if compares else ("draft", "target")
    longest = dict.fromkeys(names, 0)
    for state, lanes in held(seen):
        for name in names:
            cache = state.scorer if name == "scorer" else getattr(state, name).cache
            check_cache(name, cache, lanes)
            longest[name] = max(longest[name], *cache.length)
    assert min(longest.values()) > 40
