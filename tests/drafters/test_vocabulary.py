"""Vocabularies are compared by what ids stand for; drafts cross from one to another."""

import dataclasses
import gc
import weakref
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

import jaxspec
from jaxspec.drafters.draft_model import draft_model
from jaxspec.drafters.vocabulary import Token, compare, same_ids, shared_tokens, tokens_of, translate

WORDS: list[Token] = [b"a", b"b", b"ab", b"the", b" the", "<end>"]


@dataclasses.dataclass(frozen=True)
class Words:
    """A tokenizer of listed tokens."""

    words: tuple[Token, ...]
    eos_ids: tuple[int, ...] = ()

    def token_bytes(self) -> list[bytes]:
        return [word if isinstance(word, bytes) else b"" for word in self.words]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return b"".join(self.token_bytes()[i] for i in ids).decode()

    @property
    def special_tokens(self) -> dict[int, str]:
        return {i: word for i, word in enumerate(self.words) if isinstance(word, str)}


def model_of(words: Sequence[Token] | None, size: int, table: np.ndarray | None = None, name: str = "toy"):
    """A toy model of order one that says the same whatever it is called."""
    lm = toy_model(3, vocabulary=size, order=1)
    params = lm.params if table is None else {"table": jnp.asarray(table)}
    tokenizer = None if words is None else Words(tuple(words))
    return dataclasses.replace(lm, tokenizer=tokenizer, params=params, name=name)


def test_tokens_are_bytes_names_or_nothing() -> None:
    assert tokens_of(Words((b"a", "<s>", None)), 5) == [b"a", "<s>", None, None, None]
    assert tokens_of(Words((b"a", b"b")), 1) == [b"a"]


def test_vocabularies_are_identical_padded_or_different() -> None:
    assert compare(WORDS, WORDS).kind == "identical"
    padded = compare(WORDS + [None, None], WORDS)
    assert (padded.kind, padded.common, padded.differing) == ("padded", 6, 0)
    assert compare(WORDS, WORDS + ["<more>"]).kind == "padded"
    assert compare(WORDS[:3] + [None] + WORDS[4:], WORDS).kind == "padded"
    swapped = compare(WORDS, [b"b", b"a", *WORDS[2:]])
    assert (swapped.kind, swapped.common, swapped.differing) == ("different", 4, 2)
    assert swapped.examples == ((0, b"a", b"b"), (1, b"b", b"a"))
    # A special token is not the text of its name.
    assert compare([b"<end>"], ["<end>"]).kind == "different"


def test_a_padded_tail_is_never_proposed() -> None:
    for draft in (WORDS + [None] * 3, WORDS[:4]):
        translation = same_ids(WORDS + [None], draft)
        known = min(len(WORDS), len(draft) if None not in draft else len(WORDS))
        assert translation.common.tolist() == [True] * known + [False] * (7 - known)
        assert translation.draft_id.max() < len(draft)


def test_shared_tokens_are_found_under_other_ids() -> None:
    draft: list[Token] = [b"the", b"b", "<end>", b"x", b"b"]
    translation = shared_tokens(WORDS, draft)
    assert translation.common.tolist() == [False, True, False, True, False, True]
    #           a: nothing ends so, b, ab ends in b, the, " the" ends in the, <end>
    assert translation.draft_id.tolist() == [0, 1, 1, 0, 0, 2]


def test_unlike_vocabularies_of_one_size_are_refused_with_numbers_and_examples() -> None:
    target, draft = model_of(WORDS, 6, name="big"), model_of([b"b", b"a", *WORDS[2:]], 6, name="small")
    with pytest.raises(ValueError, match=r"2 ids .* in big and small: 0 is b'a' and b'b', 1 is b'b' and b'a'; take"):
        translate(target, draft)
    with pytest.raises(ValueError, match="no token is shared"):
        translate(target, model_of([b"1", b"2", b"3"], 3), shared=True)
    assert translate(target, model_of(WORDS, 6)) is None
    with pytest.raises(ValueError, match="2 ids"):
        jaxspec.generate(target, [[1]], drafter=draft_model(draft), max_new_tokens=2)


