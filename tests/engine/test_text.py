"""Streamed pieces add up to the whole text, in whole characters, however ids arrive."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import ToyTokenizer, toy_model

import jaxspec
from jaxspec.decode.stop import trim_text
from jaxspec.engine.text import UNFINISHED, TextStream


class Bytes:
    """Id i is byte i."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return bytes(ids).decode(errors="replace")


@dataclasses.dataclass(frozen=True)
class SpacedLetters(ToyTokenizer):
    """Id i is a space and a letter; a text loses its first space."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return b"".join(self.token_bytes()[i] for i in ids).decode().removeprefix(" ")

    def token_bytes(self) -> list[bytes]:
        return [b" " + piece for piece in super().token_bytes()]

    def first_token_bytes(self) -> list[bytes]:
        return super().token_bytes()


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


class FallenBack(Bytes):
    """Id i is byte i; where neighbouring bytes are no text together, none of them is a character."""

    byte_ids = frozenset(range(128, 256))

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        text = ""
        for is_byte, run in itertools.groupby(ids, lambda index: index in self.byte_ids):
            together = bytes(run)
            try:
                text += together.decode()
            except UnicodeDecodeError:
                assert is_byte
                text += UNFINISHED * len(together)
        return text


@given(st.lists(st.sampled_from(["a", "b", "\xe9", "\U0001f600"]), max_size=6), st.integers(0, 3), CUTS)
def test_bytes_that_turn_out_to_be_no_text(letters: list[str], missing: int, cuts: list[int]) -> None:
    raw = "".join(letters).encode()
    ids = list(raw[: len(raw) - missing])
    assert "".join(pieces_of(FallenBack(), ids, cuts, [])) == FallenBack().decode(ids)


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


@pytest.mark.parametrize(("stop", "tokens"), [([" "], 2), ([" b"], None), (["a", "b", "c", "d", "e", "f", "g"], 1)])
def test_a_space_that_the_text_loses_is_no_stop_string(stop: list[str], tokens: int | None) -> None:
    lm = dataclasses.replace(toy_model(0), tokenizer=SpacedLetters(7))
    out = jaxspec.generate(lm, [[1, 2, 3]], max_new_tokens=12, stop=stop)
    free = jaxspec.generate(lm, [[1, 2, 3]], max_new_tokens=12)
    assert out.texts[0] == trim_text(free.texts[0], stop)
    assert tokens is None or (out.finish, len(out.ids[0])) == (["stop"], tokens)
    assert "".join(jaxspec.stream(lm, [1, 2, 3], max_new_tokens=12, stop=stop)) == out.texts[0]


def broken_model():
    """Says two tokens after 0, 1, 2 and then finds nothing but NaN."""
    lm = toy_model(0)
    ids = [0, 1, 2, *jaxspec.generate(lm, [[0, 1, 2]], max_new_tokens=2).ids[0]]
    return dataclasses.replace(lm, params={"table": lm.params["table"].at[ids[-1] + 7 * ids[-2]].set(jnp.nan)})


def test_a_stream_says_that_logits_were_not_finite() -> None:
    lm = broken_model()
    out = jaxspec.generate(lm, [[0, 1, 2]], max_new_tokens=9)
    assert out.finish == ["numerical"] and len(out.ids[0]) == 2
    with pytest.warns(RuntimeWarning, match="the logits of toy were not finite"):
        assert "".join(jaxspec.stream(lm, [0, 1, 2], max_new_tokens=9)) == out.texts[0]


def test_a_stream_gives_its_result_to_who_asks() -> None:
    for lm, finish in ((toy_model(0), "length"), (broken_model(), "numerical")):
        given = []
        pieces = list(
            jaxspec.stream(lm, [0, 1, 2], max_new_tokens=9, on_result=lambda *pair, to=given: to.append(pair))
        )
        [(index, result)] = given
        assert (index, result.finish, result.text) == (0, finish, "".join(pieces))
