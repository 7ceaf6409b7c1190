import fractions
import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformal import compiled

from jaxspec.conformal import online_conformal, static_conformal
from jaxspec.conformal.cluster_bank import ClusterBank


class Lists:
    """The same bank as a list of [question, scores] a cell, the oldest first."""

    def __init__(self, cells, size, cluster_size, ring):
        self.cells = [[] for _ in range(cells)]
        self.size, self.cluster_size, self.ring = size, cluster_size, ring

    def insert(self, lanes):
        """A batch: its new questions take their places first, then scores join them."""
        known = [{question for question, _ in cell} for cell in self.cells]
        for cell, _, question in lanes:
            rows = self.cells[cell]
            if question in known[cell]:
                continue
            known[cell].add(question)
            if len(rows) == self.size and self.ring:
                rows.pop(0)
            if len(rows) < self.size:
                rows.append([question, []])
        for cell, score, question in lanes:
            for number, scores in self.cells[cell]:
                if number == question and len(scores) < self.cluster_size:
                    scores.append(score)

    def p_value(self, cell, score, question):
        others = [scores for number, scores in self.cells[cell] if number != question]
        weight = sum(fractions.Fraction(sum(s >= score for s in scores), len(scores)) for scores in others)
        return float((weight + 1) / (len(others) + 1))


@pytest.mark.parametrize("ring", [True, False])
@pytest.mark.parametrize("cluster_size", [pytest.param(1, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("lanes", [1, 6])
def test_against_lists(ring, cluster_size, lanes):
    cells, size = 2, 4
    calibrator = online_conformal(
        0.4, "ring" if ring else "growing", size, groups=cells, cluster_size=cluster_size, side="at_least"
    )
    random = np.random.default_rng(lanes)
    lists, state = Lists(cells, size, cluster_size, ring), calibrator.init()
    observe, decide, p_values = jax.jit(calibrator.observe), jax.jit(calibrator.decide), jax.jit(calibrator.p_values)
    for step in range(30):
        score = np.round(random.standard_normal(lanes), 1).astype(np.float32)
        group = random.integers(0, cells, lanes).astype(np.int32)
        question = (step // 3 + random.integers(0, 3, lanes)).astype(np.int32)
        live = random.random(lanes) < 0.8
        p = p_values(state, score, group, question)
        wanted = [lists.p_value(*lane) for lane in zip(group, score, question, strict=True)]
        np.testing.assert_allclose(p, wanted, rtol=1e-6)
        escalate = decide(state, score, group, None, question)
        np.testing.assert_array_equal(escalate, np.asarray(wanted) > 0.6 + 1e-9)
        state = observe(state, score, group, escalate, jnp.asarray(live), question)
        lists.insert([lane for lane, on in zip(zip(group, score, question, strict=True), live, strict=True) if on])


def test_weights_are_integers():
    assert ClusterBank(4, 16, True).unit == 720720
    assert ClusterBank(4, 1, True).unit == 1


def intercepts(random, trials, questions, samples):
    """Scores of `questions + 1` questions, correlation 0.6 within each."""
    question = np.sqrt(0.6) * random.standard_normal((trials, questions + 1, 1))
    return (question + np.sqrt(0.4) * random.standard_normal((trials, questions + 1, samples))).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 5))
def filled_decide(calibrator, scores, sizes, candidates, uniform, pooled):
    """(trials, T) decisions for candidates and draws (trials, T) given calibration scores (trials, K, M)."""

    def one(scores, sizes, candidate, uniform):
        state = calibrator.init()
        if pooled:
            bank = state.bank._replace(score=scores.reshape(1, -1), held=jnp.full((1,), scores.size, jnp.int32))
        else:
            numbers = jnp.arange(scores.shape[0], dtype=jnp.int32)[None]
            bank = state.bank._replace(score=scores[None], question=numbers, entries=sizes[None])
        asked = jnp.full(candidate.shape, -1, jnp.int32)
        return compiled.decide(
            calibrator, state._replace(bank=bank), candidate, jnp.zeros_like(asked), None, asked, uniform
        )

    return jax.vmap(one)(scores, sizes, candidates, uniform)


@pytest.mark.parametrize(("questions", "deviation"), [(100, 0.032), (15, 0.081)])
def test_pooled_ranks_promise_more_than_alike_samples_hold(questions, deviation):
    """1,600 scores of 100 questions spread the rate not by 0.012 but by 0.032."""
    trials, samples, grid = 300, 16, 100
    scores = intercepts(np.random.default_rng(0), trials, questions - 1, samples)
    quantiles = [statistics.NormalDist().inv_cdf((step + 0.5) / grid) for step in range(grid)]
    candidates = jnp.tile(jnp.asarray(quantiles, jnp.float32), (trials, 1))
    calibrator = static_conformal(0.4, size=questions * samples)
    sizes = jnp.full((trials, questions), samples, jnp.int32)
    found = filled_decide(calibrator, jnp.asarray(scores), sizes, candidates, jnp.zeros_like(candidates), True)
    rates = np.mean(found, axis=1)
    assert abs(rates.std() / deviation - 1) < 0.15


@pytest.mark.parametrize("cluster_size", [1, 6])
@pytest.mark.parametrize("side", ["at_most", "exact", "at_least"])
def test_a_new_question_is_escalated_at_the_rate(cluster_size, side):
    """Questions with different numbers of samples, correlated; N = 12, so that the sides differ by 0.07."""
    trials, questions = 20_000, 12
    random = np.random.default_rng(7)
    scores = intercepts(random, trials, questions, cluster_size)
    sizes = random.integers(1, cluster_size + 1, (trials, questions)).astype(np.int32)
    calibrator = static_conformal(0.4, side, size=questions, cluster_size=cluster_size)
    uniform = jnp.asarray(random.random((trials, 1)), jnp.float32)
    found = filled_decide(calibrator, scores[:, :-1], sizes, scores[:, -1, :1], uniform, False)
    rate, noise = np.mean(found), 3 * np.sqrt(0.24 / trials)
    low, high = {"at_most": (0.4 - 1 / 13, 0.4), "exact": (0.4, 0.4), "at_least": (0.4, 0.4 + 1 / 13)}[side]
    assert low - noise <= rate <= high + noise


def test_calibration_by_question():
    calibrator = static_conformal(0.4, size=3, cluster_size=2)
    scores = jnp.array([1.0, 2.0, 5.0, 6.0, 3.0])
    state = calibrator.calibrate(scores, jnp.zeros((5,), jnp.int32), jnp.array([7, 7, 8, 8, 9]))
    ask = jnp.array([0, 7])
    p = compiled.p_values(calibrator, state, jnp.array([1.5, 1.5]), jnp.zeros((2,), jnp.int32), ask)
    np.testing.assert_allclose(p, [(0.5 + 1 + 1 + 1) / 4, 1.0])  # the own question is left out
