"""What ids mean: bytes of every token joined equal the decoded text, chats are rendered, files round-trip."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import CHAT_TEMPLATE, build_tokenizer
from tokenizers import AddedToken, decoders, models, normalizers

from jaxspec.weights.folder_tokenizer import tokenizer_from_folder
from jaxspec.weights.gguf import GGUFFile
from jaxspec.weights.gguf_tokenizer import tokenizer_from_gguf
from jaxspec.weights.tokenizer import Tokenizer, begin_with


def byte_level() -> tokenizers.Tokenizer:
    backend = build_tokenizer()
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("é ß", normalized=False)])
    return backend


def sentencepiece() -> tokenizers.Tokenizer:
    letters = ["<unk>", "<s>", "\u2581", *"abcde", "ж", "\u2581a", "ab", "<0x0>"]
    vocabulary = {token: index for index, token in enumerate(letters + [f"<0x{byte:02X}>" for byte in range(256)])}
    merges = [("\u2581", "a"), ("a", "b")]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["<unk>", "<s>"])
    backend.add_tokens([AddedToken("\n\n", normalized=False)])
    return backend


def stripping() -> tokenizers.Tokenizer:
    """A text begins with a space that decoding takes off again, whichever token has it."""
    backend = sentencepiece()
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return backend


def metaspace() -> tokenizers.Tokenizer:
    """As `stripping`, except that the first token loses all of its spaces."""
    words = ["\u2581", "\u2581a", "\u2581\u2581b", "c", "\u2581d\u2581e"]
    backend = tokenizers.Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="c"))
    backend.decoder = decoders.Metaspace()
    return backend


BACKENDS = {"byte_level": byte_level, "sentencepiece": sentencepiece}
TOKENIZERS = {name: Tokenizer(make(), bos_id=0, eos_id=2) for name, make in BACKENDS.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(max_size=30))
def test_bytes_of_the_tokens_are_the_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    joined = b"".join(tokenizer.token_bytes()[i] for i in ids)
    assert joined.decode() == tokenizer.decode(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(ids=st.lists(st.integers(0, 250), max_size=12))
def test_bytes_of_any_ids_are_the_decoded_text(name: str, ids: list[int]) -> None:
    tokenizer = TOKENIZERS[name]
    joined = b"".join(tokenizer.token_bytes()[i] for i in ids)
    try:
        text = joined.decode()
    except UnicodeDecodeError:
        return  # decoders differ in how many replacement characters they make of broken bytes
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("make", [sentencepiece, stripping, metaspace])
@given(data=st.data())
def test_the_first_token_may_add_less(make, data) -> None:
    tokenizer = Tokenizer(make())
    first, later = tokenizer.first_token_bytes(), tokenizer.token_bytes()
    ids = data.draw(st.lists(st.integers(0, min(len(later), 120) - 1), max_size=8))
    begin = next((at for at, index in enumerate(ids) if later[index]), 0)  # special tokens are not the first of a text
    pieces = [(first if at == begin else later)[index] for at, index in enumerate(ids)]
    assert b"".join(pieces).decode() == tokenizer.decode(ids)


def test_only_vocabularies_with_a_space_before_a_text_strip_it() -> None:
    for make, strips in ((byte_level, False), (sentencepiece, False), (stripping, True), (metaspace, True)):
        tokenizer = Tokenizer(make())
        assert (tokenizer.first_token_bytes() != tokenizer.token_bytes()) == strips


def test_texts_are_neither_cut_nor_filled() -> None:
    backend, text = byte_level(), "the cat sat on the mat"
    expected = backend.encode(text).ids
    backend.enable_truncation(3)
    backend.enable_padding(length=40)
    tokenizer = Tokenizer(backend)
    assert tokenizer.encode(text) == expected and len(expected) > 3
    assert tokenizer.encode("") == []


def test_special_tokens_add_nothing_and_added_ones_their_text() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    pieces = tokenizer.token_bytes()
    assert pieces[0] == pieces[1] == pieces[2] == b""
    assert pieces[tokenizer.encode("<think>")[0]] == b"<think>"
    assert tokenizer.decode([0]) == "" and tokenizer.decode([0], skip_special=False) == "<|endoftext|>"


def test_byte_tokens_and_what_only_looks_like_one() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    pieces = tokenizer.token_bytes()
    backend = sentencepiece()
    assert pieces[backend.token_to_id("<0xE9>")] == b"\xe9"
    assert pieces[backend.token_to_id("<0x0>")] == b"<0x0>"
    assert pieces[backend.token_to_id("\u2581a")] == b" a"


def test_token_bytes_reach_the_largest_id() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    backend.decoder = decoders.Fuse()
    tokenizer = Tokenizer(backend)
    assert tokenizer.vocabulary_size == 8
    assert tokenizer.token_bytes() == [b"a", *[b""] * 6, b"b"]


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece(), decoders.CTC(), decoders.Strip(" ", 1, 0)])
def test_decoders_that_look_at_more_than_a_token(decoder) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    if decoder is not None:
        backend.decoder = decoder
    with pytest.raises(ValueError, match="token by token"):
        Tokenizer(backend).token_bytes()


def test_ends_of_turns_join_the_ends() -> None:
    tokenizer = Tokenizer(byte_level(), eos_id=5, more_eos_ids=(5, 6))
    assert tokenizer.eos_ids == (5, 6, 2, 0)  # <|im_end|> is 2 and <|endoftext|> 0
    assert Tokenizer(sentencepiece()).eos_ids == ()


def test_bos() -> None:
    backend = byte_level()
    begin_with(backend, 1)
    tokenizer = Tokenizer(backend, bos_id=1)
    assert tokenizer.encode("a")[0] == 1 and tokenizer.encode("") == [1]
    assert 1 not in tokenizer.encode("a", add_special=False)
    begin_with(backend, None)
    assert tokenizer.encode("") == []


def test_a_chat_is_one_user_turn_or_a_conversation() -> None:
    tokenizer = Tokenizer(byte_level(), bos_id=0, eos_id=2, chat_template=CHAT_TEMPLATE)
    rendered = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.chat("hi") == tokenizer.encode(rendered, add_special=False)
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert tokenizer.decode(tokenizer.chat(turns), skip_special=False) == (
        "<|im_start|>system\nbe brief<|im_end|>\n" + rendered
    )


def test_templates_see_the_special_tokens() -> None:
    tokenizer = Tokenizer(byte_level(), bos_id=0, eos_id=2, chat_template="{{ bos_token }}{{ eos_token }}")
    assert tokenizer.chat("hi") == [0, 2]


def test_a_model_without_a_chat_template_says_so() -> None:
    with pytest.raises(ValueError, match="no chat template"):
        Tokenizer(byte_level()).chat("hi")


def test_saved_files_make_the_same_tokenizer(tmp_path) -> None:
    backend = byte_level()
    begin_with(backend, 1)
    tokenizer = Tokenizer(backend, bos_id=1, eos_id=2, more_eos_ids=(7,), chat_template=CHAT_TEMPLATE)
    tokenizer.save(tmp_path)
    again = tokenizer_from_folder(tmp_path)
    assert (again.bos_id, again.eos_id, again.eos_ids) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_ids)
    for text in ("the cat sat", "  déjà <think>\n", ""):
        assert again.encode(text) == tokenizer.encode(text)
    assert again.chat("hi") == tokenizer.chat("hi") and again.token_bytes() == tokenizer.token_bytes()


def real_files() -> list[Path]:
    folders = [os.environ.get("JAXSPEC_MODELS"), Path(__file__).parents[2] / "checkpoints"]
    found = itertools.chain.from_iterable(Path(folder).glob("*.gguf") for folder in folders if folder)
    return sorted({path.name: path for path in found}.values())


@pytest.mark.slow
@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.stem)
def test_every_token_of_real_vocabularies(path: Path) -> None:
    tokenizer = tokenizer_from_gguf(GGUFFile(path).metadata)
    pieces = tokenizer.token_bytes()
    anchor = tokenizer.encode("a", add_special=False)
    checked = 0
    for index, piece in enumerate(pieces):
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            continue  # a part of a character
        assert tokenizer.decode([*anchor, index]) == "a" + text
        checked += 1
    assert checked > 0.95 * len(pieces)
    random = np.random.default_rng(0)
    for text in ("naïve café — 日本語 и мир 👩‍👩‍👧\n\n\tx  12 345", "def f(x):\n    return x ** 2  # ok\r\n"):
        for _ in range(20):
            cut = random.integers(0, len(text))
            ids = tokenizer.encode(text[cut:], add_special=False)
            assert b"".join(pieces[i] for i in ids).decode() == tokenizer.decode(ids) == text[cut:]
