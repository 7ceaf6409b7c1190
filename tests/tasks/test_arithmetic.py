"""The arithmetic task: solutions that arithmetic confirms, bands that differ, a checker that knows right from wrong."""

import re
from collections import Counter

import numpy as np
import pytest

from jaxspec.tasks.arithmetic import (
    BANDS,
    LIMIT,
    MAX_STEPS,
    Band,
    Check,
    Problem,
    check_text,
    example,
    grade,
    make_problems,
    prompt_text,
    solution_steps,
    tokenizer,
)

EXAMPLE = Problem(47, (("+", 86), ("*", 13), ("%", 29)))


def test_the_example_as_documented() -> None:
    assert prompt_text(EXAMPLE) == "47 +86 *13 %29:\n"
    assert solution_steps(EXAMPLE) == [
        "47+86=133\n",
        "133*13=133*10+133*3=1330+399=1729\n",
        "1729%29=18\n",
        "answer 18\n",
    ]


@pytest.mark.parametrize("band", [*BANDS, "mixed"])
def test_solutions_are_arithmetic(band: str) -> None:
    """Against Python's own arithmetic on the text of prompt and solution."""
    for problem in make_problems(60, seed=5, band=band):
        start, *asked = prompt_text(problem).removesuffix(":\n").split(" ")
        *lines, answer = solution_steps(problem)
        carried = start
        for step, line in zip(asked, lines, strict=True):
            first, *others = line.removesuffix("\n").split("=")
            assert first == carried + step
            assert {eval(part) for part in others} == {eval(first)}
            carried = others[-1]
        assert answer == f"answer {carried}\n"
        assert check_text(problem, "".join(solution_steps(problem))) == Check((True,) * (len(lines) + 1), True, True)


@pytest.mark.parametrize("name", BANDS)
def test_bands_bound_their_numbers(name: str) -> None:
    band, problems = BANDS[name], make_problems(300, seed=1, band=name)
    counts = {len(problem.steps) for problem in problems}
    assert counts == set(range(band.steps[0], band.steps[1] + 1))
    assert all(0 <= value < 10**band.digits for problem in problems for value in (problem.start, *problem.values))
    seen = Counter(step[0] for problem in problems for step in problem.steps)
    assert set(seen) == {name for name, weight in zip("+-*%", band.weights, strict=True) if weight}
    factors = [operand for problem in problems for operation, operand in problem.steps if operation in "*%"]
    assert all(2 <= factor <= band.factor for factor in factors)


def test_bands_grow_in_length_and_size() -> None:
    lengths = [
        np.mean([len(tokenizer().encode("".join(solution_steps(p)))) for p in make_problems(200, seed=2, band=name)])
        for name in ("easy", "medium", "hard")
    ]
    assert lengths[0] * 1.1 < lengths[1] < lengths[2] / 1.1
    steps = [len(step) for p in make_problems(200, seed=2, band="hard") for step in solution_steps(p)]
    assert np.std(steps) > 0.3 * np.mean(steps)
    assert MAX_STEPS == 5


def test_examples_are_new_in_every_split_and_fit_their_band() -> None:
    examples = {split: [example(3, i, split) for i in range(90)] for split in ("train", "held_out")}
    assert examples["train"][:5] == [example(3, i) for i in range(5)]
    drawn = [prompt for split in examples.values() for prompt, _ in split[2::3]]  # of the hard band
    assert len(set(drawn)) == len(drawn)
    assert max(len(prompt + solution) for split in examples.values() for prompt, solution in split) <= 104
    with pytest.raises(ValueError, match="longest=9"):
        make_problems(1, 0, Band((2, 3), 2, (1, 1, 0, 0), 9, longest=9))


def test_grading_reads_the_answer_line_alone() -> None:
    solution = example(0, 0)[1]
    value = solution.split()[-1]
    assert grade(solution, solution) and grade(solution, f"1+1=3\nanswer {value}\nanswer 1")
    assert not grade(solution, f"answer 0{value}") and not grade(solution, "no answer")


def test_a_problem_depends_on_its_seed_and_place_alone() -> None:
    assert make_problems(9, seed=3) == make_problems(30, seed=3)[:9]
    assert make_problems(30, seed=3) != make_problems(30, seed=4)
    assert len(set(make_problems(300, seed=3, band="hard"))) > 295


