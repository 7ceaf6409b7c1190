"""Tokenizers from GGUF metadata against the tokenizer they were written from and against plain merging."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import CHAT_TEMPLATE, SPECIAL, build_tokenizer

from jaxspec.weights.gguf_tokenizer import SPACE, SPLITTINGS, tokenizer_from_gguf

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def metadata(model: str, tokens: list[str], types: list[int], **fields) -> dict:
    said = {"model": model, "tokens": tokens, "token_type": types} | fields
    return {"general.architecture": "llama"} | {f"tokenizer.ggml.{name}": value for name, value in said.items()}


def described() -> dict:
    """A trained byte-level tokenizer as metadata."""
    backend = json.loads(build_tokenizer().to_str())
    vocabulary = backend["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    types = [CONTROL if token in SPECIAL else NORMAL for token in tokens]
    merges = [" ".join(merge) for merge in backend["model"]["merges"]]
    return metadata("gpt2", tokens, types, merges=merges, pre="gpt-2", bos_token_id=0, eos_token_id=2)


BYTE_LEVEL, REFERENCE = tokenizer_from_gguf(described()), build_tokenizer()


@given(text=st.text(max_size=40) | st.sampled_from(["the cat sat on the log", "<|im_start|>user<|im_end|>", "  12 a"]))
def test_byte_level_ids_are_those_of_the_origin(text: str) -> None:
    ids = BYTE_LEVEL.encode(text)
    assert ids == REFERENCE.encode(text).ids
    assert BYTE_LEVEL.decode(ids) == REFERENCE.decode(ids)


def test_special_ids_and_chat() -> None:
    tokenizer = tokenizer_from_gguf(described() | {"tokenizer.chat_template": CHAT_TEMPLATE})
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids) == (0, 2, (2, 0))
    assert tokenizer.chat("hi")[0] == 1 and tokenizer.has_chat_template
    assert not tokenizer_from_gguf(described()).has_chat_template
    ends = tokenizer_from_gguf(described() | {"tokenizer.ggml.eot_token_id": 7})
    assert ends.eos_ids == (2, 7, 0)


@pytest.mark.parametrize(("flag", "begins"), [(True, True), (False, False), (None, False)])
def test_bos_of_byte_level_vocabularies(flag, begins: bool) -> None:
    said = {} if flag is None else {"tokenizer.ggml.add_bos_token": flag}
    assert (tokenizer_from_gguf(described() | said).encode("a")[0] == 0) == begins


def split(pre: str, text: str, merges: list[str], whole: tuple[str, ...] = ()) -> list[str]:
    """Tokens of a text under a byte-level vocabulary of all bytes and some merges."""
    letters = sorted(build_tokenizer().get_vocab(), key=len)[:256]
    assert all(len(letter) == 1 for letter in letters)
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges), *whole]
    tokenizer = tokenizer_from_gguf(metadata("gpt2", tokens, [NORMAL] * len(tokens), merges=merges, pre=pre))
    return [tokens[index] for index in tokenizer.encode(text, add_special=False)]


DIGITS = ["1 2", "12 3", "123 4", "\u0120 \u0120"]  # U+0120 stands for a space


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("gpt-2", ["1234", "\u0120", "\u0120", "123"]),
        ("smollm", ["1", "2", "3", "4", "\u0120\u0120", "1", "2", "3"]),
        ("qwen2", ["1", "2", "3", "4", "\u0120", "\u0120", "1", "2", "3"]),
        ("deepseek-r1-qwen", ["1", "2", "3", "4", "\u0120", "\u0120", "1", "2", "3"]),
        ("llama-bpe", ["123", "4", "\u0120", "\u0120", "123"]),
        ("tekken", ["1", "2", "3", "4", "\u0120", "\u0120", "1", "2", "3"]),
    ],
)
def test_numbers_and_spaces_are_cut_as_every_family_does(pre: str, tokens: list[str]) -> None:
    assert split(pre, "1234  123", DIGITS) == tokens


def test_cases_and_contractions() -> None:
    merges = ["L L", "' LL", "I 'LL", "a B"]
    assert split("gpt-2", "I'LL", merges) == ["I", "'", "LL"]
    assert split("qwen2", "I'LL", merges) == split("llama-bpe", "I'LL", merges) == ["I", "'LL"]
    assert split("qwen2", "aB", merges) == ["aB"]
    assert split("tekken", "aB", merges) == ["a", "B"]


def test_whole_words_and_composition() -> None:
    assert split("llama-bpe", "cat", [], whole=("cat",)) == ["cat"]
    assert split("qwen2", "cat", [], whole=("cat",)) == ["c", "a", "t"]
    assert split("qwen2", "e\u0301", []) == split("qwen2", "\u00e9", [])
    assert split("llama-bpe", "e\u0301", []) != split("llama-bpe", "\u00e9", [])


def test_user_defined_tokens_are_found_whole_and_unused_ones_never() -> None:
    said = described()
    said["tokenizer.ggml.tokens"] = [*said["tokenizer.ggml.tokens"], "<think>", "[PAD301]"]
    said["tokenizer.ggml.token_type"] = [*said["tokenizer.ggml.token_type"], USER_DEFINED, UNUSED]
    tokenizer, size = tokenizer_from_gguf(said), len(said["tokenizer.ggml.tokens"])
    assert tokenizer.encode("<think>") == [size - 2] and tokenizer.decode([size - 2]) == "<think>"
    assert size - 1 not in tokenizer.encode("[PAD301]") and tokenizer.vocabulary_size == size - 1


PIECES = ["a", "b", "c", SPACE, f"{SPACE}a", "ab", "bc", "abc", f"{SPACE}ab", "cc", SPACE * 2, "aa", "ba"]
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
TYPES = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(PIECES)]
SCORES = [0.0] * 259 + [-100.0, -101.0, -102.0, -103.0, -3.0, -9.0, -2.0, -1.0, -8.0, -5.0, -4.0, -6.0, -7.0]
IDS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}


def merged(text: str) -> list[str]:
    """Sentencepiece's rule: of all neighbours that make a token, join the pair with the best score, leftmost first."""
    scores = dict(zip(TOKENS, SCORES, strict=True))
    symbols = list(text.replace(" ", SPACE))
    while True:
        pairs = [(scores.get(a + b, float("-inf")), -at) for at, (a, b) in enumerate(itertools.pairwise(symbols))]
        if not pairs or max(pairs)[0] == float("-inf"):
            return symbols
        at = -max(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


@given(text=st.text("abc ", max_size=14))
def test_sentencepiece_merges_by_score(text: str) -> None:
    tokenizer = tokenizer_from_gguf(metadata("llama", TOKENS, TYPES, scores=SCORES, add_space_prefix=False, **IDS))
    ids = tokenizer.encode(text)
    assert ids[0] == 1 and [TOKENS[index] for index in ids[1:]] == merged(text)
    assert tokenizer.decode(ids) == text


def test_a_space_before_the_text_comes_and_goes() -> None:
    tokenizer = tokenizer_from_gguf(metadata("llama", TOKENS, TYPES, scores=SCORES, **IDS))
    assert [TOKENS[index] for index in tokenizer.encode("abc", add_special=False)] == merged(" abc")
    assert [TOKENS[index] for index in tokenizer.encode(" abc", add_special=False)] == merged("  abc")
    for text in ("abc", " abc", "  c", "ж"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_unknown_letters_become_their_bytes() -> None:
    tokenizer = tokenizer_from_gguf(metadata("llama", TOKENS, TYPES, scores=SCORES, add_space_prefix=False, **IDS))
    ids = tokenizer.encode("aж", add_special=False)
    assert [TOKENS[index] for index in ids] == ["a", "<0xD0>", "<0xB6>"]
    assert b"".join(tokenizer.token_bytes()[index] for index in ids) == "aж".encode()


def test_user_defined_tokens_come_before_all_merges() -> None:
    tokens = [*TOKENS, "   ", "\n\n"]
    types = [*TYPES, USER_DEFINED, USER_DEFINED]
    scores = [*SCORES, -1000.0, -1000.0]
    tokenizer = tokenizer_from_gguf(metadata("llama", tokens, types, scores=scores, add_space_prefix=False, **IDS))
    ids = tokenizer.encode("a   a\n\n", add_special=False)
    assert [tokens[index] for index in ids] == ["a", "   ", "a", "\n\n"]
    assert tokenizer.decode(ids) == "a   a\n\n"


REFUSED = [
    ({"tokenizer.ggml.model": "bert"}, "model='bert'"),
    ({"tokenizer.ggml.model": None}, "model=None"),
    ({"tokenizer.ggml.pre": "deepseek-coder"}, "pre='deepseek-coder'.*Hugging Face folder"),
    ({"tokenizer.ggml.merges": ["a zz"]}, "merges"),
    ({"tokenizer.ggml.token_type": [1]}, "token_type has 1 entries"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_what_is_not_supported_is_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tokenizer_from_gguf(described() | change)


@pytest.mark.parametrize("missing", ["model", "tokens"])
def test_files_without_a_tokenizer(missing: str) -> None:
    said = {name: value for name, value in described().items() if name != f"tokenizer.ggml.{missing}"}
    with pytest.raises(ValueError, match="no tokenizer"):
        tokenizer_from_gguf(said)


def test_a_missing_splitting_is_named() -> None:
    said = {name: value for name, value in described().items() if not name.endswith(".pre")}
    with pytest.raises(ValueError, match="pre='missing'"):
        tokenizer_from_gguf(said)
    assert "gpt-2" in SPLITTINGS
