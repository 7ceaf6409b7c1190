"""The step loop against a plain simulation in Python, whoever writes and however many lanes there are."""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import greedy_continuation, toy_model
from toy_steps import CAP, CUT, DRAFT, NEW, POLICIES, PROMPTS, SCORER, TARGET

from jaxspec import drafters, generate, steps
from jaxspec.engine.request import Request
from jaxspec.engine.step_job import build_step_job, step_settings
from jaxspec.steps.loop import run_slice


def plain_score(text: list[int], start: int) -> float:
    return float(np.float32(sum((text[i] * 37 + i * 11) % 101 for i in range(start, len(text))) % 97) / np.float32(97))


def is_end(step: list[int]) -> bool:
    return len(step) >= CAP or step[-1] == 0 or step[-2:] == [2, 3]


def write_step(lm, text: list[int], limit: int) -> list[int]:
    step: list[int] = []
    while len(text) + len(step) < limit and not (step and is_end(step)):
        step += greedy_continuation(lm, text + step, 1)
    return step


@dataclasses.dataclass
class Plain:
    text: list[int]
    authors: list[str]
    escalations: int


def simulate(policy: str, threshold: float, prompt: list[int], new: int = NEW) -> Plain:
    text, authors, escalations, limit = list(prompt), [], 0, len(prompt) + new
    while len(text) < limit:
        if policy == "target_only":
            text += write_step(TARGET, text, limit)
            authors.append("target")
            continue
        start = len(text)
        ours = text + write_step(DRAFT, text, limit)
        score = plain_score(ours, start)
        if policy == "continue":
            text, escalate = ours, score < threshold and len(ours) < limit
            authors.append("draft")
            if escalate:
                text = text + write_step(TARGET, text, limit)
                authors.append("target")
        elif policy == "compare":
            theirs = text + write_step(TARGET, text, limit)
            escalate = np.float32(plain_score(theirs, start)) - np.float32(score) > threshold
            text = theirs if escalate else ours
            authors.append("target" if escalate else "draft")
        else:
            escalate = score < threshold
            text = text + write_step(TARGET, text, limit) if escalate else ours
            authors.append("target" if escalate else "draft")
        escalations += escalate
    return Plain(text[len(prompt) :], authors, escalations)


FAST_AND_SLOW = ["replace", *(pytest.param(name, marks=pytest.mark.slow) for name in ("continue", "compare"))]


def solve(policy, prompts=PROMPTS, **settings):
    return steps.solve(
        DRAFT, TARGET, policy, prompts, segmentation=CUT, **{"max_new_tokens": NEW, "cache": 128, **settings}
    )


@pytest.mark.parametrize(
    ("name", "threshold", "lanes"),
    [
        ("replace", 0.6, {"lanes": 4, "target_lanes": 1}),
        pytest.param("replace", 0.3, {"lanes": 1}, marks=pytest.mark.slow),
        pytest.param("continue", 0.6, {"lanes": 1}, marks=pytest.mark.slow),
        ("continue", 0.3, {"lanes": 8, "target_lanes": 3, "wave": 1.0}),
        pytest.param("compare", 0.0, {"lanes": 4, "target_lanes": 2}, marks=pytest.mark.slow),
        ("compare", 0.2, {"lanes": 8, "target_lanes": 3, "wave": 1.0}),
    ],
)
def test_texts_and_authors_equal_a_simulation(name: str, threshold: float, lanes: dict) -> None:
    solution = solve(POLICIES[name](threshold), **lanes)
    for prompt, solved in zip(PROMPTS, solution.problems, strict=True):
        plain = simulate(name, threshold, prompt)
        assert solved.ids == plain.text
        assert [step.author for step in solved.steps] == plain.authors
        assert sum(step.escalated and step.drafted > 0 for step in solved.steps) == plain.escalations
        assert solved.finish == "length"
        assert [i for step in solved.steps for i in step.ids] == solved.ids
    assert solution.statistics.most_with_target <= lanes.get("target_lanes", lanes["lanes"])


