"""Fixed symbols: texts round-trip, the longest symbol wins, files round-trip, bytes are the symbols."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.tasks.symbol_tokenizer import symbol_tokenizer
from jaxspec.weights.folder_tokenizer import tokenizer_from_folder

SYMBOLS = [*"0123456789+-*%=:. \n|()[]^$\\", "é", "answer ", "ans", "select", "<=", "<"]
TOKENIZER = symbol_tokenizer(SYMBOLS)


def longest_match(text: str) -> list[int]:
    ids = []
    while text:
        symbol = max((s for s in SYMBOLS if text.startswith(s)), key=len)
        ids.append(SYMBOLS.index(symbol) + 2)
        text = text[len(symbol) :]
    return ids


@given(st.lists(st.sampled_from(SYMBOLS), max_size=20).map("".join))
def test_texts_round_trip_by_longest_symbols(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert ids == longest_match(text)
    assert TOKENIZER.decode(ids) == text
    assert b"".join(TOKENIZER.token_bytes()[i] for i in ids).decode() == text


def test_special_tokens_say_nothing() -> None:
    assert TOKENIZER.encode("1?x2") == [TOKENIZER.encode("1")[0], 0, TOKENIZER.encode("2")[0]]
    assert TOKENIZER.eos_ids == (TOKENIZER.eos_id,) == (1,)
    assert TOKENIZER.token_bytes()[:2] == [b"", b""]
    assert TOKENIZER.vocabulary_size == len(SYMBOLS) + 2


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    loaded = tokenizer_from_folder(tmp_path)
    text = "answer 12<=3\nans select(é)"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert (loaded.eos_ids, loaded.bos_id) == (TOKENIZER.eos_ids, None)
    assert loaded.token_bytes() == TOKENIZER.token_bytes()


@pytest.mark.parametrize("symbols", [["a", ""], ["a", "b", "a"], ["<eos>"]])
def test_bad_symbols_are_refused(symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="remove it"):
        symbol_tokenizer(symbols)
