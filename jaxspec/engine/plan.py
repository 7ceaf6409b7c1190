"""What a job will need, before anything runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.loop import run_slice
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.engine.job import build_job
from jaxspec.engine.memory import bytes_of, in_mebibytes, program_memory
from jaxspec.engine.request import Request
from jaxspec.engine.serve import init_state
from jaxspec.models.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device.

    Attributes:
      weights: of the target.
      cache: keys and values of all lanes.
      logits: of one block in float32.
      peak: everything at once, as the compiler assigned it: weights, state and temporaries.
    """

    weights: int
    cache: int
    logits: int
    peak: int

    def __str__(self) -> str:
        return in_mebibytes(self)


def plan(lm: LanguageModel, *, lanes: int = 1, cache: int = 2048, block: int = 1) -> MemoryPlan:
    """Compiles greedy decoding of `lanes` lanes in blocks of `block` nodes and reads off what it takes.

    Args:
      lm: the target; its weights are not touched.
      lanes: requests at once.
      cache: tokens a lane may hold.
      block: nodes a block, the root included.

    Raises:
      ValueError: a size is below its least value, or `cache` is beyond the model's context.
      RuntimeError: the compiler of this device does not say what memory a program takes.
    """
    if block < 1:
        raise ValueError(f"block={block} is below 1; a block holds at least the last token")
    if cache > lm.config.context:
        raise ValueError(f"cache={cache} is beyond the model's context of {lm.config.context} tokens")
    request = Request((0,), cache - 1)
    job = build_job(lm, [request], autoregressive(padding=block - 1), lanes=lanes, cache=cache)
    state = jax.eval_shape(lambda: init_state(lm.config, np.dtype(lm.cache_dtype), job.program.drafter, job.shape, ()))
    memory = program_memory(run_slice.lower(job.program, job.inputs, state))
    return MemoryPlan(
        weights=bytes_of(lm.params),
        cache=bytes_of((state.cache.keys, state.cache.values)),
        logits=lanes * block * lm.config.vocabulary * jnp.dtype(jnp.float32).itemsize,
        peak=memory.peak,
    )
