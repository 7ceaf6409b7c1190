"""Batches by step number: complete, repeatable, and of the states that were asked for."""

import numpy as np
import pytest
from small_trajectories import BLOCK, BLOCKS, small_trajectories
from small_transformer import CONFIG

from jaxspec.train.packing import FILL
from jaxspec.train.shards import concatenate
from jaxspec.train.trajectory_batches import StateChoice, trajectory_batches


def many():
    """Twelve answers, told apart by their request's first token."""
    data = concatenate([small_trajectories()] * 3)
    tokens = data.tokens.copy()
    tokens[:, 0] = np.arange(len(tokens))
    return data._replace(tokens=tokens)


def batches(size=5, **settings):
    teacher = settings.pop("teacher", "global")
    return trajectory_batches(many(), CONFIG.vocabulary, size, choice=StateChoice(**settings), teacher=teacher, seed=3)


def test_every_answer_once_an_epoch_and_in_another_order_the_next():
    source = batches(size=4)
    assert source.steps_per_epoch == 3 and batches(size=5).steps_per_epoch == 3
    first = np.concatenate([source.batch(step).tokens[:, 0] for step in range(3)])
    second = np.concatenate([source.batch(step).tokens[:, 0] for step in range(3, 6)])
    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist()
    across = np.concatenate([batches(size=5).batch(step).tokens[:, 0] for step in range(5)])
    assert across[:24].tolist() == [*first, *second]


def test_a_batch_depends_on_its_step_alone():
    one, other = batches(random_share=0.5, augmented=True), batches(random_share=0.5, augmented=True)
    other.batch(0)
    for found, expected in zip(other.batch(7), one.batch(7), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int32
    assert (one.batch(8).noisy != one.batch(7).noisy).any()


def states_of(batch):
    """(B, T) number of the state every noisy block is in."""
    data = many()
    states = data.states[batch.tokens[:, 0]]
    return [(states == stream[:, :, None]).all(axis=-1) for stream in np.moveaxis(batch.noisy, 1, 0)]


def test_states_are_the_chosen_ones():
    data = many()
    (initial,) = states_of(batches(kind="initial").batch(0))
    assert initial[:, :, 0].all()
    batch = batches(kind="uniform").batch(0)
    count = data.count[batch.tokens[:, 0]]
    (uniform,) = states_of(batch)
    assert uniform.any(axis=-1).all()
    assert (np.argmax(uniform, axis=-1) <= np.maximum(count - 2, 0)).all()
    (calm,) = states_of(batches(kind="progressive", window=1).batch(0))
    assert np.take_along_axis(calm, (count - 1)[..., None], axis=-1).all()  # ratio 0: fixed points
    wild = batches(kind="progressive", window=2, highest=1.0).batch(0)
    (rising,) = states_of(wild)
    assert np.take_along_axis(rising, (count - 1)[..., None], axis=-1)[:, 0].all()
    assert (np.argmax(rising[:, 1], axis=-1) < np.maximum(count[:, 1] - 1, 1)).all()


def test_the_local_loss_gets_the_states_after():
    data = many()
    batch = batches(teacher="local").batch(2)
    count = data.count[batch.tokens[:, 0]]
    now, then = states_of(batch)
    first = np.argmax(now, axis=-1)
    assert batch.noisy.shape[1] == 2
    assert np.take_along_axis(then, np.minimum(first + 1, count - 1)[..., None], axis=-1).all()


@pytest.mark.parametrize("source", ["prompt", "vocabulary", "repeat"])
def test_fresh_random_blocks(source):
    data = many()
    batch = batches(size=12, random_share=1.0, random_source=source, known_first=True).batch(0)
    for lane, block in np.ndindex(12, BLOCKS):
        begin = int(batch.prompt_length[lane]) + block * BLOCK
        size = int(np.clip(batch.length[lane] - begin, 0, BLOCK))
        noisy = batch.noisy[lane, 0, block]
        assert (noisy[size:] == FILL).all()
        if size:
            assert noisy[0] == batch.tokens[lane, begin]
        before = batch.tokens[lane, :begin]
        if source == "prompt":
            assert np.isin(noisy[1:size], before).all()
        if source == "repeat":
            assert (noisy[1:size] == noisy[0]).all()
    assert batch.noisy.max() < max(CONFIG.vocabulary, 12) and len(data.tokens) == 12


def test_a_share_of_blocks_is_fresh():
    source = batches(size=12, kind="progressive", window=1, random_share=0.3, random_source="vocabulary")
    changed = []
    for step in range(40):
        batch = source.batch(step)
        fixed = many().states[batch.tokens[:, 0], :, -1]
        whole = (batch.length - batch.prompt_length)[:, None] - np.arange(BLOCKS) * BLOCK >= BLOCK
        changed.append((batch.noisy[:, 0] != fixed).any(axis=-1)[whole])
    assert np.mean(np.concatenate(changed)) == pytest.approx(0.3, abs=0.05)


def test_bad_batches_are_refused():
    data = small_trajectories()
    with pytest.raises(ValueError, match="kind='best' is unknown"):
        StateChoice(kind="best")
    with pytest.raises(ValueError, match="random_share=1.5 is no share"):
        StateChoice(random_share=1.5)
    with pytest.raises(ValueError, match="window=0"):
        StateChoice(window=0)
    with pytest.raises(ValueError, match="outside the vocabulary of 3 ids"):
        trajectory_batches(data, 3, 2)
    with pytest.raises(ValueError, match="batch_size=0"):
        trajectory_batches(data, CONFIG.vocabulary, 0)
    with pytest.raises(ValueError, match="no trajectories to train on"):
        trajectory_batches(type(data)(*(field[:0] for field in data)), CONFIG.vocabulary, 2)
    with pytest.raises(ValueError, match="teacher='both'"):
        trajectory_batches(data, CONFIG.vocabulary, 2, teacher="both")
    with pytest.raises(ValueError, match="random_share=0.5 needs teacher='global'"):
        trajectory_batches(data, CONFIG.vocabulary, 2, choice=StateChoice(random_share=0.5), teacher="local")
