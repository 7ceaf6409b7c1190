"""What a target pass costs, by block width: measured once for a device and model, and kept, if there is a place.

The measurement runs the very program that decoding will run, told by data which width to take.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.loop import run_slice
from jaxspec.engine.job import Job
from jaxspec.engine.request import Request
from jaxspec.engine.serve import queue_up
from jaxspec.models.kept import kept_folder

ROUNDS, TICKS = 5, 6  # medians of so many runs of so many passes
PROMPT = 33  # tokens
PROCESSORS = Path("/proc/cpuinfo")  # where Linux says which they are

_unwritten: dict[Path, list[float]] = {}  # measurements of this process that the folder could not take


def with_costs(job: Job, *, fresh: bool = False) -> Job:
    """`job` with measured `step_seconds`, read back if they were measured before; unchanged for a single width.

    A folder that cannot be written and a file that cannot be read cost a measurement, not the job.

    Args:
      job: from `build_job`.
      fresh: measure again.
    """
    if len(job.program.drafter.widths) == 1:
        return job
    path = kept_folder() / "costs" / f"{_key(job)}.json"
    seconds = None if fresh else _read(path, len(job.program.drafter.widths))
    if seconds is None:
        seconds = measure(job)
        record = {"device": _device(job).device_kind, "model": job.lm.name, "widths": job.program.drafter.widths}
        try:
            _write(path, json.dumps(record | {"lanes": job.shape.lanes, "seconds": seconds}, indent=2))
        except OSError:
            _unwritten[path] = seconds
    costs = jnp.asarray(seconds, jnp.float32)
    return dataclasses.replace(job, inputs=job.inputs._replace(step_seconds=costs))


def measure(job: Job) -> list[float]:
    """Seconds of a pass at each of the drafter's widths, all lanes busy: medians, interleaved."""
    widths = job.program.drafter.widths
    runs: list[list[float]] = [[] for _ in widths]
    for round_index in range(ROUNDS + 1):  # the first compiles
        for index in range(len(widths)):
            seconds = seconds_a_pass(job, index)
            if round_index:
                runs[index].append(seconds)
    return [statistics.median(times) for times in runs]


def seconds_a_pass(job: Job, index: int) -> float:
    """Seconds a pass when only width `index` of the drafter looks worth taking, all lanes busy; compiles at first."""
    slots = job.shape.slots
    ids = np.random.default_rng(0).integers(0, job.lm.config.vocabulary, min(PROMPT, slots // 2))
    request = Request(tuple(int(i) for i in ids), slots)
    state = queue_up(job.init_state(), [request] * job.shape.lanes)
    forced = jnp.full((len(job.program.drafter.widths),), jnp.inf).at[index].set(1.0)
    # Whatever ends texts in the job, here they go on for as long as there are slots.
    endless = job.inputs.rules._replace(ids=jnp.full_like(job.inputs.rules.ids, -1))
    inputs = job.inputs._replace(step_seconds=forced, capacity=jnp.int32(slots), rules=endless)
    prefill = job.shape.lanes * -(-(len(ids) - 1) // job.shape.prefill_width)
    state = run_slice(job.program, _for(inputs, prefill), state)
    jax.block_until_ready(state)
    inputs = _for(inputs, TICKS)
    begun = time.perf_counter()
    state = jax.block_until_ready(run_slice(job.program, inputs, state))
    seconds = time.perf_counter() - begun
    return seconds / max(int(state.ticks), 1)


def _for(inputs, ticks: int):
    return inputs._replace(max_ticks=jax.device_put(np.int32(ticks)))


def _device(job: Job) -> Any:
    leaf = jax.tree.leaves(job.lm.params)[0]
    return next(iter(leaf.devices()))


def _key(job: Job) -> str:
    """A name for everything that a pass takes its time for; what weights are worth is not among it."""
    device = _device(job)
    facts: Sequence[object] = (
        device.device_kind,
        _processor() if device.platform == "cpu" else None,
        jax.__version__,
        job.lm.config,
        str(job.lm.dtype),
        _types(job.lm.params),
        job.shape,
        job.program.drafter,  # drafting is part of a pass, and so is what it wants to see of the target
        _types(job.inputs.drafter_params),
        job.program.acceptance,
        job.program.flags,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def _processor() -> tuple[str, int]:
    """The host's processor, since all are devices of kind `cpu`, and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        name = next((line for line in PROCESSORS.read_text().splitlines() if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return name, cores


def _types(params: Any) -> list[tuple[str, tuple[int, ...], str, int]]:
    """Path, shape, type and number of devices of every array."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return [
        (
            jax.tree_util.keystr(path),
            np.shape(leaf),
            str(getattr(leaf, "dtype", type(leaf))),
            len(leaf.devices()) if isinstance(leaf, jax.Array) else 0,
        )
        for path, leaf in leaves
    ]


def _read(path: Path, count: int) -> list[float] | None:
    """The seconds kept at `path`, or None where `count` positive numbers are not to be had."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        seconds = [float(value) for value in json.loads(path.read_text())["seconds"]]
        if len(seconds) == count and all(0 < value < math.inf for value in seconds):
            return seconds
    return _unwritten.get(path)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)