def test_prompts_and_solutions_are_spelt_by_the_tokenizer() -> None:
    for problem in make_problems(30, seed=7):
        text = prompt_text(problem) + "".join(solution_steps(problem))
        ids = tokenizer().encode(text)
        assert 0 not in ids and tokenizer().decode(ids) == text
        assert len(ids) == len(text) - len("answer ") + 1
        assert re.fullmatch(r"\d+( [-+*%]\d+)+:\n", prompt_text(problem))


@pytest.mark.parametrize(
    ("text", "right", "answered", "answer_right"),
    [
        ("", (), False, False),
        ("47+86=133", (), False, False),
        ("47+86=133\n133*13=1729\n", (True, True), False, False),
        ("47+86=134\n134*13=1742\n1742%29=2\nanswer 2\n", (False, True, True, True), True, False),
        ("47+86=134\n133*13=1729\n", (False, False), False, False),  # does not go on from what it wrote
        ("47+86=13x3\n133*13=1729\n", (False, False), False, False),
        ("86+47=133\n", (False,), False, False),
        ("47+86=0133\n", (False,), False, False),
        ("47+86=40+86+7=133\n", (True,), False, False),
        ("47+86=40+80=133\n", (False,), False, False),  # wrong scratch work
        ("47+86=130+3\n", (False,), False, False),  # no number at the end
        ("47+86\n", (False,), False, False),
        ("133\n", (False,), False, False),
        ("\n47+86=133\n", (False, False), False, False),
        ("47+86=133=\n", (False,), False, False),
        ("47+86=133\nanswer 18\n", (True, False), True, True),  # skipped steps, right answer
        ("answer 18\n47+86=133\n", (False,), True, True),
        ("47+86=133\n133*13=1729\n1729%29=18\nanswer 19\n", (True, True, True, False), True, False),
        ("47+86=133\n133*13=1729\n1729%29=18\n18+1=19\nanswer 19\n", (True, True, True, False, False), True, False),
        ("answer answer 18\n", (False,), True, False),
        ("answer 018\n", (False,), True, False),
    ],
)
def test_what_counts_as_right(text: str, right: tuple[bool, ...], answered: bool, answer_right: bool) -> None:
    assert check_text(EXAMPLE, text) == Check(right, answered, answer_right)


def test_the_end_of_the_text_ends_its_line() -> None:
    assert check_text(EXAMPLE, "answer 18", ended=True) == Check((False,), True, True)
    assert check_text(EXAMPLE, "answer 18\n", ended=True) == Check((False,), True, True)
    assert check_text(EXAMPLE, "", ended=True) == Check((), False, False)


def test_values_beyond_the_limit_are_wrong() -> None:
    big = Problem(LIMIT, (("+", 1),))
    assert not check_text(big, f"{LIMIT}+1={LIMIT + 1}\n").right[0]
    product = Problem(10_000, (("*", 10_000),))
    assert not check_text(product, "10000*10000=100000000\n").right[0]
    assert check_text(Problem(1, (("+", 1),)), f"1+1={LIMIT}-{LIMIT}+2=2\n").right[0]
    assert not check_text(Problem(1, (("+", 1),)), f"1+1={LIMIT}+2-{LIMIT}=2\n").right[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": (0, 3)}, "steps"),
        ({"steps": (4, 3)}, "steps"),
        ({"digits": 7}, "digits=7"),
        ({"weights": (1.0, 0.0, 1.0, 0.0)}, "weights"),
        ({"weights": (1.0, 1.0, -1.0, 0.0)}, "weights"),
        ({"factor": 100}, "factor=100"),
    ],
)
def test_bad_bands_are_refused(setting: dict, message: str) -> None:
    good = {"steps": (1, 3), "digits": 2, "weights": (1.0, 1.0, 1.0, 1.0), "factor": 9}
    with pytest.raises(ValueError, match=message):
        Band(**(good | setting))


def test_an_unknown_band_is_refused() -> None:
    with pytest.raises(ValueError, match="'harder'.*easy"):
        make_problems(1, 0, "harder")
