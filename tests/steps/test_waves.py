"""When the target writes, and who is read first."""

import jax.numpy as jnp
import pytest
from toy_model import toy_model

from jaxspec import steps
from jaxspec.engine.request import Request
from jaxspec.engine.solve import init_state
from jaxspec.engine.step_job import MOST_PATIENCE, StepJob, _reading_sizes, build_step_job, step_settings
from jaxspec.steps.reading import first_in_line
from jaxspec.steps.state import Phase
from jaxspec.steps.waiting import is_ripe

MODEL = toy_model(1)
LONG_STEPS = steps.Segmentation.custom(["a"], 256)
IDLE, DRAFT, WAIT, TARGET = Phase.IDLE, Phase.DRAFT, Phase.WAIT, Phase.TARGET


def job_of(policy: steps.Policy, lanes: int, **settings) -> StepJob:
    return build_step_job(MODEL, MODEL, policy, [Request((1,), 20)], step_settings(policy, lanes=lanes, **settings))


def ripe(phases: list[Phase], waited: int = 0, **settings) -> bool:
    job = job_of(steps.random(0.5), len(phases), segmentation=LONG_STEPS, cache=512, **settings)
    state = init_state(job)
    lanes = state.lanes._replace(phase=jnp.array(phases, jnp.int32))
    state = state._replace(lanes=lanes, usage=state.usage._replace(ticks=jnp.int32(waited)))
    return bool(is_ripe(job.program, state))


@pytest.mark.parametrize(
    ("phases", "waited", "expected"),
    [
        ([TARGET] * 3 + [DRAFT] * 5, 0, False),
        ([TARGET] * 4 + [DRAFT] * 4, 0, True),  # not six, of which there will seldom be as many
        ([TARGET] + [DRAFT] * 2 + [IDLE] * 5, 0, False),
        ([TARGET] * 2 + [DRAFT] * 2 + [IDLE] * 4, 0, True),  # a wave is half of those there are
        ([TARGET] + [DRAFT] + [IDLE] * 6, 0, True),
        ([TARGET] + [WAIT] * 3 + [IDLE] * 4, 0, True),  # nobody else has work
        ([TARGET] + [DRAFT] * 7, MOST_PATIENCE - 1, False),
        ([TARGET] + [DRAFT] * 7, MOST_PATIENCE, True),
    ],
)
def test_the_target_writes_once_half_the_lanes_wait_for_it(phases: list, waited: int, expected: bool) -> None:
    assert ripe(phases, waited) == expected


def test_fewer_places_than_half_the_lanes_make_a_smaller_wave() -> None:
    phases = [TARGET] * 3 + [DRAFT] * 13
    assert ripe(phases, target_lanes=4) and not ripe(phases, target_lanes=4, wave=1.0)


def test_those_are_read_first_that_have_waited_longest() -> None:
    wanting = jnp.array([True, True, False, True, True, True])
    since = jnp.array([7, 3, 0, 3, 9, 1], jnp.int32)
    assert first_in_line(wanting, since, 4).tolist() == [5, 1, 3, 0]
    assert first_in_line(wanting, since, 6).tolist() == list(range(6))


@pytest.mark.parametrize(("lanes", "chunk", "rows"), [(128, 8, 24), (8, 8, 8), (128, 64, 3), (4, 8, 4), (64, 16, 6)])
def test_the_targets_reading_keeps_up_with_chunks_and_with_prompts(lanes: int, chunk: int, rows: int) -> None:
    program = job_of(steps.a1(samples=1, turns=3, chunk=chunk), lanes).program
    assert program.read_lanes == rows >= min(lanes, 1.5 * lanes / chunk)
    assert program.read_lanes * program.read_width >= min(64, lanes * program.read_width)


@pytest.mark.parametrize(
    ("policy", "width"),
    [
        (steps.a1(chunk=64), 64),
        (steps.a1(chunk=5, target_chunk=100), 128),
        (steps.a1(chunk=1), 64),  # prompts are read by it too
        (steps.a1(chunk=500), 256),
        (steps.rsd(0.5), 256),  # scored from a model of its own, without logits
    ],
)
def test_an_accelerator_reads_no_more_than_a_step_where_the_target_scores(policy: steps.Policy, width: int) -> None:
    assert _reading_sizes(policy, step_settings(policy), 32, on_cpu=False) == (width, 32)
