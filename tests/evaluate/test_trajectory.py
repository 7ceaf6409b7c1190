"""Recorded trajectories against a plain NumPy Jacobi iteration, and against what the drafter does with a text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer
from toy_model import ToyModelFn, greedy_continuation, toy_model

import jaxspec
from jaxspec.drafters.jacobi import jacobi
from jaxspec.evaluate import trajectory
from jaxspec.evaluate.trajectory import record
from jaxspec.evaluate.trajectory_statistics import fast_forwarded, right_in_a_row, settled, summary

V = 7
LM = toy_model(0)
SEEDS = [3, 1, 4, 1, 5]


def random_prompts(count: int, seed: int = 0, longest: int = 75) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, rng.integers(1, longest)).tolist() for _ in range(count)]


PROMPTS = [*random_prompts(4), [2]]


@pytest.mark.parametrize(("n", "init"), [(8, "prompt"), (5, "vocabulary"), (2, "repeat")])
def test_iterates_are_those_of_a_plain_iteration(n: int, init) -> None:
    out = record(LM, PROMPTS, n, 24, init=init, seed=SEEDS)
    table, blocks = np.asarray(LM.params["table"]), -(-24 // n)
    assert out.iterates.shape == (5, blocks, n + 1, n) and out.passes.shape == (5, blocks)
    assert out.ids == [greedy_continuation(LM, prompt, 24) for prompt in PROMPTS]
    for lane, prompt in enumerate(PROMPTS):
        text = list(prompt)
        for block in range(blocks):
            iterates = out.iterates[lane, block]
            assert init != "repeat" or set(iterates[0].tolist()) == {text[-1]}
            assert init != "prompt" or set(iterates[0].tolist()) <= set(prompt)
            state, passes = iterates[0].tolist(), None
            for j in range(n):
                read = [0, *text, *state]
                start = len(text)
                new = [int(np.argmax(table[read[start + i] + read[start + i - 1] * V])) for i in range(n)]
                if passes is None and new[:-1] == state[:-1]:
                    passes = j + 1
                state = new
                assert iterates[j + 1].tolist() == state
            assert passes == out.passes[lane, block] <= n
            assert (right_in_a_row(iterates) >= np.arange(n + 1)).all()  # after j iterations j tokens are right
            assert (np.diff(right_in_a_row(iterates)) >= 0).all()
            text += state
            assert text == prompt + greedy_continuation(LM, prompt, len(text) - len(prompt))


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 2.0])
def test_the_drafter_takes_the_same_passes(temperature: float) -> None:
    settings = dict(temperature=temperature, seed=SEEDS)
    out = record(LM, PROMPTS, 8, 24, init="prompt", **settings)
    drafted = jaxspec.generate(LM, PROMPTS, drafter=jacobi(8), max_new_tokens=24, lanes=2, cache=128, **settings)
    assert out.ids == drafted.ids
    assert out.passes.sum(axis=1).tolist() == [part.target_calls for part in drafted.statistics.per_prompt]
    assert summary(out.iterates, out.passes).tokens_per_forward == drafted.statistics.tokens_per_call
    assert len({tuple(ids) for ids in out.ids}) == 5


def test_lanes_do_not_depend_on_their_mates() -> None:
    together = record(LM, PROMPTS, 8, 24, seed=SEEDS)
    for lane in (1, 4):
        alone = record(LM, PROMPTS[lane], 8, 24, seed=SEEDS[lane])
        np.testing.assert_array_equal(alone.iterates[0], together.iterates[lane])
        np.testing.assert_array_equal(alone.passes[0], together.passes[lane])
    compiled = trajectory._run._cache_size()
    record(LM, PROMPTS[::-1], 8, 24, seed=SEEDS)
    assert trajectory._run._cache_size() == compiled


def test_what_a_text_says_does_not_depend_on_the_initial_tokens() -> None:
    one, other = (record(LM, PROMPTS, 8, 24, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.iterates[:, :, -1], other.iterates[:, :, -1])
    assert (one.iterates[:, :, 0] != other.iterates[:, :, 0]).any()


def test_a_block_with_an_end_of_sequence_is_the_last() -> None:
    free = [greedy_continuation(LM, prompt, 24) for prompt in PROMPTS]
    for eos in range(V):
        out = record(LM, PROMPTS, 8, 24, stop_ids=[eos])
        for ids, said, passes, iterates in zip(free, out.ids, out.passes, out.iterates, strict=True):
            end = ids.index(eos) + 1 if eos in ids else 24
            assert said == ids[:end]
            assert ((passes > 0) == (np.arange(3) < -(-end // 8))).all()
            assert not iterates[passes == 0].any() and iterates[passes > 0][:, -1].reshape(-1)[:end].tolist() == said
    named = toy_model(0, eos_ids=(3,))
    assert record(named, PROMPTS, 8, 24).ids == record(LM, PROMPTS, 8, 24, stop_ids=[3]).ids
    assert record(named, PROMPTS, 8, 24, ignore_eos=True).ids == free


def test_texts_and_limits_that_are_no_multiple_of_a_block() -> None:
    out = record(LM, "abcab", 8, 11)
    assert out.ids == [greedy_continuation(LM, [0, 1, 2, 0, 1], 11)] and out.passes.shape == (1, 2)


def test_a_model_that_counts_and_one_that_does_not_look() -> None:
    lm = toy_model(0, order=1)
    lm.params["table"] = jnp.asarray(np.eye(V)[(np.arange(V) + 1) % V], jnp.float32)
    out = record(lm, [3], 6, 12, init="repeat")
    assert out.passes.tolist() == [[6, 6]] and fast_forwarded(out.iterates).tolist() == [[1, 1]]
    lm.params["table"] = jnp.asarray(np.eye(V)[np.full(V, 3)], jnp.float32)
    out = record(lm, [0], 6, 12, init="repeat")
    assert out.passes.tolist() == [[2, 1]] and settled(out.iterates).tolist() == [[[1] * 6, [0] * 6]]
    out = record(lm, [3], 6, 12, init="repeat")
    assert out.passes.tolist() == [[1, 1]] and summary(out.iterates, out.passes).tokens_per_forward == 6


@dataclasses.dataclass(frozen=True)
class Broken(ToyModelFn):
    """Logits that are no numbers, from position 20 on."""

    def __call__(self, params, block, cache, *, with_logits=True):
        output = super().__call__(params, block, cache, with_logits=with_logits)
        if not with_logits:
            return output
        position = (cache.length[:, None] + block.depth)[:, :, None]
        return output._replace(logits=jnp.where(position >= 20, jnp.nan, output.logits))


def test_logits_that_are_no_numbers_are_reported() -> None:
    lm = dataclasses.replace(LM, model=Broken(V, 2))
    assert record(lm, [1, 2, 3], 8, 16).ids == [greedy_continuation(LM, [1, 2, 3], 16)]
    with pytest.raises(FloatingPointError, match="the logits of toy were not finite"):
        record(lm, [1, 2, 3] * 4, 8, 16)


def test_real_arithmetic() -> None:
    lm = small_transformer()
    prompts = [np.random.default_rng(size).integers(0, 17, size).tolist() for size in (4, 70)]
    out = record(lm, prompts, 8, 32)
    assert out.ids == jaxspec.generate(lm, prompts, max_new_tokens=32).ids
    assert out.iterates.dtype == np.int32 and not isinstance(out.iterates, jax.Array)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n=1 is below 2"),
        ({"n": 200}, "2 tokens and 1 blocks of n=200 tokens do not fit in the model's context of 128"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 is below 1"),
        ({"init": "zeros"}, "init='zeros' is unknown"),
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": [[1], []]}, "prompt 1 is empty"),
        ({"prompts": [[9]]}, "prompt 0 holds id 9"),
        ({"seed": [1, 2]}, "seed has 2 values for 1 prompts"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"temperature": -1.0}, r"temperature=-1\.0 is out of range"),
        ({"stop_ids": [7]}, "stop_ids holds 7"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    settings = {"prompts": [[1, 2]], "n": 8, "max_new_tokens": 8, **options}
    with pytest.raises(ValueError, match=message):
        record(LM, **settings)
