"""Layout and masks of packed streams, against hand-written matrices and against explicit texts."""

import jax.numpy as jnp
import numpy as np
import pytest
from small_trajectories import BLOCK, BLOCKS, FORWARD, SEQUENCE, causal_logits, small_answers, small_trajectories

from jaxspec.train.packing import (
    FILL,
    answer_blocks,
    block_sizes,
    pack,
    shared_blocks,
    supervised,
    take_clean,
    take_noisy,
    visibility,
)

# Prompt of four, two blocks of two; columns: prompt, clean block 0, clean block 1, noisy block 0, noisy block 1.
CLEAN_ROWS = """
1... .. .. .. ..
11.. .. .. .. ..
111. .. .. .. ..
1111 .. .. .. ..
1111 1. .. .. ..
1111 11 .. .. ..
1111 11 1. .. ..
1111 11 11 .. ..
"""
NOISE_AWARE = """
1111 .. .. 1. ..
1111 .. .. 11 ..
1111 .. .. 11 1.
1111 .. .. 11 11
"""
CLEAN_CONTEXT = """
1111 .. .. 1. ..
1111 .. .. 11 ..
1111 11 .. .. 1.
1111 11 .. .. 11
"""
# The figure of the Jacobi Forcing code: prompt, then noisy and clean block 0, then noisy and clean block 1.
INTERLEAVED = """
1... .. .. .. ..
11.. .. .. .. ..
111. .. .. .. ..
1111 .. .. .. ..
1111 1. .. .. ..
1111 11 .. .. ..
1111 .. 1. .. ..
1111 .. 11 .. ..
1111 11 .. 1. ..
1111 11 .. 11 ..
1111 .. 11 .. 1.
1111 .. 11 .. 11
"""
# Prompt of one, four blocks of one, windows of two blocks: the clean text, then the noisy one.
WINDOW_OF_TWO = """
1.... 1...
1.... 11..
111.. ..1.
111.. ..11
"""


def matrix(rows: str) -> np.ndarray:
    return np.array([[mark == "1" for mark in line.replace(" ", "")] for line in rows.split("\n") if line])


def mask(context: str, prompt_length, sequence: int, blocks: int, block: int, window: int = 1, streams: int = 1):
    shared = shared_blocks(context, blocks, window)
    return np.asarray(visibility(jnp.asarray(prompt_length, jnp.int32), sequence, streams, blocks, block, shared))


@pytest.mark.parametrize("context, noisy", [("noise_aware", NOISE_AWARE), ("clean", CLEAN_CONTEXT)])
def test_golden_masks(context, noisy):
    np.testing.assert_array_equal(mask(context, [4], 8, 2, 2)[0], matrix(CLEAN_ROWS + noisy))


def test_golden_mask_in_the_order_of_the_released_code():
    order = [0, 1, 2, 3, 8, 9, 4, 5, 10, 11, 6, 7]
    np.testing.assert_array_equal(mask("noise_aware", [4], 8, 2, 2)[0][np.ix_(order, order)], matrix(INTERLEAVED))


def test_golden_mask_of_windows():
    np.testing.assert_array_equal(mask("noise_window", [1], 5, 4, 1, window=2)[0][5:], matrix(WINDOW_OF_TWO))


def test_masks_follow_every_lanes_own_prompt():
    both = mask("clean", [4, 2], 8, 2, 2)
    np.testing.assert_array_equal(both[0], mask("clean", [4], 8, 2, 2)[0])
    assert both[1, 8:, :8].sum(axis=1).tolist() == [2, 2, 4, 4]


def test_noisy_streams_do_not_see_each_other():
    three = mask("noise_aware", [4], 8, 2, 2, streams=2)[0]
    np.testing.assert_array_equal(three[:12, :12], mask("noise_aware", [4], 8, 2, 2)[0])
    np.testing.assert_array_equal(three[12:, 12:], three[8:12, 8:12])
    np.testing.assert_array_equal(three[12:, :8], three[8:12, :8])
    assert not three[8:12, 12:].any() and not three[12:, 8:12].any()


