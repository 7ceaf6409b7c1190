"""The checker in the compiled loop against the plain one, on solutions and on what is left of them after accidents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.tasks.arithmetic import LIMIT, MAX_STEPS, Problem, check_text, make_problems, solution_steps, tokenizer
from jaxspec.tasks.arithmetic_check import chain_arrays, check_tokens, start_check, token_kinds
from jaxspec.tasks.symbol_tokenizer import symbol_tokenizer

EOS = 1
KINDS = token_kinds(tokenizer())
start, check = jax.jit(start_check), jax.jit(check_tokens)


def accident(problem: Problem, random: np.random.Generator) -> list[int]:
    """Ids of a solution with a few symbols exchanged, put in or left out; often none."""
    ids = tokenizer().encode("".join(solution_steps(problem)))
    for _ in range(int(random.choice([0, 1, 2, 5, 30]))):
        at = int(random.integers(len(ids)))
        new = random.integers(1 if random.random() < 0.05 else 2, tokenizer().vocabulary_size, size=random.integers(3))
        ids[at : at + int(random.integers(2))] = new.tolist()
    if random.random() < 0.5:
        ids = ids[: int(random.integers(len(ids) + 1))] + [EOS]
    return ids + random.integers(2, 9, size=2).tolist()


def wrong_number(problem: Problem, random: np.random.Generator) -> list[int]:
    """Ids of a solution in which a line's last number is wrong and the lines after go on from it."""
    at = int(random.integers(len(problem.steps)))
    left = problem.values[at] + int(random.integers(1, 9))
    rest = solution_steps(Problem(left, problem.steps[at + 1 :]) if at + 1 < len(problem.steps) else problem)
    line = solution_steps(problem)[at].rpartition("=")[0] + f"={left}\n"
    later = rest if at + 1 < len(problem.steps) else [f"answer {left}\n"]
    return tokenizer().encode("".join([*solution_steps(problem)[:at], line, *later]))


def run(problems: list[Problem], responses: list[list[int]], width: int):
    chain = chain_arrays(problems)
    longest = -(-max(map(len, responses)) // width) * width
    ids = np.full((len(problems), longest), 5, np.int32)
    for row, response in enumerate(responses):
        ids[row, : len(response)] = response
    state = start(chain)
    for at in range(0, longest, width):
        count = np.clip(np.array([len(response) - at for response in responses], np.int32), 0, width)
        state = check(KINDS, chain, state, jnp.asarray(ids[:, at : at + width]), count)
    return jax.device_get(state)


@pytest.mark.parametrize("width", [7, 400])
def test_ids_are_judged_as_the_text_is(width: int) -> None:
    random = np.random.default_rng(0)
    problems = make_problems(400, seed=11)
    responses = [(wrong_number if i % 4 == 0 else accident)(p, random) for i, p in enumerate(problems)]
    state = run(problems, responses, width)
    verdicts = []
    for row, (problem, response) in enumerate(zip(problems, responses, strict=True)):
        until = response.index(EOS) if EOS in response else len(response)
        wanted = check_text(problem, tokenizer().decode(response[:until]), ended=until < len(response))
        lines = min(int(state.lines[row]), state.correct.shape[1])
        text = tokenizer().decode(response)
        assert int(state.lines[row]) == len(wanted.right), text
        assert tuple(state.correct[row, :lines].tolist()) == wanted.right[:lines], text
        assert not state.correct[row, lines:].any()
        assert bool(state.answered[row]) == wanted.answered, text
        assert bool(state.answer_right[row]) == wanted.answer_right, text
        verdicts += wanted.right
    assert 0.2 < np.mean(verdicts) < 0.8  # both verdicts are tried in earnest


def test_limits_are_the_plain_checker_s() -> None:
    cases = [
        (Problem(LIMIT, (("-", 1),)), f"{LIMIT}-1={LIMIT - 1}\n"),
        (Problem(LIMIT, (("+", 1),)), f"{LIMIT}+1={LIMIT + 1}\n"),
        (Problem(10_000, (("*", 9_999),)), "10000*9999=99990000\n"),
        (Problem(10_000, (("*", 10_000),)), "10000*10000=100000000\n"),
        (Problem(1, (("+", 1),)), f"1+1={LIMIT}-{LIMIT}+2=2\n"),
        (Problem(1, (("+", 1),)), f"1+1={LIMIT}+2-{LIMIT}=2\n"),
        (Problem(9, (("%", 5),)), "9%5=9%5*1=4\n"),
        (Problem(9, (("%", 5),)), "9%5=9%0=4\n"),
        (Problem(0, (("*", 5),)), f"0*5=0*{LIMIT}*{LIMIT}=0\n"),
        (Problem(3, (("-", 5),)), "3-5=2\n"),
    ]
    problems, texts = [list(column) for column in zip(*cases, strict=True)]
    state = run(problems, [tokenizer().encode(text) for text in texts], 64)
    wanted = [check_text(problem, text).right[0] for problem, text in cases]
    assert state.correct[:, 0].tolist() == wanted
    assert wanted == [True, False, True, False, True, False, True, False, True, False]


def test_a_step_is_taken_back_by_keeping_the_state() -> None:
    problem = Problem(47, (("+", 86), ("-", 3)))
    chain = chain_arrays([problem])

    def after(state, text: str):
        ids = jnp.array([tokenizer().encode(text)], jnp.int32)
        return check(KINDS, chain, state, ids, jnp.array([ids.shape[1]], jnp.int32))

    before = after(start(chain), "47+86=133\n")
    assert not after(before, "133-3=131\n").correct[0, 1]
    assert after(before, "133-3=130\n").correct[0].tolist() == [True, True, *[False] * (MAX_STEPS - 1)]


def test_foreign_tokenizers_and_long_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="'%' is not one token"):
        token_kinds(symbol_tokenizer([*"0123456789+-*=\n", "answer "]))
    with pytest.raises(ValueError, match="3 operations"):
        chain_arrays([Problem(1, (("+", 1),) * 3)], most=2)
