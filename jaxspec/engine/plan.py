"""What a job will need, before anything runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.acceptance import Acceptance
from jaxspec.decode.loop import run_slice
from jaxspec.decode.types import Drafter
from jaxspec.decode.whole_number import integer
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
      drafter: what it reads and remembers: tables, or the weights and the cache of a draft model. Weights it shares
        with the target are counted there.
      logits: of one block in float32.
      peak: everything at once, as the compiler assigned it: weights, state and temporaries.
    """

    weights: int
    cache: int
    drafter: int
    logits: int
    peak: int

    def __str__(self) -> str:
        return in_mebibytes(self)


def plan(
    lm: LanguageModel,
    *,
    lanes: int = 1,
    cache: int = 2048,
    block: int | None = None,
    drafter: Drafter | None = None,
    acceptance: Acceptance | str | None = None,
) -> MemoryPlan:
    """Compiles decoding of `lanes` lanes and reads off what it takes.

    Args:
      lm: the target; its weights are not touched, unless the drafter makes tables or a copy of them.
      lanes: requests at once.
      cache: tokens a lane may hold.
      block: nodes a block, the root included, of a drafter that takes no memory; None for 1, or for the drafter's.
      drafter: what is to decode; it is made ready as for decoding, which may build its tables. None for none.
      acceptance: as of `generate`; None for greedy decoding.

    Raises:
      ValueError: a size is below its least value, `cache` is beyond the model's context, both `block` and `drafter` are
        given, or what `generate` raises of a drafter.
      RuntimeError: the compiler of this device does not say what memory a program takes.
    """
    if block is not None and drafter is not None:
        raise ValueError(f"block={block} and a drafter, whose blocks are as large as they are; leave one of them out")
    block = 1 if block is None else integer("block", block)
    if block < 1:
        raise ValueError(f"block={block} is below 1; a block holds at least the last token")
    if cache > lm.config.context:
        raise ValueError(f"cache={cache} is beyond the model's context of {lm.config.context} tokens")
    request = Request((0,), cache - 1)
    chosen = autoregressive(padding=block - 1) if drafter is None else drafter
    job = build_job(lm, [request], chosen, acceptance=acceptance, lanes=lanes, cache=cache)
    drafter, params = job.program.drafter, job.inputs.drafter_params
    state = jax.eval_shape(
        lambda params: init_state(lm.config, np.dtype(lm.cache_dtype), drafter, job.shape, params), params
    )
    memory = program_memory(run_slice.lower(job.program, job.inputs, state))
    of_target = {id(leaf) for leaf in jax.tree.leaves(lm.params)}
    shared = bytes_of([leaf for leaf in jax.tree.leaves(params) if id(leaf) in of_target])
    return MemoryPlan(
        weights=bytes_of(lm.params),
        cache=bytes_of((state.cache.keys, state.cache.values)),
        drafter=bytes_of((params, state.drafter)) - shared,
        logits=lanes * (drafter.nodes + 1) * lm.config.vocabulary * jnp.dtype(jnp.float32).itemsize,
        peak=memory.peak - shared,  # an array that is passed twice
    )