@pytest.mark.parametrize("policy", [steps.target_only(), steps.rsd(math.inf, SCORER)])
def test_the_limit_of_the_target_is_plain_decoding(policy) -> None:
    expected = [greedy_continuation(TARGET, prompt, NEW) for prompt in PROMPTS]
    assert solve(policy, lanes=4).ids == expected


@pytest.mark.parametrize("policy", [steps.draft_only(), steps.random(0.0)])
def test_the_limit_of_the_draft_is_plain_decoding_and_never_runs_the_target(policy) -> None:
    solution = solve(policy, lanes=4)
    assert solution.ids == [greedy_continuation(DRAFT, prompt, NEW) for prompt in PROMPTS]
    statistics = solution.statistics
    assert statistics.target_passes == statistics.target_reads == statistics.escalations == 0


@functools.lru_cache
def alone(name: str) -> list[list[int]]:
    return [solve(POLICIES[name](0.5), [prompt]).ids[0] for prompt in PROMPTS]


@pytest.mark.parametrize("name", FAST_AND_SLOW)
def test_a_text_does_not_depend_on_neighbours_order_or_lockstep(name: str) -> None:
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    shuffled = solve(POLICIES[name](0.5), [PROMPTS[i] for i in order], lanes=3, slice_ticks=7)
    assert shuffled.ids == [alone(name)[i] for i in order]
    locked = solve(POLICIES[name](0.5), lanes=4, lockstep=True)
    assert locked.ids == alone(name)


@pytest.mark.parametrize("name", FAST_AND_SLOW)
def test_token_drafters_change_nothing_but_the_passes(name: str) -> None:
    plain = solve(POLICIES[name](0.5), lanes=4)
    drafted = solve(
        POLICIES[name](0.5),
        lanes=4,
        target_lanes=2,
        drafter=drafters.suffix(width=4, rows=2),
        target_drafter=drafters.context_ngram(width=5, query=1),
    )
    assert drafted.ids == plain.ids
    assert [p.steps for p in drafted.problems] == [p.steps for p in plain.problems]
    assert drafted.statistics.draft_calls < plain.statistics.draft_calls


@pytest.mark.parametrize("width", [4])
def test_the_target_drafts_from_the_step_it_replaces(width: int) -> None:
    """A target that is the draft says the rejected step again, in as few passes as its tokens fit."""
    settings = dict(segmentation=CUT, max_new_tokens=NEW, cache=128, lanes=4)
    policy = steps.rsd(math.inf, SCORER)
    reuse = steps.solve(
        DRAFT, DRAFT, policy, PROMPTS, target_drafter=steps.rejected_step(width, step_tokens=CAP), **settings
    )
    assert reuse.ids == [greedy_continuation(DRAFT, prompt, NEW) for prompt in PROMPTS]
    for solved in reuse.problems:
        assert solved.work["target_calls"] == sum(math.ceil(len(s.ids) / (width + 1)) for s in solved.steps)
    other = solve(policy, lanes=4)
    again = solve(policy, lanes=4, target_drafter=steps.rejected_step(width, step_tokens=CAP))
    assert again.ids == other.ids
    assert again.statistics.target_calls < other.statistics.target_calls


def test_samples_have_seeds_of_their_own() -> None:
    settings = dict(samples=3, temperature=1.5, seed=5, lanes=4)
    first = solve(POLICIES["replace"](0.5), **settings)
    again = solve(POLICIES["replace"](0.5), PROMPTS[:4], **(settings | {"lanes": 2}))
    assert again.ids == first.ids[:12]
    for question in range(len(PROMPTS)):
        mine = first.problems[3 * question : 3 * question + 3]
        assert [p.sample for p in mine] == [0, 1, 2] and {p.question for p in mine} == {question}
        assert len({tuple(p.ids) for p in mine}) == 3


