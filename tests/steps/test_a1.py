"""A1 on the step loop: chunks, scores, rates, schedules, and what every lane did in every tick."""

import dataclasses
import importlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import CONFIG, small_transformer
from toy_model import toy_model

from jaxspec import conformal, steps
from jaxspec.engine.step_job import _check_questions, step_settings
from jaxspec.models.cache import init_cache
from jaxspec.models.model_fn import chain_block
from jaxspec.models.transformer import transformer_fn
from jaxspec.steps.loop import run_slice
from jaxspec.steps.segmentation import Segmentation
from jaxspec.steps.state import Phase

step_engine = importlib.import_module("jaxspec.engine.step_engine")

CHUNK, TURNS, SAMPLES, LANES, CAP = 4, 5, 8, 8, 3


def seldom_ending(seed: int):
    """A toy model that says EOS once in two dozen tokens."""
    lm = toy_model(seed, eos_ids=(6,))
    return dataclasses.replace(lm, params={"table": lm.params["table"].at[:, 6].add(-7.0)})


DRAFT, TARGET = seldom_ending(1), seldom_ending(2)
PROMPTS = [np.random.default_rng(seed).integers(0, 6, 3 + seed % 9).tolist() for seed in range(24)]
SETTINGS = dict(temperature=5.0, max_new_tokens=50, cache=128)
A1 = steps.a1(0.4, SAMPLES, TURNS, CHUNK)


def solve(policy=A1, prompts=PROMPTS, draft=DRAFT, target=TARGET, **settings):
    settings = {"lanes": LANES, "target_lanes": CAP, "wave": 1.0, **SETTINGS, **settings}
    if policy.chunk is None:
        chunks = {"segmentation": Segmentation.chunks(CHUNK), "max_turns": TURNS, "samples": SAMPLES}
        settings = chunks | settings
    return steps.solve(draft, target, policy, prompts, **settings)


class Seen(NamedTuple):
    """Lanes and queue after a slice."""

    phase: np.ndarray
    since: np.ndarray
    tick: np.ndarray
    row: np.ndarray
    turn: np.ndarray
    question: np.ndarray


def recorded(monkeypatch) -> list[Seen]:
    """What is seen after every slice from now on."""
    seen: list[Seen] = []

    def recording(program, inputs, state):
        state = run_slice(program, inputs, state)
        lanes = state.lanes
        after = Seen(lanes.phase, lanes.since, state.usage.ticks, lanes.row, lanes.turn, state.problems.question)
        seen.append(jax.device_get(after))
        return state

    monkeypatch.setattr(step_engine, "run_slice", recording)
    return seen


def decided(solved) -> list:
    return [step for step in solved.steps if step.author == "draft" and (step.score is not None or step.escalated)]


@pytest.fixture(scope="module")
def solution():
    return solve()


def test_drafts_are_kept_or_written_on_and_every_token_has_one_author(solution) -> None:
    assert [(p.question, p.sample) for p in solution.problems] == [
        (question, sample) for question in range(len(PROMPTS)) for sample in range(SAMPLES)
    ]
    decisions = escalations = 0
    for solved in solution.problems:
        assert [i for step in solved.steps for i in step.ids] == solved.ids
        drafts = [step for step in solved.steps if step.author == "draft"]
        assert [step.turn for step in drafts] == list(range(len(drafts))) and len(drafts) <= TURNS
        for step, following in zip(solved.steps, [*solved.steps[1:], None], strict=True):
            assert len(step.ids) == CHUNK or following is None  # chunks are full but for the last of a text
            if step.author == "target":
                assert step.drafted == 0
            else:
                assert (following is not None and following.author == "target") == step.escalated
        mine = decided(solved)
        decisions, escalations = decisions + len(mine), escalations + sum(step.escalated for step in mine)
        assert solved.work["target_calls"] == sum(len(s.ids) for s in solved.steps if s.author == "target")
    statistics = solution.statistics
    assert (statistics.decisions, statistics.escalations) == (decisions, escalations)
    assert statistics.overruled == statistics.unusable == 0


def test_a_chunk_that_ends_its_text_is_neither_scored_nor_handed_over(solution) -> None:
    ended = [p.steps[-1] for p in solution.problems if p.finish == "eos" and p.steps[-1].author == "draft"]
    assert len(ended) > 10
    assert all(step.score is None and not step.escalated for step in ended)
    out_of_turns = [p for p in solution.problems if p.finish == "steps"]
    assert len(out_of_turns) > 10
    assert all(sum(step.author == "draft" for step in p.steps) == TURNS for p in out_of_turns)


