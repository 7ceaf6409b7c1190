"""Streamed pieces add up to the whole text, in whole characters, however ids arrive."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import toy_model

import jaxspec
from jaxspec.decode.stop import trim_text
from jaxspec.engine.text import UNFINISHED, TextStream


class Bytes:
    """Id i is byte i."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return bytes(ids).decode(errors="replace")


class Spaced:
    """Like sentencepiece: words begin with a space, which the first one of a text loses."""

    words = [" a", " b", "c", " dog", "s"]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return "".join(self.words[i] for i in ids).removeprefix(" ")


def chunks(ids: Sequence[int], cuts: list[int]) -> list[Sequence[int]]:
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [ids[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def pieces_of(tokenizer, ids: Sequence[int], cuts: list[int], stops: list[str]) -> list[str]:
    stream = TextStream(tokenizer, stops)
    pieces = [stream.push(list(chunk)) for chunk in chunks(ids, cuts)]
    return [*pieces, stream.flush()]


TEXT = st.text(alphabet="abé€😀e\u0301\n", max_size=20)
CUTS = st.lists(st.integers(0, 1000), max_size=12)


@given(TEXT, CUTS, st.lists(st.text(alphabet="abé😀", min_size=1, max_size=3), max_size=2))
def test_pieces_add_up(text: str, cuts: list[int], stops: list[str]) -> None:
    pieces = pieces_of(Bytes(), text.encode(), cuts, stops)
    assert "".join(pieces) == trim_text(text, stops)
    assert not any(UNFINISHED in piece for piece in pieces)


@given(st.lists(st.integers(0, 4), max_size=12), CUTS)
def test_tokenizers_that_treat_the_start_as_special(ids: list[int], cuts: list[int]) -> None:
    assert "".join(pieces_of(Spaced(), ids, cuts, [])) == Spaced().decode(ids)


def test_an_unfinished_last_character_appears_at_the_end() -> None:
    pieces = pieces_of(Bytes(), "a😀".encode()[:-1], [1, 2, 3], [])
    assert "".join(pieces) == "a" + UNFINISHED and "".join(pieces[:-1]) == "a"


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    stream = TextStream(Bytes(), ["END"])
    assert [stream.push(list(part.encode())) for part in ("xE", "N", "x", "EN", "D!", "more")] == [
        "x", "", "ENx", "", "", "",
    ]  # fmt: skip
    assert stream.flush() == ""


@pytest.mark.parametrize("stop", [[], ["ga"], ["zz", "a"]])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_stream_is_the_generated_text(stop: list[str], temperature: float) -> None:
    lm = toy_model(0)
    settings = dict(max_new_tokens=30, stop=stop, temperature=temperature, seed=5)
    settings["drafter"] = jaxspec.drafters.context_ngram(width=4)
    pieces = list(jaxspec.stream(lm, "abcdefg", slice_ticks=2, **settings))
    assert "".join(pieces) == jaxspec.generate(lm, "abcdefg", **settings).texts[0]
    if not stop:
        assert len(pieces) > 3