@pytest.mark.parametrize("name", ["replace", "continue", pytest.param("compare", marks=pytest.mark.slow)])
def test_every_token_and_pass_is_accounted_for(name: str) -> None:
    solution = solve(POLICIES[name](0.5), lanes=4, target_lanes=2)
    for solved in solution.problems:
        work = solved.work
        by_target = [step for step in solved.steps if step.author == "target"]
        drafted = sum(step.drafted for step in solved.steps)
        assert work["draft_tokens"] == drafted == work["draft_calls"]
        assert work["target_calls"] == work["target_tokens"] >= sum(len(step.ids) for step in by_target)
        if name != "compare":
            assert work["target_tokens"] == sum(len(step.ids) for step in by_target)
            if not by_target:
                assert work["target_reads"] == 0
    statistics = solution.statistics
    assert statistics.tokens == len(PROMPTS) * NEW
    assert statistics.discarded == statistics.draft_tokens - (statistics.tokens - statistics.target_kept)
    assert sum(statistics.lane_ticks.values()) == 4 * statistics.ticks
    assert 0 < statistics.target_utilisation <= 1


def test_the_better_step_is_never_worse_than_either() -> None:
    solution = solve(POLICIES["compare"](0.0), PROMPTS[:4], lanes=8, target_lanes=3, wave=1.0)
    for solved in solution.problems:
        for step in solved.steps:
            kept = step.target_score if step.author == "target" else step.score
            assert kept == max(step.score, step.target_score)


