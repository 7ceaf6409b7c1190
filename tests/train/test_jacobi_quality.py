"""Shares of right answers, on answers written by hand."""

from types import SimpleNamespace

from jaxspec.train import jacobi_quality as module
from jaxspec.train.jacobi_quality import jacobi_quality


def said(ids: list[list[int]]) -> SimpleNamespace:
    return SimpleNamespace(ids=ids, texts=[str(row) for row in ids], statistics=SimpleNamespace(tokens_per_call=1.5))


def test_a_mode_that_errs_says_nothing_of_the_next(monkeypatch) -> None:
    answers = iter([said([[1], [2]]), said([[3], [2]]), said([[1], [2]]), said([[3], [3]]), said([[1], [2]])])
    monkeypatch.setattr(module, "generate", lambda *arguments, **settings: next(answers))
    found = jacobi_quality(None, ["a", "b"], lambda index, text: text == str([index + 1]), sizes=(4, 8))  # pyright: ignore[reportArgumentType]
    assert [(each.mode, each.exact_match, each.identical) for each in found] == [
        ("plain", 1.0, True),
        ("block", 0.5, False),
        ("rolling", 1.0, True),
        ("block", 0.0, False),
        ("rolling", 1.0, True),
    ]
