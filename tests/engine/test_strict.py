"""Tiers L1 and L2 on a real transformer: equal ids in float32, equal bits in any type when strict."""

import dataclasses

import jax
import numpy as np
import pytest
from small_transformer import small_transformer

import jaxspec
from jaxspec import drafters
from jaxspec.decode.acceptance import Greedy
from jaxspec.decode.loop import admit, decode_tick, prefill_tick
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request
from jaxspec.engine.serve import queue_up
from jaxspec.models.transformer import transformer_fn


def prompts_of(count: int) -> list[list[int]]:
    rng = np.random.default_rng(4)
    return [(rng.integers(0, 17, rng.integers(2, 12)).tolist() * 3)[: rng.integers(3, 36)] for _ in range(count)]


@pytest.mark.parametrize("lanes", [1, 3, 8])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_float32_ids_equal_plain_ids(lanes: int, temperature: float) -> None:
    lm, prompts = small_transformer(), prompts_of(8)
    settings = dict(max_new_tokens=40, temperature=temperature, cache=128)
    plain = jaxspec.generate(lm, prompts, lanes=2, **settings)
    drafted = jaxspec.generate(lm, prompts, drafter=drafters.context_ngram(width=6), lanes=lanes, **settings)
    assert drafted.ids == plain.ids
    assert drafted.statistics.tokens_per_call > 1.03  # or the test would compare plain with plain


@pytest.mark.parametrize(
    ("temperature", "dtype"),
    [
        (0.6, "bfloat16"),
        pytest.param(0.0, "float32", marks=pytest.mark.slow),
        pytest.param(0.0, "bfloat16", marks=pytest.mark.slow),
        pytest.param(0.6, "float32", marks=pytest.mark.slow),
    ],
)
def test_strict_ids_are_equal_in_any_type(dtype: str, temperature: float) -> None:
    lm, prompts = small_transformer(dtype), prompts_of(6)
    settings = dict(max_new_tokens=60, temperature=temperature, strict=True, lanes=2, cache=128)
    plain = jaxspec.generate(lm, prompts, **settings)
    for drafter in (drafters.context_ngram(width=6), drafters.context_ngram(width=15, query=1)):
        drafted = jaxspec.generate(lm, prompts, drafter=drafter, **settings)
        assert drafted.ids == plain.ids
        assert drafted.statistics.tokens_per_call > 1.03


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_strict_logits_are_bit_equal(dtype: str) -> None:
    lm, prompt = small_transformer(dtype), prompts_of(1)[0]
    requests = [Request(tuple(prompt), 50, 0.0, 0, 1.0, 0.0, 1.0, 0)]

    def committed_logits(drafter) -> dict[int, np.ndarray]:
        job = build_job(lm, requests, drafter, lanes=2, cache=128, strict=True)
        state = job.init_state()
        state = queue_up(state, requests)
        state = admit(job.program, job.inputs, state)
        state = prefill_tick(job.program, job.inputs, state)

        @jax.jit
        def tick(state):
            seen = []

            class Spy(Greedy):
                def accept(self, logits, *rest):
                    verdict = super().accept(logits, *rest)
                    seen.append((logits[0], verdict.path[0], verdict.accepted[0]))
                    return verdict

            program = dataclasses.replace(job.program, acceptance=Spy())
            after = decode_tick(program, job.inputs, state)
            return after, *seen[0]

        found: dict[int, np.ndarray] = {}
        while int(state.requests.status[0]) != 3:
            position = int(state.requests.length[0])
            state, logits, path, accepted = tick(state)
            for step in range(int(accepted) + 1):
                found[position + step] = np.asarray(logits[int(path[step])])
        return found

    plain = committed_logits(drafters.autoregressive())
    drafted = committed_logits(drafters.context_ngram(width=6))
    assert len(drafted) >= 50
    for position in plain:
        np.testing.assert_array_equal(plain[position], drafted[position])


def test_strict_needs_room_for_the_draft() -> None:
    with pytest.raises(ValueError, match="block of 15 draft nodes cannot hold the 16 .* take a drafter of at most 15"):
        jaxspec.generate(small_transformer(), [[1, 2]], drafter=drafters.context_ngram(width=16), strict=True)


@pytest.mark.parametrize("changed", ["another function", "another config"])
def test_strict_does_not_replace_a_model_it_does_not_know(changed: str) -> None:
    lm = small_transformer()

    def model(params, block, cache, *, with_logits=True):
        return lm.model(params, block, cache, with_logits=with_logits)

    if changed == "another config":
        model = transformer_fn(dataclasses.replace(lm.config, context=64), lm.dtype)
    with pytest.raises(ValueError, match="strict=True needs a model over transformer_fn.*, and small is of"):
        jaxspec.generate(dataclasses.replace(lm, model=model), [[1, 2]], strict=True)


def test_chunks_read_beyond_the_prefix_change_no_bit() -> None:
    """Lanes of unlike lengths share a trip count; the shorter one must not notice."""
    lm = small_transformer()
    long = (np.arange(200) % 17).tolist()
    alone = jaxspec.generate(lm, [[1, 2, 3], [1, 2, 3]], max_new_tokens=30, lanes=2, cache=512)
    beside = jaxspec.generate(lm, [[1, 2, 3], long], max_new_tokens=30, lanes=2, cache=512)
    assert alone.ids[0] == beside.ids[0]
