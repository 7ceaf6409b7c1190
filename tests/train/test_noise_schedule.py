"""The progressive noise schedule and the states it picks."""

import numpy as np
import pytest

from jaxspec.train.noise_schedule import noise_of_states, noise_ratios, scheduled_states, uniform_states


def trajectories(seed: int, answers: int = 40, blocks: int = 8, block: int = 8):
    """States as Jacobi decoding leaves them: after k passes k or more tokens are right, and later ones by chance."""
    random = np.random.default_rng(seed)
    fixed = np.zeros((answers, blocks, block + 1, block), int)
    right = np.arange(block) < np.arange(block + 1)[:, None]
    wrong = ~right & (random.random(fixed.shape) < 0.8)
    return np.where(wrong, random.integers(1, 9, fixed.shape), fixed), np.full((answers, blocks), block + 1)


def test_ratios():
    assert noise_ratios("linear", 4, 6).tolist() == [0, 0.25, 0.5, 0.75, 0, 0.25]
    assert noise_ratios("reverse", 4, 6).tolist() == [0.75, 0.5, 0.25, 0, 0.75, 0.5]
    assert noise_ratios("linear", 3, 4, highest=1.0).tolist() == [0, 0.5, 1, 0]
    assert noise_ratios("linear", 1, 2).tolist() == [0, 0]
    drawn = noise_ratios("random", 4, 400, np.random.default_rng(0))
    assert sorted(set(drawn.tolist())) == [0, 0.25, 0.5, 0.75]


def test_noise_of_states():
    fixed = [5, 6, 7, 8]
    states = np.array([[[[9, 6, 9, 8], [5, 9, 7, 9], [5, 6, 7, 9], fixed, fixed]]])
    count, size = np.array([[4]]), np.array([[4]])
    assert noise_of_states(states, count, size)[0, 0].tolist() == [1, 0.75, 0.25, 0, 0]
    assert noise_of_states(states, count, size, "wrong")[0, 0].tolist() == [0.5, 0.5, 0.25, 0, 0]
    short = np.array([[[[9, 6, 0, 0], [5, 9, 0, 0], [5, 6, 0, 0], [5, 6, 0, 0], [5, 6, 0, 0]]]])
    assert noise_of_states(short, np.array([[3]]), np.array([[2]]))[0, 0].tolist() == [1, 0.5, 0, 0, 0]


@pytest.mark.parametrize("measure", ["prefix", "wrong"])
def test_the_chosen_state_is_the_closest(measure):
    states, count = trajectories(0)
    count = np.random.default_rng(1).integers(1, 10, count.shape)
    size = np.full(count.shape, 8)
    ratios = noise_ratios("linear", 8, 8)
    chosen = scheduled_states(states, count, size, ratios, measure)
    noise = noise_of_states(states, count, size, measure)
    for lane, place in np.ndindex(count.shape):
        # Ratios of eighths are whole tokens, so rounding up changes nothing.
        distances = [abs(noise[lane, place, index] - ratios[place]) for index in range(count[lane, place])]
        assert chosen[lane, place] == int(np.argmin(distances))


def test_wanted_noise_is_rounded_up_to_whole_tokens():
    # Wrong tokens: 4, 3, 2, 1, 0. A ratio of 0.3 asks for ceil(1.2) = 2 of four.
    states = np.array([[[[9] * 4, [1, 9, 9, 9], [1, 2, 9, 9], [1, 2, 3, 9], [1, 2, 3, 4]]]])
    count, size = np.array([[5]]), np.array([[4]])
    assert scheduled_states(states, count, size, np.array([0.3]), "wrong").tolist() == [[2]]
    assert scheduled_states(states, count, size, np.array([0.3]), "prefix").tolist() == [[3]]


def longest_run(states: np.ndarray, chosen: np.ndarray) -> float:
    """Mean over answers of the longest row of unconverged tokens when every block is in its chosen state."""
    picked = np.take_along_axis(states, chosen[..., None, None], axis=2)[:, :, 0]
    noisy = np.cumsum(picked != 0, axis=2) > 0
    longest = []
    for answer in noisy.reshape(len(noisy), -1):
        run = best = 0
        for wrong in answer:
            run = run + 1 if wrong else 0
            best = max(best, run)
        longest.append(best)
    return float(np.mean(longest))


def test_linear_noise_stands_in_shorter_rows_than_random_noise():
    states, count = trajectories(3, blocks=32)
    size, random = np.full(count.shape, 8), np.random.default_rng(4)
    # With a ratio of 1 in the window, random noise puts wholly noisy blocks next to each other.
    ratios = np.stack([noise_ratios("random", 4, 32, random, highest=1.0) for _ in count])
    linear = scheduled_states(states, count, size, noise_ratios("linear", 4, 32, highest=1.0))
    drawn = scheduled_states(states, count, size, ratios)
    assert longest_run(states, linear) < longest_run(states, drawn) < longest_run(states, np.zeros_like(linear))
    below_one = scheduled_states(states, count, size, noise_ratios("linear", 4, 32))
    assert longest_run(states, below_one) <= 8  # no block is all noise, so no row is longer than one


def test_uniform_states_leave_out_the_fixed_point():
    count = np.tile(np.array([1, 2, 3, 9]), (3000, 1))
    chosen = uniform_states(count, np.random.default_rng(0))
    assert (chosen[:, :2] == 0).all()
    assert np.bincount(chosen[:, 2]).tolist() == pytest.approx([1500, 1500], abs=120)
    assert np.bincount(chosen[:, 3]).tolist() == pytest.approx([375] * 8, abs=80)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("steep", 4, 4), "order='steep' is unknown"),
        (("linear", 0, 4), "window=0 is below 1"),
        (("random", 4, 4), "needs a generator"),
    ],
)
def test_bad_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        noise_ratios(*arguments)
    with pytest.raises(ValueError, match="highest=1.5 is no ratio"):
        noise_ratios("linear", 4, 4, highest=1.5)
    with pytest.raises(ValueError, match="measure='most' is unknown"):
        noise_of_states(np.zeros((1, 1, 2, 2)), np.ones((1, 1), int), np.ones((1, 1), int), "most")
