"""What a target pass costs, by block width: measured once for a device and model, and kept.

The measurement runs the very program that decoding will run, told by data which width to take.
"""

import dataclasses
import hashlib
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.loop import run_slice
from jaxspec.engine.job import Job
from jaxspec.engine.request import Request
from jaxspec.engine.serve import queue_up

ROUNDS, TICKS = 5, 6  # medians of so many runs of so many passes
PROMPT = 33  # tokens


def cache_folder() -> Path:
    """Where measurements are kept: `JAXSPEC_CACHE`, or `~/.cache/jaxspec`."""
    return Path(os.environ.get("JAXSPEC_CACHE") or Path.home() / ".cache" / "jaxspec")


def with_costs(job: Job, *, fresh: bool = False) -> Job:
    """`job` with measured `step_seconds`, read back if they were measured before; unchanged for a single width.

    Args:
      job: from `build_job`.
      fresh: measure again.
    """
    if len(job.program.drafter.widths) == 1:
        return job
    path = cache_folder() / "costs" / f"{_key(job)}.json"
    if path.exists() and not fresh:
        seconds = json.loads(path.read_text())["seconds"]
    else:
        seconds = measure(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"device": _device(job), "model": job.lm.name, "widths": job.program.drafter.widths}
        _write(path, json.dumps(record | {"lanes": job.shape.lanes, "seconds": seconds}, indent=2))
    costs = jnp.asarray(seconds, jnp.float32)
    return dataclasses.replace(job, inputs=job.inputs._replace(step_seconds=costs))


def measure(job: Job) -> list[float]:
    """Seconds of a pass at each of the drafter's widths, all lanes busy: medians, interleaved."""
    widths = job.program.drafter.widths
    runs: list[list[float]] = [[] for _ in widths]
    for round_index in range(ROUNDS + 1):  # the first compiles
        for index in range(len(widths)):
            seconds = _time_one(job, index)
            if round_index:
                runs[index].append(seconds)
    return [statistics.median(times) for times in runs]


def _time_one(job: Job, index: int) -> float:
    """Seconds a pass when only width `index` looks worth taking."""
    slots = job.shape.slots
    ids = np.random.default_rng(0).integers(0, job.lm.config.vocabulary, min(PROMPT, slots // 2))
    request = Request(tuple(int(i) for i in ids), slots)
    state = queue_up(job.init_state(), [request] * job.shape.lanes)
    forced = jnp.full((len(job.program.drafter.widths),), jnp.inf).at[index].set(1.0)
    inputs = job.inputs._replace(step_seconds=forced)
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


def _device(job: Job) -> str:
    leaf = jax.tree.leaves(job.lm.params)[0]
    return next(iter(leaf.devices())).device_kind


def _key(job: Job) -> str:
    facts: Sequence[object] = (
        _device(job),
        jax.__version__,
        job.lm.config,
        str(job.lm.dtype),
        job.shape,
        job.program.drafter,  # drafting is part of a pass, and so is what it wants to see of the target
        job.program.flags,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)
