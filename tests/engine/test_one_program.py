"""One compilation for every static configuration, and no transfer inside the loop."""

import jax
import numpy as np
import pytest
from toy_model import toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.decode.loop import run_slice
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request
from jaxspec.engine.serve import queue_up

LM = toy_model(2)


def compilations(work) -> int:
    before = run_slice._cache_size()
    work()
    return run_slice._cache_size() - before


def test_prompts_seeds_lengths_and_temperatures_are_data() -> None:
    rng = np.random.default_rng(0)

    def job(seed: int, temperature: float, count: int) -> None:
        jaxspec.generate(
            LM,
            [rng.integers(0, 7, rng.integers(1, 60)).tolist() for _ in range(count)],
            drafter=drafters.context_ngram(width=3),
            max_new_tokens=int(rng.integers(1, 30)),
            temperature=temperature,
            seed=seed,
            lanes=2,
            cache=128,
        )

    assert compilations(lambda: job(0, 1.0, 2)) == 1
    assert compilations(lambda: [job(s, 0.3 + 0.1 * s, 1 + 2 * s) for s in range(1, 8)]) == 0


def test_greedy_jobs_share_one_program_too() -> None:
    def job(prompt: list[int], stop_ids: list[int]) -> None:
        jaxspec.generate(LM, [prompt], max_new_tokens=9, stop_ids=stop_ids, drafter=drafters.context_ngram(width=2))

    assert compilations(lambda: job([1, 2], [3])) == 1
    assert compilations(lambda: [job([1] * n, [n % 7]) for n in range(1, 9)]) == 0


def test_stop_strings_of_any_length_within_a_bucket_share_a_program() -> None:
    def job(stop: list[str]) -> None:
        jaxspec.generate(LM, [[1, 2, 3]], max_new_tokens=9, stop=stop)

    assert compilations(lambda: job(["ab"])) == 1
    assert compilations(lambda: [job(["abc"]), job(["a", "bcd"]), job(["gfed"])]) == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_slice_runs_without_transfers(temperature: float) -> None:
    requests = [Request((1, 2, 3, 4), 20, temperature, 0, 1.0, 0.0, 1.0, 5) for _ in range(6)]
    job = build_job(LM, requests, drafters.context_ngram(width=3), lanes=2, cache=128, stop=["zz"])
    state = job.init_state()
    state = queue_up(state, requests)
    with jax.transfer_guard("disallow"):
        state = jax.block_until_ready(run_slice(job.program, job.inputs, state))
    assert np.asarray(state.requests.status[:6]).tolist() == [3] * 6


def test_the_state_is_donated() -> None:
    requests = [Request((1, 2), 20, 0.0, 0, 1.0, 0.0, 1.0, 5)]
    job = build_job(LM, requests, drafters.context_ngram(width=3), lanes=2, cache=128)
    state = job.init_state()
    kept = (state.cache, state.requests, state.row)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(kept))
    memory = run_slice.lower(job.program, job.inputs, state).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= size