def test_layout():
    tokens = jnp.asarray([[1, 2, 3, 4, 5, 6, 0], [1, 2, 3, 4, 5, 6, 7]], jnp.int32)
    prompt_length, length = jnp.asarray([2, 3], jnp.int32), jnp.asarray([6, 7], jnp.int32)
    blocks = answer_blocks(tokens, prompt_length, length, 2, 3)
    assert blocks.tolist() == [[[3, 4, 5], [6, FILL, FILL]], [[4, 5, 6], [7, FILL, FILL]]]
    assert block_sizes(prompt_length, length, 3, 3).tolist() == [[3, 1, 0], [3, 1, 0]]
    packed = pack(tokens, prompt_length, blocks[:, None], 1)
    assert packed.ids[0].tolist() == [1, 2, 3, 4, 5, 6, 0, 3, 4, 5, 6, FILL, FILL]
    assert packed.positions[1].tolist() == [0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7, 8]
    assert packed.visible.shape == (2, 13, 13)


def test_supervised_from_the_first_wrong_token_to_the_end_of_the_answer():
    fixed = jnp.asarray([[[3, 4, 5], [6, 7, 0]]], jnp.int32)
    noisy = jnp.asarray([[[3, 9, 5], [9, 7, 0]]], jnp.int32)
    trained = supervised(noisy, fixed, jnp.asarray([2], jnp.int32), jnp.asarray([7], jnp.int32))
    # The last token of block 0 predicts the first of block 1; the answer's last token predicts nothing.
    assert trained.tolist() == [[[False, True, True], [True, False, False]]]
    assert not supervised(fixed, fixed, jnp.asarray([2], jnp.int32), jnp.asarray([7], jnp.int32)).any()


@pytest.mark.parametrize("context", ["clean", "noise_aware", "noise_window"])
def test_packed_logits_are_those_of_explicit_texts(context):
    answers, trajectories = small_answers(), small_trajectories()
    streams = np.stack([trajectories.states[:, :, 0], trajectories.states[:, :, 1]], axis=1)
    shared = shared_blocks(context, BLOCKS, 2)
    packed = pack(jnp.asarray(answers.tokens), jnp.asarray(answers.prompt_length), jnp.asarray(streams), shared)
    logits = FORWARD(answers.lm.params, *packed)
    clean = take_clean(logits, jnp.asarray(answers.prompt_length), BLOCKS, BLOCK)
    expected = causal_logits(answers.lm.params, jnp.asarray(answers.tokens))
    np.testing.assert_allclose(logits[:, :SEQUENCE], expected, atol=1e-5)
    for stream in range(2):
        noisy = np.asarray(take_noisy(logits, SEQUENCE, stream, BLOCKS, BLOCK))
        texts, places = [], []
        for lane, prompt in enumerate(answers.prompt_length):
            for index in range(BLOCKS):
                first = index // shared * shared  # of the blocks that share their noise
                text = answers.tokens[lane].copy()
                begin, end = prompt + first * BLOCK, prompt + (index + 1) * BLOCK
                text[begin:end] = streams[lane, stream, first : index + 1].reshape(-1)[: SEQUENCE - begin]
                texts.append(text)
                places.append((lane, index, end))
        explicit = np.asarray(causal_logits(answers.lm.params, jnp.asarray(np.stack(texts))))
        for row, (lane, index, end) in enumerate(places):
            np.testing.assert_allclose(noisy[lane, index], explicit[row, end - BLOCK : end], atol=1e-5)
            at = answers.prompt_length[lane] + index * BLOCK
            np.testing.assert_array_equal(clean[lane, index], logits[lane, at : at + BLOCK])


def test_unknown_contexts_are_named():
    with pytest.raises(ValueError, match="context='blurry' is unknown; choose one of clean"):
        shared_blocks("blurry", 4)
    with pytest.raises(ValueError, match="window=0 blocks"):
        shared_blocks("noise_window", 4, 0)
