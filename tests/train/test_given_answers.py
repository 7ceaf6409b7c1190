"""Batches of given answers: fresh every step, repeatable, blocks of random tokens that begin right."""

import functools
from typing import Any

import numpy as np
import pytest

from jaxspec.tasks.task import find_task
from jaxspec.train.given_answers import GivenAnswerBatches

TASK = find_task("text_to_sql")
TOKENIZER = TASK.tokenizer()
BLOCKS, BLOCK = 4, 16


def batches(**settings) -> GivenAnswerBatches:
    given: dict[str, Any] = {
        "rows": 8,
        "tokens": 160,
        "blocks": BLOCKS,
        "block": BLOCK,
        "vocabulary": TOKENIZER.vocabulary_size,
    }
    return GivenAnswerBatches(functools.partial(TASK.example, 0), TOKENIZER, **(given | settings))


@pytest.mark.parametrize("source", ["prompt", "vocabulary", "repeat"])
@pytest.mark.parametrize("first_share", [0.0, 1.0])
def test_blocks_begin_right_and_are_random_behind(source, first_share) -> None:
    batch = batches(source=source, first_share=first_share).batch(3)
    assert batch.noisy.shape == (8, 1, BLOCKS, BLOCK) and batch.noisy.dtype == np.int32
    wrong = inside = 0
    for row in range(8):
        prompt, answer = TASK.example(0, 3 * 8 + row)
        before = len(TOKENIZER.encode(prompt))
        text = [*TOKENIZER.encode(prompt + answer), TOKENIZER.eos_id]
        begin, end = int(batch.start[row]), int(batch.length[row])
        assert batch.prompt_length[row] == before
        assert batch.tokens[row, :end].tolist() == text and not batch.tokens[row, end:].any()
        assert begin - before + 1 in (range(BLOCK) if first_share == 0 else [0])
        for block in range(BLOCKS):
            start = begin + block * BLOCK
            size = int(np.clip(end - start, 0, BLOCK))
            found = batch.noisy[row, 0, block]
            assert not found[size:].any()
            if size == 0:
                continue
            assert found[0] == text[start]
            allowed = {"prompt": text[:start], "vocabulary": range(TOKENIZER.vocabulary_size)}
            assert set(found[1:size].tolist()) <= set(allowed.get(source, [text[start]]))
            wrong += int((found[1:size] != text[start + 1 : start + size]).sum())
            inside += size - 1
    assert wrong > inside / 2


def test_a_batch_depends_on_its_step_alone_and_repeats_no_answer() -> None:
    one, other = batches(), batches()
    other.batch(0)
    for found, expected in zip(other.batch(7), one.batch(7), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not (one.batch(8).tokens == one.batch(7).tokens).all(axis=1).any()


def test_first_blocks_begin_where_decoding_does_and_everywhere_behind() -> None:
    data = [batches(rows=32).batch(step) for step in range(20)]
    place = np.concatenate([batch.start - batch.prompt_length for batch in data])
    count = np.bincount(place + 1, minlength=BLOCK)
    assert len(count) == BLOCK and (count > 0).all()
    assert abs(count[0] / len(place) - (0.25 + 0.75 / BLOCK)) < 0.08


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="more than tokens=32"):
        batches(tokens=32).batch(0)
