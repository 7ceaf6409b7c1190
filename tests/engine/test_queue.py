"""A request's output depends on the request alone: not on lanes, order, slices or company."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.decode.commit import Finish
from jaxspec.decode.types import Drafter
from jaxspec.drafters.best import CorpusWhereFree
from jaxspec.engine.generate import run
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request
from jaxspec.engine.serve import serve

LM = toy_model(1)
DRAFTER = drafters.context_ngram(width=4)


def requests_of(count: int) -> list[Request]:
    rng = np.random.default_rng(11)
    return [
        Request(
            tuple(rng.integers(0, 7, rng.integers(1, 90)).tolist()),
            int(rng.integers(1, 25)),
            float(rng.choice([0.0, 0.7, 1.5])),
            0,
            1.0,
            0.0,
            1.0,
            int(rng.integers(0, 2**32)),
        )
        for _ in range(count)
    ]


def outputs(requests: list[Request], *, lanes: int, slice_ticks: int | None = None) -> list[list[int]]:
    job = build_job(LM, requests, DRAFTER, lanes=lanes, cache=128, stop=["dfa", "gg"])
    done: dict[int, list[int]] = {}
    for progress in serve(job.program, job.inputs, job.init_state(), requests, slice_ticks=slice_ticks):
        for item in progress:
            assert item.index not in done
            done[item.index] = item.ids.tolist()
    return [done[index] for index in range(len(requests))]


@pytest.fixture(scope="module")
def alone() -> list[list[int]]:
    """Every request as a job of its own."""
    return [outputs([request], lanes=1)[0] for request in requests_of(50)]


@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("slice_ticks", [None, 1, 7])
def test_fifty_requests_in_any_order_on_any_number_of_lanes(alone, lanes: int, slice_ticks: int | None) -> None:
    requests = requests_of(50)  # more than the rows of the smaller queues hold
    order = np.random.default_rng(lanes).permutation(50)
    got = outputs([requests[i] for i in order], lanes=lanes, slice_ticks=slice_ticks)
    assert got == [alone[i] for i in order]


MIXED = drafters.mix(
    drafters.suffix(width=4),
    drafters.token_recycling(3, 12, start="empty", pairs=64),
    CorpusWhereFree(4, 256, ""),
    budget=8,
    widths=(0, 3, 8),
)
FOLLOWED = [
    ("rejection", MIXED),
    ("rejection", drafters.draft_model(toy_model(5), "auto", branches=2)),
    pytest.param("typical", MIXED, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("acceptance", "drafter"), FOLLOWED, ids=["mix", "draft_model", "typical"])
def test_texts_that_follow_drafts_follow_those_of_their_own_request(acceptance: str, drafter: Drafter) -> None:
    """Also where drafters learn from all lanes and choose widths by the clock, which they must not then."""
    requests = [dataclasses.replace(request, temperature=1.5) for request in requests_of(20)]

    def texts(order: list[int], lanes: int, seconds: float) -> list[list[int]]:
        job = build_job(LM, requests, drafter, lanes=lanes, cache=128, acceptance=acceptance)
        steps = 1 + seconds * np.arange(job.inputs.step_seconds.shape[0])
        job = dataclasses.replace(job, inputs=job.inputs._replace(step_seconds=jnp.asarray(steps, jnp.float32)))
        done = {item.index: item.ids.tolist() for item in run(job, [requests[index] for index in order])[0]}
        return [done[order.index(index)] for index in range(len(requests))]

    first = texts(list(range(20)), 4, 0.0)
    assert texts(np.random.default_rng(0).permutation(20).tolist(), 3, 9.0) == first
    plain = build_job(LM, requests, drafters.autoregressive(), lanes=4, cache=128, acceptance=acceptance)
    assert [item.ids.tolist() for item in run(plain, requests)[0]] != first  # they do follow drafts


def test_no_other_requests_are_copied_from_where_texts_follow_drafts() -> None:
    with pytest.raises(ValueError, match="corpus drafts from other requests.*use acceptance='coupled', or suffix"):
        build_job(LM, requests_of(2), drafters.corpus(), acceptance="rejection")


def test_requests_are_served_in_order() -> None:
    requests = [Request((i % 7,), 5, 0.0, 0, 1.0, 0.0, 1.0, 0) for i in range(20)]
    job = build_job(LM, requests, drafters.autoregressive(), lanes=1, cache=128)
    finished = [
        item.index
        for progress in serve(job.program, job.inputs, job.init_state(), requests, slice_ticks=3)
        for item in progress
    ]
    assert finished == list(range(20))


def test_running_requests_can_be_watched() -> None:
    request = Request((1, 2, 3), 20, 0.0, 0, 1.0, 0.0, 1.0, 0)
    job = build_job(LM, [request], DRAFTER, cache=128)
    expected = greedy_continuation(LM, request.ids, 20)
    seen = [
        progress[0]
        for progress in serve(job.program, job.inputs, job.init_state(), [request], slice_ticks=1, partial=True)
    ]
    assert len(seen) > 3
    assert all(item.ids.tolist() == expected[: len(item.ids)] for item in seen)
    assert [item.finish for item in seen] == [Finish.RUNNING] * (len(seen) - 1) + [Finish.LENGTH]


def test_no_lane_idles_while_requests_wait() -> None:
    """Lanes are refilled as they finish: the passes of a ragged job are those of its busiest packing."""
    lengths = [24, 3, 3, 3, 3, 3, 3, 3, 3]
    requests = [Request((1,), n, 0.0, 0, 1.0, 0.0, 1.0, 0) for n in lengths]
    job = build_job(LM, requests, drafters.autoregressive(), lanes=2, cache=128)
    done, _, _ = run(job, requests)
    assert [len(item.ids) for item in done] == lengths
    state = job.init_state()
    ticks = []
    for _ in serve(job.program, job.inputs, state, requests, slice_ticks=1):
        ticks.append(1)
    assert len(ticks) == 24  # the eight short ones fit beside the long one


def test_numerical_failure_stops_its_lane_alone() -> None:
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 7, 12).tolist() for _ in range(12)]
    before, last = greedy_continuation(LM, prompts[0], 20)[1:3]
    table = np.asarray(LM.params["table"]).copy()
    table[last + before * 7, 2] = np.nan
    broken = dataclasses.replace(LM, params={"table": jnp.asarray(table)})
    results = [
        jaxspec.generate(broken, prompts, drafter=drafter, max_new_tokens=20, lanes=lanes, cache=128)
        for drafter in (None, DRAFTER)
        for lanes in (1, 4)
    ]
    for out in results:
        assert out.ids == results[0].ids and out.finish == results[0].finish
    assert set(results[0].finish) == {"length", "numerical"}
    for prompt, ids, finish in zip(prompts, results[0].ids, results[0].finish, strict=True):
        free = greedy_continuation(LM, prompt, 20)
        text = prompt + free
        hits = [at for at in range(len(prompt), len(text)) if text[at - 2 : at] == [before, last]]
        assert finish == ("numerical" if hits else "length")
        assert ids == (free[: hits[0] - len(prompt)] if hits else free)


@pytest.mark.parametrize("nan", [np.nan, np.copysign(np.nan, -1)], ids=["nan", "-nan"])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}], ids=str)
def test_no_filter_hides_a_numerical_failure(nan: float, filters: dict) -> None:
    table = np.asarray(LM.params["table"]).copy()
    table[:, 2] = nan
    broken = dataclasses.replace(LM, params={"table": jnp.asarray(table)})
    out = jaxspec.generate(broken, [[1, 2, 3]], temperature=1.0, max_new_tokens=5, cache=128, **filters)
    assert (out.finish, out.ids) == (["numerical"], [[]])


def test_progress_counts_finished_requests() -> None:
    seen: list[tuple[int, int]] = []
    prompts = [[i % 7] for i in range(30)]
    jaxspec.generate(LM, prompts, max_new_tokens=4, lanes=1, progress=lambda done, all_: seen.append((done, all_)))
    assert seen[-1] == (30, 30) and len(seen) > 1
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
