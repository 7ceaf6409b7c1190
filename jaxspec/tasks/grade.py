"""Grades answers of GSM8K and MATH kind: finds the answer in a text, compares numbers exactly, expressions on request.

The answer is the last complete \\boxed{...}; without one, what follows the last "####"; without that, the last
number. Numbers are compared as fractions, never as floats: 1/2 equals 0.5 and \\frac{1}{2}, 0.333 does not equal 1/3.
Thousands separators, dollar, degree and percent signs and a trailing unit in \\text{...} do not count: 50\\% equals 50.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from jaxspec.tasks.math_verifier import MathVerifier

LONGEST_NUMBER = 400  # characters; what is longer is no number here

PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
RATIO = rf"(?:{PLAIN})/(?:{PLAIN})"
LATEX_RATIO = r"\\[dt]?frac(?:\{-?\d+\}\{\d+\}|\d\d)"
WORD = r"(?<![A-Za-z0-9_])"  # no number begins inside a name such as x2, and no minus behind one is a sign
IN_TEXT = re.compile(rf"{WORD}-?(?:\d*{LATEX_RATIO}|{RATIO}|{PLAIN})")
BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|\s+)")
UNIT = re.compile(r"(?:\\(?:text|textrm|mathrm|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?)+$")
DROPPED = re.compile(r"\\[!,;: ]|\\left|\\right|\\displaystyle|\\?\$|\\?%|\^\{?\\circ\}?|\\degree|\s|~")


class Grade(NamedTuple):
    """Attributes:
    correct: whether the response's answer is right.
    answer: what was found in the response, or None.
    method: what decided: "number", "text", "math-verify" or, without an answer, "none".
    """

    correct: bool
    answer: str | None
    method: str


def grade(response: str, reference: str, verifier: MathVerifier | None = None) -> Grade:
    """Grades a response against a reference solution or answer.

    Args:
      reference: an answer, or a solution that holds one in a box or behind "####".
      verifier: decides where the two are neither numbers nor written alike; without it such answers are wrong.

    Raises:
      ValueError: the reference has no answer.
    """
    wanted = _marked(reference) or reference.strip()
    if not wanted:
        raise ValueError(f"the reference {reference!r} has no answer to grade against")
    answer = extract_answer(response)
    if answer is None:
        return Grade(False, None, "none")
    numbers = exact_number(answer), exact_number(wanted)
    if None not in numbers:
        return Grade(numbers[0] == numbers[1], answer, "number")
    if canonical(answer) == canonical(wanted):
        return Grade(True, answer, "text")
    if verifier is None:
        return Grade(False, answer, "text")
    return Grade(verifier.equal(_bare(wanted), _bare(answer)) is True, answer, "math-verify")


def grade_stated(reference: str, response: str) -> bool:
    """Whether a response states the result its reference states in a box or behind "####", or else says the same."""
    if _marked(reference):
        return grade(response, reference).correct
    return response.strip() == reference.strip()


def extract_answer(text: str) -> str | None:
    """The answer a text states, as written, or None."""
    marked = _marked(text)
    if marked is not None:
        return marked
    numbers = IN_TEXT.findall(text)
    return numbers[-1] if numbers else None


def canonical(answer: str) -> str:
    """A key under which answers that are written differently meet; what voting counts."""
    number = exact_number(answer)
    if number is not None:
        return str(number)
    text = re.sub(r"\\[dt]frac", r"\\frac", _bare(answer))
    return re.sub(r"\\(?:text|textrm|mathrm|mbox)\{([^{}]*)\}", r"\1", text)


def exact_number(answer: str) -> Fraction | None:
    """The value of an answer that is one number, or None: integer, decimal, ratio, LaTeX fraction, mixed number."""
    text = UNIT.sub("", _bare(answer))
    if len(text) > LONGEST_NUMBER:
        return None
    text = re.sub(r"^[a-zA-Z]=", "", text).replace("{,}", ",")
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    mixed = re.fullmatch(rf"(\d*)({LATEX_RATIO})", text)
    if mixed:
        above, below = _latex_ratio(mixed[2])
        if below == 0 or (mixed[1] and above < 0):
            return None
        return sign * (int(mixed[1] or 0) + Fraction(above, below))
    if re.fullmatch(RATIO, text):
        above, below = (_decimal(part) for part in text.split("/"))
        return sign * above / below if below else None
    return sign * _decimal(text) if re.fullmatch(PLAIN, text) else None


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _latex_ratio(text: str) -> tuple[int, int]:
    body = text[text.index("c") + 1 :]
    above, below = body[1:-1].split("}{") if body.startswith("{") else body
    return int(above), int(below)


def _bare(answer: str) -> str:
    """The answer without white space, dollar signs, spacing commands and a final full stop."""
    return DROPPED.sub("", answer).rstrip(".").replace("\N{MINUS SIGN}", "-")


def _marked(text: str) -> str | None:
    """The content of the last complete box, or else the line behind the last "####"; None if there is neither."""
    for match in reversed(list(BOX.finditer(text))):
        content = _braced(text, match.end()) if match.group().endswith("{") else text[match.end() :].split()[:1]
        if content:
            return (content if isinstance(content, str) else content[0].strip("$")).strip() or None
    _, mark, behind = text.rpartition("####")
    return (behind.strip().split("\n")[0].strip() or None) if mark else None


def _braced(text: str, start: int) -> str | None:
    """What stands between the brace before `start` and its partner, or None if that is missing."""
    depth, at = 1, start
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[start:at]
        at += 1
    return None
