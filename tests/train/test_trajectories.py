"""Collected trajectories, against a replay block by block and against models whose trajectories are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_trajectories import (
    BLOCK,
    BLOCKS,
    FORWARD,
    PROMPTS,
    SEQUENCE,
    causal_logits,
    small_answers,
    small_trajectories,
)
from small_transformer import CONFIG

from jaxspec.train.packing import FILL
from jaxspec.train.trajectories import collect

SIZES = dict(blocks=BLOCKS, block=BLOCK, vocabulary=CONFIG.vocabulary, seed=1)


def cells():
    answers = small_answers()
    for lane in range(len(PROMPTS)):
        for block in range(BLOCKS):
            begin = int(answers.prompt_length[lane]) + block * BLOCK
            yield lane, block, begin, int(np.clip(answers.length[lane] - begin, 0, BLOCK))


@pytest.mark.parametrize("initial", ["prompt", "vocabulary", "repeat"])
def test_every_state_follows_from_the_one_before(initial):
    answers, trajectories = small_answers(), small_trajectories(initial)
    assert trajectories.converged.all()
    texts, expected = [], []
    for lane, block, begin, size in cells():
        states = trajectories.states[lane, block]
        count = trajectories.count[lane, block]
        fixed = answers.tokens[lane, begin : begin + size]
        assert (states[count - 1 :, :size] == fixed).all()
        assert (states[:, size:] == FILL).all()
        assert 1 <= count <= BLOCK + 1
        for index in range(count - 1):
            assert (states[index] != states[index + 1]).any()
            texts.append(answers.tokens[lane].copy())
            texts[-1][begin : begin + size] = states[index, :size]
            expected.append((begin, states[index + 1, :size]))
        for index in range(min(count, size)):  # after j passes the first j tokens are right
            assert (states[index, :index] == fixed[:index]).all()
    said = np.argmax(causal_logits(answers.lm.params, jnp.asarray(np.stack(texts))), axis=-1)
    for row, (begin, following) in enumerate(expected):
        np.testing.assert_array_equal(said[row, begin - 1 : begin - 1 + len(following)], following)


def test_starts_are_drawn_from_where_they_should_be():
    answers = small_answers()
    for lane, block, begin, size in cells():
        before = answers.tokens[lane, :begin]
        start = {name: small_trajectories(name).states[lane, block, 0, :size] for name in ("prompt", "repeat")}
        assert np.isin(start["prompt"], before).all()
        assert size == 0 or (start["repeat"] == before[-1]).all()
        known = small_trajectories(known_first=True).states[lane, block, 0, :size]
        np.testing.assert_array_equal(known[:1], answers.tokens[lane, begin : begin + size][:1])
    seen = small_trajectories("vocabulary").states[:, :, 0]
    assert seen.max() < CONFIG.vocabulary and len(np.unique(seen)) > 8


def test_a_lane_does_not_depend_on_the_others():
    answers, together = small_answers(), small_trajectories()
    lanes = np.array([2, 0])
    other = collect(
        FORWARD,
        answers.lm.params,
        answers.tokens[lanes],
        answers.prompt_length[lanes],
        answers.length[lanes],
        lanes,
        **SIZES,
    )
    for field in ("states", "count", "converged"):
        np.testing.assert_array_equal(getattr(other, field), getattr(together, field)[lanes])


def test_the_seed_decides_the_starts():
    answers = small_answers()
    arguments = (FORWARD, answers.lm.params, answers.tokens, answers.prompt_length, answers.length, np.arange(4))
    other = collect(*arguments, **(SIZES | {"seed": 2}))
    assert (np.asarray(other.states[:, :, 0]) != small_trajectories().states[:, :, 0]).any()
    np.testing.assert_array_equal(other.states[:, :, -1], small_trajectories().states[:, :, -1])


def test_an_answer_of_another_model_trains_nothing():
    answers = small_answers()
    tokens = answers.tokens.copy()
    changed = int(answers.prompt_length[0]) + BLOCK + 1  # within block 1 of lane 0
    tokens[0, changed] = (tokens[0, changed] + 1) % CONFIG.vocabulary
    collected = collect(
        FORWARD, answers.lm.params, tokens, answers.prompt_length, answers.length, np.arange(4), **SIZES
    )
    assert not collected.converged[0, 1] and collected.converged[0, 0] and collected.converged[1:].all()
    assert collected.count[0, 1] == 1
    assert (collected.states[0, 1] == tokens[0, changed - 1 : changed - 1 + BLOCK]).all()


def counting(params, ids, positions, visible):
    """Says the number after the last."""
    del params, positions, visible
    return jax.nn.one_hot(ids + 1, 32)


def by_position(params, ids, positions, visible):
    """Says what the position alone decides."""
    del params, ids, visible
    return jax.nn.one_hot(positions % 7 + 1, 32)


def test_a_model_that_counts_needs_every_pass():
    tokens = np.arange(10, 10 + SEQUENCE)[None]
    collected = collect(
        counting, {}, tokens, [3], [15], [0], blocks=3, block=4, vocabulary=32 + SEQUENCE, initial="repeat"
    )
    assert collected.count.tolist() == [[5, 5, 5]]
    assert collected.states[0, 0].tolist() == [
        [12, 12, 12, 12],
        [13, 13, 13, 13],
        [13, 14, 14, 14],
        [13, 14, 15, 15],
        [13, 14, 15, 16],
    ]


def test_a_model_of_positions_needs_one_pass():
    tokens = np.concatenate([[30, 30], np.arange(1, SEQUENCE - 1) % 7 + 1])[None]
    collected = collect(by_position, {}, tokens, [2], [14], [0], blocks=3, block=4, vocabulary=32, initial="repeat")
    assert collected.converged.all() and (np.asarray(collected.count) == 2).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"block": 0}, "block=0 is below 1"),
        ({"blocks": 6}, "6 blocks of 4 tokens and a prompt do not fit into a sequence of 24"),
        ({"initial": "zeros"}, "initial='zeros' is unknown; choose one of prompt"),
    ],
)
def test_bad_geometry_is_refused(change, message):
    answers = small_answers()
    with pytest.raises(ValueError, match=message):
        collect(
            FORWARD,
            answers.lm.params,
            answers.tokens,
            answers.prompt_length,
            answers.length,
            np.arange(4),
            **(SIZES | change),
        )
