"""What is recorded of a model: its own greedy text, the tail after it, and its opinions along the way."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.evaluate.recording import Recording, _opinions, record
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import chain_block

PROMPTS = [[0, 1, 2], [3], [4, 5, 6, 1, 2]]


def test_answer_and_tail_are_the_models_own_text() -> None:
    lm = toy_model(0)
    kept = record(lm, PROMPTS, 10, top=2, tail=5)
    assert kept.prompts() == PROMPTS and kept.texts == 3 and kept.tail == 5
    assert kept.answers() == [greedy_continuation(lm, prompt, 10) for prompt in PROMPTS]
    for row, prompt, known in zip(kept.tokens, PROMPTS, kept.known, strict=True):
        assert row[:known].tolist() == prompt + greedy_continuation(lm, prompt, 15)
        assert not row[known:].any()
    faster = record(lm, PROMPTS, 10, top=2, tail=5, drafter=drafters.suffix())
    assert (faster.tokens == kept.tokens).all() and faster.disagreements == 0


def test_opinions_are_those_of_one_whole_pass() -> None:
    lm = small_transformer()
    prompts = [np.random.default_rng(seed).integers(0, 17, 120 - 50 * seed).tolist() for seed in range(3)]
    kept = record(lm, prompts, 9, top=3, tail=4)
    whole = jax.jit(lambda params, ids, cache: lm.model(params, chain_block(ids), cache).logits)
    empty = kv_cache.init_cache(lm.config, 1, 256, jnp.float32)
    for index, prompt in enumerate(prompts):
        known, first = int(kept.known[index]), len(prompt) - 1
        logits = np.asarray(whole(lm.params, kept.tokens[index : index + 1], empty))[0, :known]
        expected = np.argsort(-logits, axis=1)[:, :3]
        assert (kept.top[index, first:known] == expected[first:]).all()
        assert (kept.top[index, :first] == -1).all() and (kept.top[index, known:] == -1).all()
        assert (kept.top[index, first : known - 1, 0] == kept.tokens[index, first + 1 : known]).all()
    assert kept.disagreements == 0


def test_disagreements_are_counted() -> None:
    """The pass of another model does not choose what was said."""
    lm = toy_model(0)
    kept = record(lm, PROMPTS, 12, top=1)
    other = toy_model(5)
    _, disagreements = _opinions(other, kept.tokens, kept.prompt_length, kept.end, kept.known, 1)
    expected = sum(
        greedy_continuation(other, row[: position + 1].tolist(), 1)[0] != row[position + 1]
        for row, begin, end in zip(kept.tokens, kept.prompt_length, kept.end, strict=True)
        for position in range(begin - 1, end - 1)
    )
    assert disagreements == expected > 0


def test_the_end_of_a_text_and_of_the_context() -> None:
    lm = toy_model(0, context=24, eos_ids=(3,))
    prompts = [[0, 1, 2], [4, 4, 1, 6] * 5]
    kept = record(lm, prompts, 12, top=0, tail=30)
    plain = jaxspec.generate(lm, prompts, max_new_tokens=12)
    assert kept.answers() == plain.ids and kept.top.shape[2] == 0
    assert kept.known.max() <= 24
    assert kept.known[0] == min(24, len(prompts[0]) + len(plain.ids[0]) + 30)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    kept = record(toy_model(0), PROMPTS, 6, top=2)
    path = tmp_path / "kept.npz"
    kept.save(path)
    back = Recording.load(path)
    for name, value in vars(kept).items():
        assert type(getattr(back, name)) is type(value)
        assert np.array_equal(getattr(back, name), value)
    assert [array.dtype for array in (back.tokens, back.top)] == [np.int32, np.int32]
    assert back.first(1).prompts() == PROMPTS[:1]


def test_the_beginning_of_answers_keeps_what_follows_as_tail() -> None:
    kept = record(toy_model(0), PROMPTS, 6, top=2, tail=5)
    short = kept.beginning(2)
    assert short.answers() == [answer[:2] for answer in kept.answers()] and short.tail == 9
    assert short.prompts() == PROMPTS and (short.tokens == kept.tokens).all() and short.end.dtype == np.int32
    assert kept.beginning(99).answers() == kept.answers()


def test_bad_files_and_settings(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing.npz does not exist"):
        Recording.load(tmp_path / "missing.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match="broken.npz is not a readable recording"):
        Recording.load(broken)
    np.savez(tmp_path / "other.npz", tokens=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz is not a readable recording"):
        Recording.load(tmp_path / "other.npz")
    lm = toy_model(0)
    with pytest.raises(ValueError, match="prompts is empty"):
        record(lm, [])
    for settings, message in (
        ({"max_new_tokens": 0}, "max_new_tokens=0 is below 1"),
        ({"top": -1}, "top=-1 is below 0"),
        ({"top": 8}, "top=8 is above the model's vocabulary of 7"),
        ({"tail": -1}, "tail=-1 is below 0"),
    ):
        with pytest.raises(ValueError, match=message):
            record(lm, PROMPTS, **settings)


def test_numbers_that_are_none_are_refused() -> None:
    lm = toy_model(0)
    lm.params["table"] = lm.params["table"] * jnp.nan
    with pytest.raises(ValueError, match="after prompt 0 are not finite"):
        record(lm, PROMPTS, 4, top=2)