def test_the_rate_holds_overall_and_in_every_turn(solution) -> None:
    made = [step for solved in solution.problems for step in decided(solved)]
    report = conformal.coverage_report([s.escalated for s in made], 0.4, group=[s.turn for s in made])
    assert report.overall_deviation < 0.02
    for group in report.groups.values():
        assert abs(group.rate - 0.4) <= A1.calibrator.deviation_bound(group.decisions)
    tally = solution.calibrator.ranks.tally
    assert len(report.groups) == TURNS
    assert tally.decisions.tolist() == [group.decisions for group in report.groups.values()]
    assert tally.escalations.tolist() == [group.escalations for group in report.groups.values()]


def test_every_lane_tick_is_accounted_for(solution) -> None:
    statistics = solution.statistics
    assert sum(statistics.lane_ticks.values()) == LANES * statistics.ticks
    assert 0 < statistics.busy <= statistics.held <= LANES * statistics.ticks
    assert 0.5 < statistics.busy_share < 1 and 0 < statistics.waiting_share < 0.5
    assert statistics.most_with_target == CAP


def test_one_program_for_seeds_problems_and_calibration_states(solution) -> None:
    before = run_slice._cache_size()
    solve(prompts=PROMPTS[3:7], seed=5, calibrator=solution.calibrator)
    solve(prompts=PROMPTS[:2], seed=6, samples=3)
    assert run_slice._cache_size() == before


def test_calibration_goes_on_bit_by_bit_from_a_saved_state(solution, tmp_path) -> None:
    leaves, tree = jax.tree.flatten(solution.calibrator)
    np.savez(tmp_path / "calibration.npz", *map(np.asarray, leaves))
    saved = np.load(tmp_path / "calibration.npz")
    restored = jax.tree.unflatten(tree, [saved[f"arr_{i}"] for i in range(len(leaves))])
    again = [solve(prompts=PROMPTS[:4], seed=9, calibrator=state) for state in (solution.calibrator, restored)]
    assert again[0].ids == again[1].ids
    jax.tree.map(np.testing.assert_array_equal, again[0].calibrator, again[1].calibrator)
    seen = again[0].calibrator.ranks.tally.decisions.sum() - solution.calibrator.ranks.tally.decisions.sum()
    assert seen == again[0].statistics.decisions


def test_one_model_as_both_writes_what_it_writes_alone() -> None:
    both = solve(prompts=PROMPTS[:6], target=DRAFT)
    alone = solve(steps.draft_only(), prompts=PROMPTS[:6], max_turns=12)
    assert both.statistics.escalations > 0
    for mine, plain in zip(both.ids, alone.ids, strict=True):
        assert mine == plain[: len(mine)]


@pytest.mark.parametrize("rate", [1.0, pytest.param(0.0, marks=pytest.mark.slow)])
def test_the_limits_of_the_rate(rate: float) -> None:
    found = solve(steps.a1(rate, SAMPLES, TURNS, CHUNK), PROMPTS[:6])
    made = [step for solved in found.problems for step in decided(solved)]
    assert made and all(step.escalated == bool(rate) for step in made)
    if rate:  # the same work in lockstep takes no fewer rounds, and says the same
        locked = solve(steps.synchronous(1.0), PROMPTS[:6], target_lanes=CAP)
        assert locked.ids == found.ids
        assert locked.statistics.ticks >= found.statistics.ticks
        assert locked.statistics.busy_share < found.statistics.busy_share
    else:
        assert found.ids == solve(steps.draft_only(), PROMPTS[:6]).ids
        assert found.statistics.target_tokens == 0


def test_synchronous_ranks_all_samples_of_a_question_in_every_turn() -> None:
    found = solve(steps.synchronous(0.4), PROMPTS[:6])
    for question in range(6):
        mine = [decided(p) for p in found.problems if p.question == question]
        for turn in range(TURNS):
            made = [step for each in mine for step in each if step.turn == turn]
            assert sum(step.escalated for step in made) == math.floor(0.4 * len(made) + 0.5)
            kept = [step.score for step in made if not step.escalated]
            assert all(step.score <= min(kept, default=math.inf) for step in made if step.escalated)


def test_questions_wait_for_their_own_samples_alone(monkeypatch) -> None:
    seen = recorded(monkeypatch)
    prompts = PROMPTS[:6]
    found = solve(steps.synchronous(0.4), prompts, lanes=2 * SAMPLES, slice_ticks=1)
    assert found.ids == solve(steps.synchronous(0.4), prompts).ids
    apart = 0
    for state in seen:
        halves = []
        for half in (slice(0, SAMPLES), slice(SAMPLES, 2 * SAMPLES)):
            held = state.phase[half] != Phase.IDLE
            questions, turns = set(state.question[state.row[half][held]]), set(state.turn[half][held])
            assert len(questions) <= 1  # none begins before all samples of the last have ended
            assert len(turns) <= 1  # all go from turn to turn together
            halves.append(turns)
        apart += bool(halves[0] and halves[1]) and halves[0].isdisjoint(halves[1])
    assert apart > 5


