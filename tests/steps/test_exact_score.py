"""Exact step scores in the compiled loop against the plain checker, and the shape of the noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec import steps
from jaxspec.steps.exact_score import exact_score, judge, noisy_score, read_prompts
from jaxspec.steps.scorers import RandomScore
from jaxspec.tasks.arithmetic import Problem, check_text, make_problems, prompt_text, solution_steps, tokenizer
from jaxspec.tasks.arithmetic_check import chain_arrays, token_kinds

KINDS = jnp.asarray(token_kinds(tokenizer()))
LENGTH = 160


def contexts(cases: list[tuple[Problem, str, str]], seed: int = 0) -> steps.StepContext:
    """Of (problem, response so far, step)."""
    tokens = np.zeros((len(cases), LENGTH), np.int32)
    rows = []
    for row, (problem, before, step) in enumerate(cases):
        parts = [tokenizer().encode(part) for part in (prompt_text(problem), before, step)]
        ids = [token for part in parts for token in part]
        tokens[row, : len(ids)] = ids
        tokens[row, len(ids) :] = 5  # undefined beyond the end: digits that must not matter
        rows.append([len(parts[0]), len(parts[0] + parts[1]), len(ids)])
    prompt, start, end = np.array(rows, np.int32).T
    turn = np.arange(len(cases), dtype=np.int32)
    many = np.full(len(cases), seed, np.uint32)
    return steps.StepContext(*map(jnp.asarray, (tokens, prompt, start, end, many, turn, np.ones(len(cases), bool))))


@functools.cache
def compiled(function):
    return jax.jit(function)


def score(scorer: steps.TextScore, context: steps.StepContext) -> np.ndarray:
    return np.asarray(compiled(scorer.function)(scorer.prepare(), context))


def test_prompts_are_read_as_they_were_written() -> None:
    problems = make_problems(60, seed=4)
    context = contexts([(problem, "", "") for problem in problems])
    read = jax.jit(read_prompts)(KINDS, context.tokens, context.prompt_length)
    for found, wanted in zip(read, chain_arrays(problems), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_scores_equal_the_plain_checker() -> None:
    random, cases = np.random.default_rng(0), []
    for problem in make_problems(60, seed=5):
        lines, text = solution_steps(problem), ""
        for line in lines:
            if random.random() < 0.4:  # a wrong digit somewhere
                at = int(random.integers(len(line) - 1))
                line = line[:at] + str(random.integers(10)) + line[at + 1 :]
            cases.append((problem, text, line))
            text += line
    wanted = []
    for problem, before, step in cases:
        ahead = len(check_text(problem, before).right)
        right = check_text(problem, before + step).right
        wanted.append(float(len(right) == ahead + 1 and right[-1]))
    assert 0.2 < np.mean(wanted) < 0.9
    np.testing.assert_array_equal(score(exact_score(), contexts(cases)), wanted)


def test_a_step_counts_only_if_it_ends_a_line() -> None:
    problem = Problem(47, (("+", 86), ("*", 3)))
    cases = [
        (problem, "", "47+86=133"),  # cut off
        (problem, "", "47+86=133\n"),
        (problem, "47+86=13\n", "13*3=39\n"),  # right given a wrong step
        (problem, "47+86=133\n133*3=399\n", "answer 399<eos>"),
        (problem, "47+86=133\n133*3=399\nanswer 399\n", "<eos>"),  # nothing left to say
    ]
    assert score(exact_score(), contexts(cases)).tolist() == [0, 1, 1, 1, 0]
    assert compiled(judge)(KINDS, contexts(cases)).difficulty.tolist() == [0, 0, 1, 0, 0]


def test_noise_is_keyed_by_seed_and_turn_and_shaped_as_said() -> None:
    problem = Problem(47, (("*", 3),))
    right, wrong = (contexts([(problem, "", f"47*3={value}\n")] * 400) for value in (141, 142))
    scorer = noisy_score(1.5, bias=-0.5, noise=0.8)
    logits = [np.log(s / (1 - s)) for s in (score(scorer, right), score(scorer, wrong))]
    np.testing.assert_allclose(logits[0] - logits[1], 3.0, atol=1e-3)
    assert abs(np.mean(logits[0]) - 1.0) < 0.15 and abs(np.std(logits[0]) - 0.8) < 0.1
    again = contexts([(problem, "", "47*3=141\n")] * 400, seed=1)
    assert not np.array_equal(score(scorer, again), score(scorer, right))
    np.testing.assert_array_equal(score(scorer, right), score(scorer, right))
    perfect = score(noisy_score(30.0, noise=0.0), right), score(noisy_score(30.0, noise=0.0), wrong)
    assert min(perfect[0]) > 0.999 and max(perfect[1]) < 0.001


def test_chance_is_even_and_differs_between_problems() -> None:
    chance = RandomScore().score
    problems = make_problems(300, seed=8)
    context = contexts([(problem, "", solution_steps(problem)[0]) for problem in problems])
    context = context._replace(turn=jnp.zeros_like(context.turn))
    drawn = chance((), context)
    assert abs(np.mean(drawn < 0.3) - 0.3) < 0.09 and len(set(np.asarray(drawn).tolist())) > 250
    later = context._replace(tokens=context.tokens.at[:, -1].set(3), end=context.end - 1)
    np.testing.assert_array_equal(chance((), later), drawn)  # of the prompt and turn alone
    assert np.mean(chance((), context._replace(turn=context.turn + 1)) == drawn) < 0.05


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="noise=-1"):
        noisy_score(1.0, noise=-1.0)
    with pytest.raises(ValueError, match="sharpness=inf"):
        noisy_score(float("inf"))
