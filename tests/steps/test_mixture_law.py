"""Sampled texts follow the law of steps that stay or are replaced, enumerated exactly.

Draft and target are one model, so that noise they shared would show most: a replaced step would be written again.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

from jaxspec import steps
from jaxspec.steps.segmentation import Segmentation

VOCABULARY, NEW, COUNT, TEMPERATURE = 3, 3, 3000, 8.0
MODEL = toy_model(1, VOCABULARY, order=1)
LAW = np.exp(np.asarray(MODEL.params["table"], np.float64) / TEMPERATURE)
LAW /= LAW.sum(axis=1, keepdims=True)


def last_token(params, context) -> jnp.ndarray:
    """Steps that end in 0 are good, others bad."""
    last = jnp.take_along_axis(context.tokens, context.end[:, None] - 1, axis=1)[:, 0]
    return jnp.where(last == 0, 1.0, 0.0)


def writings(text: tuple[int, ...], size: int):
    """Every step of `size` tokens behind `text`, of as many as are left, with its probability."""
    size = min(size, NEW + 1 - len(text))
    for step in itertools.product(range(VOCABULARY), repeat=size):
        whole = (*text, *step)
        yield whole, np.prod([LAW[before, token] for before, token in itertools.pairwise(whole[len(text) - 1 :])])


def law_of_texts(text: tuple[int, ...], draft: int, target: int, compare: bool) -> dict[tuple[int, ...], float]:
    """Probabilities of complete texts, the draft writing steps of `draft` tokens and the target of `target`."""
    if len(text) == NEW + 1:
        return {text: 1.0}
    law: dict[tuple[int, ...], float] = {}
    for ours, p in writings(text, draft):
        for theirs, q in writings(text, target):
            replaced = ours[-1] != 0 and (not compare or theirs[-1] == 0)
            for whole, r in law_of_texts(theirs if replaced else ours, draft, target, compare).items():
                law[whole] = law.get(whole, 0.0) + p * q * r
    return law


@pytest.mark.parametrize(
    ("policy", "draft", "target"),
    [
        (steps.rsd(0.5, steps.TextScore(last_token)), 2, 1),
        pytest.param(steps.oracle(0.0, steps.TextScore(last_token)), 1, 2, marks=pytest.mark.slow),
    ],
    ids=["replace", "compare"],
)
def test_replaced_steps_are_drawn_apart_from_what_they_replace(policy, draft: int, target: int) -> None:
    """Steps of different sizes, so that later ones stand where discarded ones stood."""
    found = steps.solve(
        MODEL, MODEL, policy, [[1]], samples=COUNT, max_new_tokens=NEW, temperature=TEMPERATURE, lanes=64, cache=128,
        segmentation=Segmentation.chunks(draft), target_segmentation=Segmentation.chunks(target),
    )  # fmt: skip
    law = law_of_texts((1,), draft, target, policy.on_escalation == "compare")
    assert sum(law.values()) == pytest.approx(1.0)
    seen = dict.fromkeys(law, 0)
    for ids in found.ids:
        seen[1, *ids] += 1
    chi_square = sum((seen[text] - COUNT * p) ** 2 / (COUNT * p) for text, p in law.items())
    assert chi_square < 54.1  # 0.999 quantile of chi-square with 26 degrees of freedom