FROZEN = conformal.static_conformal(0.4, side="exact", size=128, groups=TURNS)
BY_QUESTION = steps.a1(calibrator=conformal.adaptive_conformal(groups=3), groups="question")


@pytest.fixture(scope="module")
def frozen(solution):
    """Calibration scores, rounded so that decisions hang on ties, and so on draws."""
    made = [step for solved in solution.problems for step in decided(solved)][:400]
    scores = jnp.array([round(step.score) for step in made], jnp.float32)
    turns = np.array([step.turn for step in made])
    first = np.concatenate([np.flatnonzero(turns == turn)[:60] for turn in range(TURNS)])
    return FROZEN.calibrate(scores[first], jnp.array(turns[first]))


def test_with_a_frozen_calibrator_the_schedule_changes_nothing(frozen) -> None:
    policy = steps.a1(0.4, 2, TURNS, CHUNK, calibrator=FROZEN)
    prompts = PROMPTS[:9]
    alone = solve(policy, prompts, lanes=1, target_lanes=1, calibrator=frozen)
    assert 0.1 < alone.statistics.escalation_rate < 0.9
    order = np.random.default_rng(0).permutation(len(prompts))
    many = solve(policy, [prompts[i] for i in order], lanes=16, target_lanes=4, wave=0.5, calibrator=frozen)
    by_prompt = [many.problems[2 * place + sample] for place in np.argsort(order) for sample in range(2)]
    assert [p.ids for p in by_prompt] == alone.ids
    assert [p.steps for p in by_prompt] == [p.steps for p in alone.problems]


def test_places_with_the_target_are_capped_and_given_in_order_and_nobody_starves(monkeypatch) -> None:
    seen = recorded(monkeypatch)
    solve(prompts=PROMPTS[:6], slice_ticks=1)
    longest = 0
    for (phase, since, tick, *_), (following, *_) in zip(seen, seen[1:], strict=False):
        assert np.sum(phase == Phase.TARGET) <= CAP
        waiting, granted = phase == Phase.WAIT, (phase == Phase.WAIT) & (following == Phase.TARGET)
        left = waiting & (following == Phase.WAIT)
        if granted.any() and left.any():
            assert since[granted].max() <= since[left].min()
        held = waiting | (phase == Phase.TARGET)
        longest = max(longest, int((tick - since)[held].max(initial=0)))
    assert any(np.sum(each.phase == Phase.WAIT) > 0 for each in seen)
    patience = CHUNK
    assert longest <= math.ceil(LANES / CAP) * (patience + CHUNK)


def test_a_full_target_overrules_escalations_and_questions_are_told_apart_if_so_asked() -> None:
    calibrator = conformal.adaptive_conformal(0.8, mode="conditional", questions=3, groups=2, size=64)
    policy = steps.a1(
        samples=SAMPLES, turns=TURNS, chunk=CHUNK, target_chunk=1, calibrator=calibrator, overflow="accept",
        resample=True,
    )  # fmt: skip
    found = solve(policy, PROMPTS[:3], target_lanes=1)
    statistics = found.statistics
    assert statistics.overruled > 0 and statistics.lane_ticks["wait"] == 0 and statistics.most_with_target == 1
    # A place that is free again within its tick was taken all the same.
    assert statistics.lane_ticks["target"] == statistics.target_tokens > 0
    assert sum(statistics.lane_ticks.values()) == LANES * statistics.ticks
    cells = np.zeros((3, 2), int)
    for solved in found.problems:
        for step in solved.steps:  # written anew: a step of the target stands for the one the draft wrote
            assert step.escalated == (step.author == "target")
            assert len(step.ids) <= (1 if step.escalated else CHUNK)
            cells[solved.question, min(step.turn, 1)] += step.score is not None
    tally = found.calibrator.ranks.tally
    assert tally.decisions.tolist() == cells.ravel().tolist()
    assert int(tally.escalations.sum()) == statistics.escalations + statistics.overruled
    with pytest.raises(ValueError, match="made for questions=3, and there are 4"):
        solve(policy, PROMPTS[:4])


def test_synchronous_takes_samples_turns_and_chunk_as_a1_does() -> None:
    counts = (SAMPLES, TURNS, CHUNK)
    policy = steps.synchronous(0.4, *counts)
    assert (policy.samples, policy.turns, policy.chunk) == counts
    assert step_settings(policy) == step_settings(steps.a1(0.4, *counts))