def test_what_ids_stand_for_is_known_of_both_models_or_of_none() -> None:
    bare, named = model_of(None, 6, name="bare"), model_of(WORDS, 6, name="named")
    for target, draft in ((named, bare), (bare, named)):
        for shared in (False, True):
            with pytest.raises(ValueError, match="load both models with their tokenizers, or give bare the other's"):
                translate(target, draft, shared=shared)
    assert translate(named, dataclasses.replace(bare, tokenizer=named.tokenizer)) is None
    assert translate(bare, model_of(None, 6)) is None
    with pytest.raises(ValueError, match="bare has 6 ids and toy 7, .*; load both models with their tokenizers$"):
        translate(bare, model_of(None, 7))


class CountedWords(Words):
    """Counts how often it is asked for its tokens; it has no hash, as tokenizers need not."""

    asked = 0
    __hash__ = None

    def token_bytes(self) -> list[bytes]:
        CountedWords.asked += 1
        return super().token_bytes()


def test_two_models_are_compared_once(monkeypatch) -> None:
    def counted(words: Sequence[Token], size: int) -> jaxspec.LanguageModel:
        return dataclasses.replace(model_of(words, size), tokenizer=CountedWords(tuple(words)))

    monkeypatch.setattr(CountedWords, "asked", 0)
    target = counted(WORDS, 6)
    assert translate(target, dataclasses.replace(target, name="copy")) is None and CountedWords.asked == 0
    same, padded, other = counted(WORDS, 6), counted(WORDS, 8), counted(WORDS[:4], 4)
    found = {}
    for _ in range(3):
        for draft in (same, padded, other):
            translation = translate(target, draft)
            assert found.setdefault(draft, translation) is translation
    assert CountedWords.asked == 2 * 3
    assert (
        found[same] is None and found[padded].common.all() and found[other].common.tolist() == [True] * 4 + [False] * 2
    )
    swapped = counted([b"b", b"a", *WORDS[2:]], 6)
    assert translate(target, swapped, shared=True).draft_id.tolist() == [1, 0, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="2 ids stand for different tokens"):
        translate(target, swapped)


def test_models_are_not_kept_for_their_comparison() -> None:
    target, draft = model_of(WORDS, 6), model_of(WORDS, 8)
    translate(target, draft)
    gone = weakref.ref(target), weakref.ref(draft)
    del target, draft
    gc.collect()
    assert [kept() for kept in gone] == [None, None]


@pytest.mark.parametrize("case", ["padded draft", "padded target", "renamed"])
def test_the_same_model_under_another_vocabulary_is_accepted_whole(case: str) -> None:
    """Its logits reach the target's ids, and the text reaches its own."""
    size = 6
    table = np.asarray(toy_model(3, vocabulary=size, order=1).params["table"])
    target_words, draft_words = list(WORDS), list(WORDS)
    target_table = draft_table = table
    if case == "renamed":
        order = np.array([4, 2, 0, 5, 1, 3])
        draft_words, draft_table = [WORDS[i] for i in order], table[order][:, order]
    wider = np.pad(table, ((0, 3), (0, 3)), constant_values=-50.0)
    if case == "padded draft":
        wider[:, size:] = 50.0  # would be said if it were not masked
        draft_table = wider
    if case == "padded target":
        target_table = wider
    target = model_of(target_words, len(target_table), target_table)
    draft = model_of(draft_words, len(draft_table), draft_table)
    prompts = [[1, 2, 3], [5], [0, 4]]
    out = jaxspec.generate(
        target,
        prompts,
        drafter=draft_model(draft, length=3, vocabulary="shared"),
        max_new_tokens=16,
        temperature=1.5,
        cache=128,
    )
    assert out.statistics.tokens_per_call == 4.0
