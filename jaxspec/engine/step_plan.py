"""What a job of `solve` will need, before anything runs."""

import dataclasses
import functools
from collections.abc import Sequence

import jax

from jaxspec.decode.types import Drafter
from jaxspec.engine.memory import ProgramMemory, bytes_of, in_mebibytes, program_memory
from jaxspec.engine.request import Request
from jaxspec.engine.solve import init_state, samples_of
from jaxspec.engine.step_engine import engine_of
from jaxspec.engine.step_job import build_step_job, step_settings
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps.segmentation import Segmentation
from jaxspec.steps.types import Policy


@dataclasses.dataclass(frozen=True)
class StepMemoryPlan:
    """Bytes on the device, or on each of a model's devices where draft and target have their own.

    Attributes:
      draft_weights, target_weights, scorer_weights: of each model; 0 without a scorer.
      draft_cache, target_cache, scorer_cache: keys and values of all lanes.
      queue: problems, with their text and their steps, and what lanes hold of them.
      passes: temporaries of a tick, in which each model passes at most once, logits included.
      peak: everything at once, as the compiler assigned it, with what token drafters and calibrators keep.
      target_passes, target_peak: the same on the target's devices, where they are not the draft's; 0 where they are.
    """

    draft_weights: int
    target_weights: int
    scorer_weights: int
    draft_cache: int
    target_cache: int
    scorer_cache: int
    queue: int
    passes: int
    peak: int
    target_passes: int
    target_peak: int

    def __str__(self) -> str:
        return in_mebibytes(self)


def plan(
    draft: LanguageModel,
    target: LanguageModel,
    policy: Policy,
    *,
    scorer: LanguageModel | None = None,
    segmentation: Segmentation | None = None,
    target_segmentation: Segmentation | None = None,
    drafter: Drafter | None = None,
    target_drafter: Drafter | None = None,
    samples: int | None = None,
    max_steps: int | None = None,
    max_turns: int | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: Sequence[str] = (),
    lanes: int = 8,
    target_lanes: int | None = None,
    lockstep: bool = False,
    cache: int = 2048,
) -> StepMemoryPlan:
    """Compiles the program, or both, that `solve` runs with these settings, and reads off what it takes.

    The number of problems does not matter: a few times as many as lanes are on the device at once.

    Args:
      draft, target, policy: as in `solve`; weights are not touched.
      scorer, segmentation, target_segmentation, drafter, target_drafter, samples, max_steps, max_turns, temperature,
        top_k, top_p, min_p, stop, target_lanes, lockstep: as in `solve`.
      lanes: samples worked on at once.
      cache: tokens a sample may hold, prompt included.

    Raises:
      ValueError: a setting or the models cannot be honoured, or `cache` is beyond the context of one of them.
      RuntimeError: the compiler of this device does not say what memory a program takes.
    """
    for name, lm in {"draft": draft, "target": target, "scorer": scorer}.items():
        if lm is not None and cache > lm.config.context:
            raise ValueError(f"cache={cache} is beyond the {name}'s context of {lm.config.context} tokens")
    samples = samples_of(policy, samples)
    settings = step_settings(
        policy,
        segmentation=segmentation,
        target_segmentation=target_segmentation,
        drafter=drafter,
        target_drafter=target_drafter,
        stop=tuple(stop),
        max_steps=max_steps,
        max_turns=max_turns,
        lanes=lanes,
        target_lanes=target_lanes,
        lockstep=lockstep,
        cache=cache,
    )
    request = Request((0,), cache - 1, temperature, top_k, top_p, min_p)
    job = build_step_job(draft, target, policy, [request] * samples, settings, scorer, samples)
    state = jax.eval_shape(functools.partial(init_state, job))
    memory, *others = [program_memory(lowered) for lowered in engine_of(job).lower(state)]
    there = others[0] if others else ProgramMemory(0, 0)

    def kept(cache: object) -> int:
        return bytes_of((cache.keys, cache.values))  # type: ignore[attr-defined]

    return StepMemoryPlan(
        draft_weights=bytes_of(draft.params),
        target_weights=bytes_of(target.params),
        scorer_weights=0 if scorer is None else bytes_of(scorer.params),
        draft_cache=kept(state.draft.cache),
        target_cache=kept(state.target.cache),
        scorer_cache=0 if scorer is None else kept(state.scorer),
        queue=bytes_of((state.problems, state.lanes)),
        passes=memory.temporaries,
        peak=memory.peak,
        target_passes=there.temporaries,
        target_peak=there.peak,
    )
