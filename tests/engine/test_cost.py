"""Measurements of passes are kept where they can be, and belong to what was measured."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

from jaxspec import drafters
from jaxspec.decode.loop import run_slice
from jaxspec.engine import cost
from jaxspec.engine.job import Job, build_job
from jaxspec.engine.request import Request
from jaxspec.models import kept

DRAFTER = drafters.mix(drafters.context_ngram(width=4), drafters.suffix(width=4), budget=8, widths=(0, 8))
REQUESTS = [Request((1, 2), 9)]


def job_of(lm=None, drafter=DRAFTER, **settings) -> Job:
    return build_job(toy_model(1) if lm is None else lm, REQUESTS, drafter, cache=128, **settings)


@pytest.fixture
def measured(monkeypatch) -> list[Job]:
    """The jobs that were measured, in no time."""
    jobs: list[Job] = []

    def measure(job: Job) -> list[float]:
        jobs.append(job)
        return [0.5, 0.75]

    monkeypatch.setattr(cost, "measure", measure)
    monkeypatch.setattr(cost, "_unwritten", {})
    return jobs


def seconds_of(job: Job) -> list[float]:
    return np.asarray(cost.with_costs(job).inputs.step_seconds).tolist()


def test_a_place_that_cannot_be_written_costs_one_measurement(tmp_path, monkeypatch, measured) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path / "file"))
    assert [seconds_of(job_of()) for _ in range(2)] == [[0.5, 0.75]] * 2
    assert len(measured) == 1


def test_a_user_without_a_home(tmp_path, monkeypatch, measured) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("JAXSPEC_CACHE")
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(kept.tempfile, "gettempdir", lambda: str(tmp_path))
    assert seconds_of(job_of()) == [0.5, 0.75]
    assert list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "\xff", '{"seconds": 3}', '{"seconds": [1.0]}', '{"seconds": [0, 1]}',
     '{"seconds": [NaN, 1]}', '{"seconds": ["a", 1]}'],
)  # fmt: skip
def test_a_damaged_file_is_measured_again_and_mended(tmp_path, monkeypatch, measured, content: str) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))
    seconds_of(job_of())
    [file] = tmp_path.rglob("*.json")
    file.write_bytes(content.encode("latin-1"))
    assert seconds_of(job_of()) == [0.5, 0.75] and len(measured) == 2
    assert json.loads(file.read_text())["seconds"] == [0.5, 0.75]
    seconds_of(job_of())
    assert len(measured) == 2


def test_weights_of_other_values_share_a_measurement(tmp_path, monkeypatch, measured) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))
    for seed in (1, 2):
        seconds_of(job_of(toy_model(seed)))
    assert len(measured) == 1


def test_other_types_rules_and_machines_do_not_share_one(tmp_path, monkeypatch, measured) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))
    lm, job = toy_model(1), job_of()
    narrow = dataclasses.replace(lm, params={"table": lm.params["table"].astype(jnp.bfloat16)})
    drafting = job.inputs._replace(drafter_params=(*job.inputs.drafter_params, jnp.zeros((3,), jnp.int8)))
    jobs = [job, job_of(narrow), job_of(acceptance="coupled"), dataclasses.replace(job, inputs=drafting)]
    for other in jobs:
        seconds_of(other)
    assert len(measured) == len(jobs)
    for processor in (("model name: another", 2), ("model name: another", 64)):
        monkeypatch.setattr(cost, "_processor", lambda processor=processor: processor)
        seconds_of(job)
    assert len(measured) == len(jobs) + 2


def test_the_processor_is_named() -> None:
    name, cores = cost._processor()
    assert name and cores >= 1


def test_passes_are_timed_in_full_whatever_ends_the_texts_of_the_job(monkeypatch) -> None:
    """The measurement is kept for all jobs of its slots, of which this one's texts could hardly use any."""
    ticks = []

    def run(program, inputs, state):
        state = run_slice(program, inputs, state)
        ticks.append(int(state.decode_ticks))
        return state

    monkeypatch.setattr(cost, "run_slice", run)
    job = build_job(toy_model(1), REQUESTS, DRAFTER, cache=12, stop_ids=list(range(7)))
    assert cost.seconds_a_pass(job, 1) > 0
    assert ticks[-1] == cost.TICKS
