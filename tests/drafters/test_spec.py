"""Drafters written as text."""

import pytest

from jaxspec import drafters
from jaxspec.drafters.spec import parse_drafter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", drafters.autoregressive()),
        ("autoregressive", drafters.autoregressive()),
        ("plain:padding=3", drafters.autoregressive(padding=3)),
        ("context_ngram", drafters.context_ngram()),
        ("context_ngram:", drafters.context_ngram()),
        (" context_ngram: width=4 , query=2 ", drafters.context_ngram(width=4, query=2)),
        ("jacobi:n=4,mode=rolling,init=repeat", drafters.jacobi(4, "rolling", "repeat")),
        ("draft_model:lm=self:int8,length=2", drafters.draft_model("self:int8", 2)),
    ],
)
def test_names_and_settings(text, expected):
    assert parse_drafter(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown drafter ''; known: plain, .*context_ngram"),
        ("ngram:width=3", "unknown drafter 'ngram'; known: plain, .*context_ngram"),
        ("context_ngram:w=3", "no setting 'w'; it has: width, query"),
        ("context_ngram:width", "'width' is not of the form key=value"),
        ("context_ngram:width=ten", "width=ten is not of type int"),
        ("context_ngram:width=2.5", "width=2.5 is not of type int"),
        ("context_ngram:width=2,width=3", "sets 'width' twice"),
        ("context_ngram:width=0", "width=0 is below 1"),
        ("jacobi:mode=sliding", "mode='sliding' is unknown; choose one of block, rolling"),
        ("draft_model", "drafter 'draft_model' needs lm; write draft_model:lm=VALUE"),
        ("draft_model:length=2", "drafter 'draft_model' needs lm"),
    ],
)
def test_malformed_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_drafter(text)