def test_one_program_for_seeds_problems_and_thresholds_of_one_policy() -> None:
    policy = POLICIES["replace"](0.5)
    settings = dict(temperature=1.0, lanes=2, slice_ticks=9)
    solve(policy, PROMPTS[:3], seed=1, **settings)
    before = run_slice._cache_size()
    solve(policy, PROMPTS[3:9], seed=2, **settings)
    solve(policy, PROMPTS[2:5], seed=3, **(settings | {"temperature": 0.7}))
    found = [solve(POLICIES["replace"](threshold), PROMPTS[:3], seed=1, **settings) for threshold in (0.2, 0.9)]
    assert found[0].statistics.escalation_rate < found[1].statistics.escalation_rate
    assert run_slice._cache_size() == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": 0}, "samples=0 is below 1"),
        ({"lanes": 0}, "lanes=0 is below 1"),
        ({"lanes": 2, "target_lanes": 3}, "target_lanes=3 is not between 1 and lanes=2"),
        ({"wave": 0.0}, "wave=0.0 is not a share"),
        ({"max_steps": 0}, "max_steps=0 is below 1"),
        ({"cache": 6}, "steps of up to 6 tokens do not fit a cache of 6"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1 is negative"),
    ],
)
def test_bad_settings(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        solve(steps.draft_only(), **settings)


def test_scores_that_are_no_numbers_are_worst_and_counted_and_a_step_cap_ends_a_text() -> None:
    def score(params, context) -> jnp.ndarray:
        return jnp.full(context.start.shape, jnp.nan)

    solution = solve(steps.rsd(0.5, steps.TextScore(score)), max_steps=2, lanes=4)
    statistics = solution.statistics
    assert statistics.unusable == statistics.escalations == statistics.decisions == 2 * len(PROMPTS)
    for prompt, solved in zip(PROMPTS, solution.problems, strict=True):
        assert [step.author for step in solved.steps] == ["target"] * 2 and solved.finish == "steps"
        first = write_step(TARGET, list(prompt), len(prompt) + NEW)
        assert solved.ids == first + write_step(TARGET, prompt + first, len(prompt) + NEW)


def breaking_after(lm, token: int):
    """The model with logits that are no numbers behind a token."""
    table = lm.params["table"].at[token :: lm.config.vocabulary].set(jnp.nan)
    return dataclasses.replace(lm, params={"table": table})


def shortness(params, context) -> jnp.ndarray:
    return 1.0 / (1.0 + (context.end - context.start).astype(jnp.float32))


@pytest.mark.parametrize("threshold", [0.0, 0.9])
@pytest.mark.parametrize("broken", ["draft", "target"])
def test_a_step_that_broke_off_never_stands_for_a_whole_one(broken: str, threshold: float) -> None:
    """Of the score that likes short steps best, and whatever the margin."""
    models = {"draft": DRAFT, "target": TARGET}
    models[broken] = breaking_after(models[broken], 6)
    policy = steps.oracle(threshold, steps.TextScore(shortness))
    solution = steps.solve(**models, policy=policy, problems=PROMPTS, segmentation=CUT, max_new_tokens=NEW, cache=128)
    made = [step for solved in solution.problems for step in solved.steps]
    scores = [(step.score, step.target_score)[broken == "target"] for step in made]
    authors = {step.author for step, score in zip(made, scores, strict=True) if score is None}
    assert authors == {"draft", "target"} - {broken}
    assert {solved.finish for solved in solution.problems} == {"length"}
    assert solution.statistics.unusable == scores.count(None) > 5


def test_steps_are_no_limit_of_their_own() -> None:
    settings = dict(max_new_tokens=100, temperature=2.0, seed=3)
    chunks = steps.Segmentation.chunks(1)
    found = steps.solve(DRAFT, TARGET, steps.target_only(), PROMPTS[:3], segmentation=chunks, **settings)
    plain = generate(TARGET, PROMPTS[:3], **settings)
    assert found.ids == plain.ids and [len(solved.steps) for solved in found.problems] == [100] * 3
    assert [solved.finish for solved in found.problems] == plain.finish == ["length"] * 3
    assert [step.turn for step in found.problems[0].steps] == list(range(100))


@pytest.mark.parametrize(
    ("policy", "settings", "expected"),
    [
        (steps.target_only(), {}, (256, 256)),
        (steps.target_only(), {"max_turns": 5}, (5, 5)),
        (steps.rsd(0.5, SCORER), {"max_steps": 5, "max_turns": 9}, (5, 9)),
        (steps.a1(samples=1, turns=5, chunk=4), {}, (10, 5)),
        (steps.a1(samples=1, turns=999, chunk=4), {}, (256, 256)),
        (steps.a1(samples=1, turns=9, chunk=4), {"max_steps": 5}, (10, 5)),
    ],
)
def test_a_text_may_have_as_many_steps_as_tokens_unless_told_otherwise(policy, settings, expected) -> None:
    job = build_step_job(
        *(toy_model(seed, context=512) for seed in (1, 2)),
        policy,
        [Request((1, 2), 200)],
        step_settings(policy, **{"segmentation": CUT, **settings}),
    )
    assert (job.program.max_steps, job.program.max_turns) == expected


def test_a_scorer_without_its_model_is_refused() -> None:
    with pytest.raises(ValueError, match="policy 'arbitrage' scores steps with a model of its own; pass scorer="):
        solve(steps.arbitrage(0.5))


def test_models_of_different_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="the target has 5 ids and the draft 7"):
        steps.solve(DRAFT, toy_model(0, vocabulary=5), steps.draft_only(), [[1]], segmentation=CUT)


@pytest.mark.parametrize(("temperature", "policy", "last"), [
    (0.0, steps.rsd(0.5, SCORER), "abc"),
    (1.5, steps.rsd(0.5, SCORER), "defg"),
    (1.5, steps.draft_only(), "abc"),
])  # fmt: skip
def test_a_token_that_was_drawn_to_prove_an_end_is_not_drawn_again(temperature, policy, last) -> None:
    """Where noise is the step's own, a second draw would make such tokens rarer than the model does."""
    ends = tuple(end + proof for end in "abc" for proof in "defg")
    cut = steps.Segmentation(ends, CAP, lookahead=1)
    out = steps.solve(DRAFT, TARGET, policy, PROMPTS, segmentation=cut, temperature=temperature, max_new_tokens=NEW)
    ended = [step.text for problem in out.problems for step in problem.steps[:-1] if len(step.ids) < CAP]
    assert len(ended) > 20 and all(text[-1] in last for text in ended)