def test_a_calibrator_of_questions_needs_no_groups_for_them() -> None:
    calibrator = conformal.adaptive_conformal(mode="conditional", questions=4)
    for each in (calibrator, conformal.fixed(-2.0)):  # which tells nothing apart
        _check_questions(steps.a1(calibrator=each, groups="question"), questions=4, samples=1)


def log_probabilities(lm, ids: list[int]) -> np.ndarray:
    """(L, V) float64 by one fresh pass over the whole text."""
    padded = ids + [0] * (64 - len(ids))
    output = fresh(lm.params, jnp.array([padded], jnp.int32))
    logits = np.asarray(output, np.float64)[0, : len(ids)]
    return (
        logits
        - np.log(np.sum(np.exp(logits - logits.max(1, keepdims=True)), 1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


@jax.jit
def fresh(params, ids):
    network = transformer_fn(CONFIG, jnp.float32)  # the cached small_transformer() would keep tracers
    return network(params, chain_block(ids), init_cache(CONFIG, 1, 128, jnp.float32)).logits


def test_scores_and_texts_are_those_of_passes_over_the_whole_text() -> None:
    draft, target = small_transformer(seed=1), small_transformer(seed=2)
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]]
    found = steps.solve(
        draft, target, steps.a1(0.5, 3, 4, 5, target_chunk=3), prompts, max_new_tokens=40, cache=128, lanes=4,
        target_lanes=2, temperature=1e-6,
    )  # fmt: skip
    after_takeover = 0
    for solved in found.problems:
        ids = list(prompts[solved.question])
        whole = {lm: log_probabilities(model, ids + solved.ids) for lm, model in (("draft", draft), ("target", target))}
        before = None
        for step in solved.steps:
            place = np.arange(len(ids), len(ids) + len(step.ids)) - 1
            said = whole[step.author][place]
            chosen = said[np.arange(len(place)), step.ids]
            np.testing.assert_allclose(chosen, said.max(axis=1), atol=1e-4)
            if step.score is not None:
                expected = whole["target"][place, step.ids].mean()
                assert abs(step.score - expected) < 1e-4
                after_takeover += before == "target"
            ids, before = ids + step.ids, step.author
    assert after_takeover >= 5 and found.statistics.decisions >= 30


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: steps.a1(reject_rate=1.5), "reject_rate=1.5 is not between 0 and 1"),
        (lambda: steps.a1(reject_rate=math.nan), "reject_rate=nan is not between 0 and 1"),
        (lambda: steps.synchronous(-0.1), "reject_rate=-0.1 is not between 0 and 1"),
        (lambda: steps.a1(turns=0), "turns=0 is below 1"),
        (lambda: steps.a1(overflow="drop"), "overflow='drop' is not one of wait, accept"),
        (lambda: steps.a1(groups="question"), "needs calibrator="),
        (lambda: solve(lanes=4, target_lanes=5), "target_lanes=5 is not between 1 and lanes=4"),
        (lambda: solve(steps.a1(chunk=200)), "steps of up to 200 tokens do not fit a cache of 128"),
        (lambda: solve(steps.a1(chunk=4, target_chunk=128)), "chunks of 128 tokens do not fit a cache of 128"),
        (lambda: solve(steps.synchronous(0.4), lanes=12), "lanes=12 do not divide into questions of samples=8"),
        (lambda: solve(calibrator=conformal.adaptive_conformal(groups=3).init()), "made with other groups"),
        (lambda: solve(calibrator=conformal.fixed(0.5).init()), "start with init"),
        (lambda: steps.synchronous(0.4, chunk=0), "chunk=0 is below 1"),
        (lambda: steps.a1(chunk=8.5), "chunk=8.5 is not an integer"),
        (lambda: steps.Segmentation.chunks(8.0), "max_step_tokens=8.0 is not an integer"),
        (lambda: solve(steps.synchronous(0.4), samples=1), "samples=1 leaves nothing to rank"),
        (lambda: solve(steps.a1(calibrator=FROZEN)), "ranks a score among those of a calibration, and there are none"),
        (lambda: solve(steps.a1(calibrator=FROZEN), calibrator=FROZEN.init()), "there are none; pass calibrator="),
        (lambda: solve(steps.a1(calibrator=FROZEN), calibrator=A1.calibrator.init()), "needs RankState"),
        (lambda: solve(BY_QUESTION, PROMPTS[:4]), "made for groups=3, and there are 4 questions"),
    ],
)
def test_bad_input_is_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
