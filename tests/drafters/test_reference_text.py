"""Drafting from a reference: never changes what is said, and finds its place again after every edit."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.hashing import prompt_mark
from jaxspec.decode.loop import run_slice
from jaxspec.decode.types import Context
from jaxspec.drafters.reference_text import ReferenceText, reference_text

NEW = 40
COMMON = dict(max_new_tokens=NEW, cache=128, lanes=4)  # one program for most tests
LENGTH = 512  # of the token buffer in the harness below


@functools.lru_cache
def model() -> jaxspec.LanguageModel:
    return toy_model(3, vocabulary=23, context=256)


def random_prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 23, rng.integers(2, 30)).tolist() for _ in range(count)]


def answers(prompts: list[list[int]]) -> list[list[int]]:
    return [greedy_continuation(model(), prompt, NEW) for prompt in prompts]


@functools.partial(jax.jit, static_argnames="drafter")
def step(drafter: ReferenceText, params, state, context: Context) -> tuple[jax.Array, jax.Array, Any]:
    draft, state = drafter.propose(params, state, context)
    return draft.ids, draft.valid, state


def rewrite(reference: list[int], answer: list[int], width: int = 16) -> tuple[int, list[int]]:
    """Calls of a target that says `answer`, and how many tokens each committed."""
    drafter = reference_text(reference, width=width)
    params = drafter.prepare(toy_model(vocabulary=1000, order=1))
    prompt = [999]
    text = np.zeros((1, LENGTH), np.int32)
    text[0, : 1 + len(answer)] = prompt + answer

    def context(length: int) -> Context:
        known = np.where(np.arange(LENGTH) < length, text, -7)  # whatever lies beyond may not matter
        one = jnp.asarray([length], jnp.int32)
        return Context(
            jnp.asarray(known, jnp.int32), one, jnp.ones_like(one), jnp.zeros((1,), jnp.uint32), jnp.ones((1,), bool)
        )

    state = drafter.init(params, context(1))
    state = drafter.admit(params, state, context(1), jnp.ones((1,), bool))
    length, committed = 1, []
    while length < 1 + len(answer):
        ids, valid, state = step(drafter, params, state, context(length))
        right = (np.asarray(ids)[0] == text[0, length : length + width]) & np.asarray(valid)[0]
        accepted = int(np.cumprod(right).sum())
        count = min(accepted + 1, 1 + len(answer) - length)
        committed.append(count)
        length += count
    return len(committed), committed


def test_a_reference_that_is_the_answer_is_accepted_whole() -> None:
    prompts = random_prompts(1)
    answer = answers(prompts)
    out = jaxspec.generate(model(), prompts, drafter=reference_text(answer[0], width=9), **COMMON)
    assert out.ids == answer
    assert out.statistics.target_calls == NEW / 10


@pytest.mark.parametrize("edit", ["start", "middle", "empty overlap"])
def test_what_is_said_does_not_depend_on_the_reference(edit: str) -> None:
    prompts = random_prompts(6, seed=1)
    expected = answers(prompts)
    reference = {
        "start": [5] * 3 + expected[0],
        "middle": expected[0][:10] + [1, 2, 3] + expected[0][14:],
        "empty overlap": [22, 21, 20, 19],
    }[edit]
    assert jaxspec.generate(model(), prompts, drafter=reference_text(reference, width=9), **COMMON).ids == expected


def test_sampled_text_is_the_same() -> None:
    prompts = random_prompts(3, seed=2)
    sampling = COMMON | dict(temperature=6.0, seed=[4, 5, 6])
    plain = jaxspec.generate(model(), prompts, **sampling)
    drafted = jaxspec.generate(model(), prompts, drafter=reference_text(plain.ids[1]), **sampling)
    assert drafted.ids == plain.ids
    assert drafted.statistics.per_prompt[1].target_calls < NEW / 8


def test_every_request_finds_its_own_reference() -> None:
    """In any lane, in any company, and next to requests without one."""
    prompts = random_prompts(7, seed=3)
    expected = answers(prompts)
    drafter = reference_text(expected[1:], prompts[1:], width=9)
    for lanes in (1, 4):
        out = jaxspec.generate(model(), prompts, drafter=drafter, **COMMON | {"lanes": lanes})
        assert out.ids == expected
        calls = [one.target_calls for one in out.statistics.per_prompt]
        assert calls == [NEW] + [NEW // 10] * 6
        assert out.statistics.per_prompt[0].drafted == 0


@pytest.mark.slow
def test_calls_do_not_depend_on_batch_mates() -> None:
    prompts = random_prompts(4, seed=4)
    reference = answers(prompts)[2]
    reference = reference[:15] + [3, 4] + reference[17:]
    drafter = reference_text(reference, width=9)
    together = jaxspec.generate(model(), prompts, drafter=drafter, **COMMON).statistics.per_prompt
    alone = [jaxspec.generate(model(), prompt, drafter=drafter, **COMMON).statistics for prompt in prompts]
    assert [one.target_calls for one in together] == [one.target_calls for one in alone]


def test_texts_are_encoded_as_generate_does() -> None:
    lm = toy_model(0)
    prompts = ["abc", "fade"]
    plain = jaxspec.generate(lm, prompts, **COMMON)
    drafter = reference_text(plain.texts, prompts, width=9)
    drafted = jaxspec.generate(lm, prompts, drafter=drafter, **COMMON)
    assert drafted.texts == plain.texts
    assert drafted.statistics.target_calls == 2 * NEW / 10


def test_other_references_run_the_same_program() -> None:
    prompts = random_prompts(2, seed=5)
    expected = answers(prompts)
    jaxspec.generate(model(), prompts, drafter=reference_text(expected[0], width=9), **COMMON)
    before = run_slice._cache_size()
    out = jaxspec.generate(model(), prompts, drafter=reference_text(expected[1][3:], width=9), **COMMON)
    assert run_slice._cache_size() == before and out.ids == expected


def test_one_edit_costs_few_calls() -> None:
    reference = list(range(200))
    least = math.ceil(200 / 17)
    edits = {
        "substitution": (reference[:90] + [700] + reference[91:], 1),
        "long substitution": (reference[:90] + list(range(700, 708)) + reference[98:], 8),
        "insertion": (reference[:90] + [700] + reference[90:], 2),
        "long insertion": (reference[:90] + list(range(700, 720)) + reference[90:], 21),
        "deletion": (reference[:90] + reference[91:], 1),
        "long deletion": (reference[:60] + reference[110:], 1),
        "other start": ([700, 701, 702] + reference[1:], 4),
        "jump back": (reference[:150] + reference[100:], 3),
    }
    for name, (answer, extra) in edits.items():
        calls, _ = rewrite(reference, answer)
        assert calls <= math.ceil(len(answer) / 17) + extra + 1, name
    assert rewrite(reference, reference)[0] == least


def test_a_repeated_phrase_does_not_lead_astray() -> None:
    """The same phrase stands in every line; the nearest is the right one after an edit."""
    phrase = [1, 2, 3, 4, 5]
    reference = [token for line in range(30) for token in [*phrase, 100 + line, 200 + line]]
    answer = list(reference)
    answer[7 * 15 + 5] = 700
    calls, committed = rewrite(reference, answer)
    assert calls <= math.ceil(len(answer) / 17) + 1
    assert min(committed[:-1]) >= 5


def test_a_run_of_one_token_is_left_where_the_reference_leaves_it() -> None:
    reference = [*range(10), *[50] * 40, *range(10, 30)]
    assert rewrite(reference, reference)[0] == math.ceil(len(reference) / 17)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), edits=st.integers(0, 8))
def test_random_edits_are_survived(seed: int, edits: int) -> None:
    """Text of a natural kind (few frequent tokens, many rare ones), edits of one to three tokens."""
    rng = np.random.default_rng(seed)
    reference = np.minimum(rng.zipf(1.3, 200), 900).tolist()
    answer, touched = list(reference), 0
    for _ in range(edits):
        place, size = int(rng.integers(0, len(answer))), int(rng.integers(1, 4))
        new = [] if rng.random() < 1 / 3 else rng.integers(900, 999, size).tolist()
        answer[place : place + (0 if rng.random() < 1 / 3 else size)] = new
        touched += max(size, 1)
    calls, committed = rewrite(reference, answer)
    assert sum(committed) == len(answer)
    assert calls <= math.ceil(len(answer) / 17) + touched + 3 * edits


def test_hashes_depend_on_the_prompt_alone() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, 50_000, (300, 40)).astype(np.int32)
    length = rng.integers(1, 40, 300).astype(np.int32)
    other = np.where(np.arange(40) < length[:, None], prompts, rng.integers(0, 50_000, prompts.shape))
    wider = np.pad(other, ((0, 0), (0, 9)), constant_values=5).astype(np.int32)
    hashes = np.asarray(prompt_mark(jnp.asarray(prompts), jnp.asarray(length)))
    assert np.array_equal(hashes, prompt_mark(jnp.asarray(wider), jnp.asarray(length)))
    assert len({*zip(hashes.tolist(), length.tolist(), strict=True)}) == 300
    swapped = prompts[:, [1, 0, *range(2, 40)]]
    long = length > 1
    assert not np.any((np.asarray(prompt_mark(jnp.asarray(swapped), jnp.asarray(length))) == hashes)[long])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs a text"),
        ({"references": ""}, "needs a text"),
        ({"references": [[1, 2], []], "prompts": [[1], [2]]}, "none of its texts may be empty"),
        ({"references": [[1, 2], [3]]}, "2 references and no prompts"),
        ({"references": [[1, 2], [3]], "prompts": [[1]]}, "2 references for 1 prompts"),
        ({"references": [[1, 2], [3]], "prompts": [[1], [1]]}, "prompt 1 of the references stands there twice"),
        ({"references": [1], "width": 0}, "width=0 is below 1"),
        ({"references": [1], "query": 0}, "query=0 is below 1"),
        ({"references": [1], "reach": -1}, "reach=-1 is below 0"),
        ({"references": [1], "width": 2.5}, "width=2.5 is not an integer"),
        ({"references": [1.9, 2]}, "reference 0 holds 1.9, which is no token id"),
        ({"references": np.array([1.0])}, "reference 0 holds 1.0, which is no token id"),
        ({"references": [[1], [[2]]], "prompts": [[1], [2]]}, r"reference 1 holds \[2\], which is no token id"),
        ({"references": [[1]], "prompts": [[1.5]]}, "prompt 0 of the references holds 1.5"),
        ({"references": b"text"}, "reference 0 is b'text', neither text nor token ids"),
        ({"references": 5}, "reference 0 is 5; give a text, or a sequence"),
        ({"references": jnp.array(5)}, "reference 0 is 5; give a text, or a sequence"),
        ({"references": [[1], None], "prompts": [[1], [2]]}, "reference 1 is None"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        reference_text(**arguments)


@pytest.mark.parametrize(
    "ids",
    [jnp.array([3, 1, 4]), np.array([3, 1, 4]), [jnp.int32(3), np.int64(1), 4], (3, 1, 4), [jnp.array([3, 1, 4])]],
    ids=lambda ids: f"{type(ids).__name__} of {type(ids[0]).__name__}",
)
def test_ids_come_as_lists_or_arrays(ids: Any) -> None:
    assert reference_text(ids).references == reference_text([3, 1, 4]).references == ((3, 1, 4),)
    each = reference_text(jnp.array([[3, 1], [4, 1]]), [np.array([2]), "two"])
    assert each.references == ((3, 1), (4, 1)) and each.prompts == ((2,), "two")


def test_references_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="reference 0 holds id 23, outside the vocabulary of 23"):
        jaxspec.generate(model(), [1], drafter=reference_text([4, 23]))
    with pytest.raises(ValueError, match="prompt 1 of the references holds id 99"):
        jaxspec.generate(model(), [1], drafter=reference_text([[4], [5]], [[1], [99]]))
