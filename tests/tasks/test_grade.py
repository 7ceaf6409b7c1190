"""Answers found in texts and compared: exact numbers, spellings, expressions by a verifier, and what must not pass."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.tasks.grade import canonical, exact_number, extract_answer, grade


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{3} and then \boxed{4}.", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}} of 7", r"\{1, 2\}"),
        (r"\fbox{5}", "5"),
        (r"$\boxed 7$", "7"),
        (r"\boxed{3}, no: \boxed{4", "3"),  # cut off in the middle of the last box
        (r"\boxed{4} #### 5", "4"),
        ("#### 12\nbut 3 #### 1,300\nwords 9", "1,300"),
        ("We have 3 apples and 12 pears, so 15 fruits.", "15"),
        ("It costs $1,234.50.", "1,234.50"),
        ("The share is 3/4 of it", "3/4"),
        ("It is -7", "-7"),
        ("5-3 leaves 2; x2 is unused", "2"),
        ("answer 370\n", "370"),
        ("pages 10-12", "12"),
        ("see x12 and 3 of x_45", "3"),
        (r"about -2\frac{1}{2} miles", r"-2\frac{1}{2}"),
        ("no number here", None),
        (r"\boxed{}", None),
        ("", None),
    ],
)
def test_where_the_answer_is(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("-18.", -18),
        ("\N{MINUS SIGN}18", -18),
        ("$1,234,567.50", Fraction(2469135, 2)),
        ("1{,}000", 1000),
        (".5", Fraction(1, 2)),
        ("10 \\%", 10),
        ("90^\\circ", 90),
        ("90^{\\circ}", 90),
        ("3/4", Fraction(3, 4)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("\\frac34", Fraction(3, 4)),
        ("1\\frac{1}{2}", Fraction(3, 2)),
        ("12\\text{ cm}^2", 12),
        ("x = 5", 5),
        ("007", 7),
        ("1/0", None),
        ("\\frac{1}{0}", None),
        ("1,23", None),
        ("2\\sqrt{3}", None),
        ("(1,2)", None),
        ("1e5", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_exact_numbers(text: str, value: Fraction | int | None) -> None:
    assert exact_number(text) == value


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**6))
def test_ratios_are_read_exactly(above: int, below: int) -> None:
    value = Fraction(above, below)
    assert exact_number(f"{above}/{below}") == value
    assert exact_number(f"\\frac{{{above}}}{{{below}}}") == value
    assert exact_number(f"{above:,}") == above
    assert canonical(f"${above}/{below}$") == canonical(str(value))


@given(st.text(max_size=60))
def test_any_text_is_graded(text: str) -> None:
    assert grade(text, "1").correct == (exact_number(extract_answer(text) or "") == 1)


@pytest.mark.parametrize(
    ("response", "reference", "correct", "method"),
    [
        ("The answer is 18.", "She has 16 - 3 <<16-3=13>>.\n#### 18", True, "number"),
        ("The answer is 18.0", "18", True, "number"),
        ("0.333", r"\frac13", False, "number"),
        ("0.1", "1/10", True, "number"),
        ("it is 100000000000000001", "100000000000000000", False, "number"),  # equal as floats
        (r"\boxed{\dfrac{\pi}{2}}", r"thus \boxed{\frac{\pi}{2}}", True, "text"),
        (r"\boxed{\text{Monday}}", "Monday", True, "text"),
        (r"\boxed{\left( 3, 4 \right)}", "(3,4)", True, "text"),
        (r"\boxed{(3,5)}", "(3,4)", False, "text"),
        ("I do not know", "4", False, "none"),
    ],
)
def test_grades(response: str, reference: str, correct: bool, method: str) -> None:
    found = grade(response, reference)
    assert (found.correct, found.method) == (correct, method)


def test_the_verifier_decides_what_is_left() -> None:
    asked = []

    class Verifier:
        def __init__(self, verdict: bool | None) -> None:
            self.verdict = verdict

        def equal(self, reference: str, answer: str) -> bool | None:
            asked.append((reference, answer))
            return self.verdict

    for verdict in (True, False, None):
        found = grade(r"\boxed{\sqrt{8}}", r"$2\sqrt{2}$", Verifier(verdict))  # type: ignore[arg-type]
        assert found == (verdict is True, r"\sqrt{8}", "math-verify")
    assert asked == [(r"2\sqrt{2}", r"\sqrt{8}")] * 3
    assert grade("5", "6", Verifier(True)).method == "number"  # type: ignore[arg-type]
    assert len(asked) == 3


def test_a_reference_without_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no answer"):
        grade("4", "  ")
