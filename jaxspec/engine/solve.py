"""Problems solved step by step, by a draft and a target: the public face of the step loop.

R rows, B lanes.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.conformal import StaticConformal
from jaxspec.decode.commit import Finish
from jaxspec.decode.state import Status
from jaxspec.decode.types import Drafter
from jaxspec.decode.whole_number import integer
from jaxspec.engine.fresh_rows import fresh_rows
from jaxspec.engine.request import Request, make_requests
from jaxspec.engine.solution import Solution, Solved, solved_of, statistics_of
from jaxspec.engine.step_engine import Engine, engine_of
from jaxspec.engine.step_job import StepJob, build_step_job, step_settings
from jaxspec.models.cache import init_cache
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps.segmentation import Segmentation
from jaxspec.steps.state import (
    Problems,
    StepLoopState,
    Trace,
    Usage,
    Work,
    Writer,
    empty_problems,
    idle_lanes,
    no_usage,
)  # fmt: skip
from jaxspec.steps.types import Policy
from jaxspec.steps.writing import context_of

Prompt = str | Sequence[int]


def solve(
    draft: LanguageModel,
    target: LanguageModel,
    policy: Policy,
    problems: Sequence[Prompt],
    *,
    scorer: LanguageModel | None = None,
    segmentation: Segmentation | None = None,
    target_segmentation: Segmentation | None = None,
    drafter: Drafter | None = None,
    target_drafter: Drafter | None = None,
    samples: int | None = None,
    max_new_tokens: int = 512,
    max_steps: int | None = None,
    max_turns: int | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    stop: Sequence[str] = (),
    stop_ids: Sequence[int] = (),
    ignore_eos: bool = False,
    chat: bool = False,
    lanes: int | None = None,
    target_lanes: int | None = None,
    wave: float = 0.75,
    lockstep: bool = False,
    cache: int | None = None,
    calibrator: Any = None,
    slice_ticks: int | None = None,
    exchange_ticks: int = 1,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Usage], None] | None = None,
) -> Solution:
    """Solves every problem, the draft and the target writing steps as `policy` has it.

    A sample's text depends on its problem, the seed and the settings alone, not on lanes or neighbours, except by
    what a calibrator learns from all of them, and by which steps find a place with the target where `overflow` is
    `accept`. The target draws as it does in `generate`, and so does a draft whose steps all stay. A draft whose steps
    may be replaced draws each with noise of its own, so that what replaces one does not depend on it; so does the
    target where its own steps may be discarded. Where draft and target live on devices of their own, they work at
    the same time, and a scoring model works with the draft.

    Args:
      draft, target: models of one vocabulary, which may be padded to different sizes.
      policy: from `jaxspec.steps`: `rsd`, `arbitrage`, `oracle`, `a1`, or a baseline.
      problems: texts or token ids.
      scorer: the reward model or router, if the policy reads one.
      segmentation: where a step ends; None for the policy's chunks, or `Segmentation.reasoning()`.
      target_segmentation: where a step of the target ends; None for the policy's chunks, or the same.
      drafter, target_drafter: token drafters within the steps of each model; None writes token by token.
      samples: of every problem, each with a seed of its own; None for the policy's, or 1.
      max_new_tokens: of every sample.
      max_steps: of every sample, one that the target writes on with its draft's; None for as many as it takes.
      max_turns: draft steps of every sample; None for the policy's, or `max_steps`.
      temperature, top_k, top_p, min_p: as in `generate`, for both models.
      seed: of all draws.
      stop, stop_ids, ignore_eos: what ends a text, as in `generate`: each model at its own EOS, and the draft at the
        target's too, unless the policy leaves all to the draft.
      chat: put texts into the target's chat template.
      lanes: samples worked on at once; None chooses.
      target_lanes: lanes the target writes for at once, at most; None for all. It caps no cache: the target keeps what
        it has read of every lane, and to score reads for any of them.
      wave: share of the target's places that must be taken before it writes, half of the lanes with a sample being
        enough at any rate, unless the draft has nothing to do.
      lockstep: all lanes draft, score and write together, as released code does: a baseline. A policy that ranks the
        samples of a question moves those of each question so.
      cache: tokens a sample may hold, prompt included; None takes what is needed.
      calibrator: state to go on from, of an earlier `Solution`, without what it learned of single questions; or, for
        `static_conformal`, of its `calibrate`.
      slice_ticks: rounds between looks at the device; None for as many as the work takes.
      exchange_ticks: rounds that models on devices of their own work before they tell each other; more of them
        spare the host, and make steps wait longer for the other model.
      progress: called as `progress(finished, all)` after every slice.
      watch: called with the accounting of the lanes so far after every slice.

    Raises:
      ValueError: a setting, a problem or the models cannot be honoured; nothing has been compiled or run then.
    """
    samples = samples_of(policy, samples)
    if slice_ticks is not None and integer("slice_ticks", slice_ticks) < 1:
        raise ValueError(f"slice_ticks={slice_ticks} is below 1; leave it out to run without looks at the device")
    if isinstance(problems, str):
        raise ValueError(f"problems={problems[:40]!r} is one text; pass a list of texts")
    if isinstance(stop, str):
        raise ValueError(f"stop={stop!r} is one string; pass a list of strings")
    if calibrator is not None and policy.calibrator is None:
        raise ValueError(f"policy {policy.name!r} has no calibrator to go on from a state; leave calibrator= out")
    if isinstance(policy.calibrator, StaticConformal) and not policy.calibrator.is_calibrated(calibrator):
        raise ValueError(
            f"policy {policy.name!r} ranks a score among those of a calibration, and there are none; pass "
            "calibrator=, the state that calibrate() of its calibrator returns"
        )
    single = make_requests(
        target,
        problems,
        chat=chat,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
    )
    requests = [
        dataclasses.replace(request, seed=sample_seed(request.seed, sample))
        for request in single
        for sample in range(samples)
    ]
    settings = step_settings(
        policy,
        segmentation=segmentation,
        target_segmentation=target_segmentation,
        drafter=drafter,
        target_drafter=target_drafter,
        stop=tuple(stop or ()),
        stop_ids=tuple(stop_ids or ()),
        ignore_eos=ignore_eos,
        max_steps=max_steps,
        max_turns=max_turns,
        lanes=lanes,
        target_lanes=target_lanes,
        wave=wave,
        lockstep=lockstep,
        cache=cache,
    )
    job = build_step_job(draft, target, policy, requests, settings, scorer, samples)
    engine = engine_of(job, exchange_ticks)
    state = init_state(job)
    if calibrator is not None and policy.calibrator is not None:
        learned = policy.calibrator.renew(calibrator, policy.groups == "question")
        state = state._replace(calibrator=jax.tree.map(jnp.copy, learned))
    begun = time.perf_counter()
    progress, watch = progress or (lambda finished, of: None), watch or (lambda usage: None)
    done, last = _serve(job, engine, state, requests, samples, slice_ticks, progress, watch)
    seconds = time.perf_counter() - begun
    usage = jax.device_get(last.usage)
    places = job.program.draft.lanes, job.program.target.lanes
    learned = last.calibrator if policy.calibrator is not None else None
    compared = policy.on_escalation == "compare"
    return Solution(done, statistics_of(done, usage, *places, compared=compared), learned, seconds)


def samples_of(policy: Policy, samples: Any) -> int:
    """Samples of every problem, the policy's for None.

    Raises:
      ValueError: not an integer of at least 1.
    """
    count = integer("samples", (policy.samples or 1) if samples is None else samples)
    if count < 1:
        raise ValueError(f"samples={count} is below 1; every problem needs one at least")
    return count


def sample_seed(seed: int, sample: int) -> int:
    """The seed of a sample: the job's own for the first, unrelated ones for the others."""
    return seed if sample == 0 else int(np.random.SeedSequence([seed, sample]).generate_state(1)[0])


def init_state(job: StepJob) -> StepLoopState:
    """An empty queue, idle lanes and empty caches; every leaf with a buffer of its own, since all are donated."""
    program = job.program

    def cache(lm: LanguageModel) -> Any:
        return init_cache(lm.config, job.lanes, job.slots, lm.cache_dtype)

    tokens = job.slots + program.read_width
    policy = program.policy
    state = StepLoopState(
        problems=empty_problems(job.rows, tokens, program.max_steps),
        lanes=idle_lanes(job.lanes, job.rows, job.step_tokens),
        draft=Writer(cache(job.draft), ()),
        target=Writer(cache(job.target), ()),
        scorer=() if job.scorer is None else cache(job.scorer),
        calibrator=() if policy.calibrator is None else policy.calibrator.init(),
        usage=no_usage(),
        slice_ticks=jnp.zeros((), jnp.int32),
    )
    nobody = jnp.zeros((job.lanes,), bool)
    for name in ("draft", "target"):
        model, inputs = getattr(program, name), getattr(job.inputs, name)
        context = context_of(state, nobody, job.inputs, inputs)
        writer = getattr(state, name)
        state = state._replace(**{name: writer._replace(drafter=model.drafter.init(inputs.drafter_params, context))})
    seen: set[int] = set()

    def alone(leaf: jax.Array) -> jax.Array:
        shared = id(leaf) in seen
        seen.add(id(leaf))
        return jnp.copy(leaf) if shared else leaf

    return jax.tree.map(alone, state)


def _serve(
    job: StepJob,
    engine: Engine,
    fresh: StepLoopState,
    requests: Sequence[Request],
    samples: int,
    slice_ticks: int | None,
    progress: Callable[[int, int], None],
    watch: Callable[[Usage], None],
) -> tuple[list[Solved], StepLoopState]:
    """Fills the queue, runs slices and collects rows until all `requests` are done."""
    state = engine.begin(fresh)
    owner = np.full((job.rows,), -1)
    done = {i: _nothing_said(i // samples, i % samples) for i, r in enumerate(requests) if r.max_new_tokens == 0}
    wanted = np.array([index for index in range(len(requests)) if index not in done], int)
    if not len(wanted):
        progress(len(done), len(requests))
        watch(jax.device_get(engine.view(state).usage))
    submitted, cohort = 0, job.program.cohort
    while len(done) < len(requests):
        free = np.flatnonzero(owner < 0)[: len(wanted) - submitted]
        free = free[: len(free) // cohort * cohort]
        if len(free):
            owner[free] = wanted[submitted : submitted + len(free)]
            submitted += len(free)
            state = engine.submit(state, *_rows(engine.view(state), requests, owner, free, samples))
        state = engine.run(state, slice_ticks, submitted < len(wanted))
        host: Problems = jax.device_get(engine.view(state).problems)
        for row in np.flatnonzero((host.status == Status.DONE) & (owner >= 0)):
            index = int(owner[row])
            own = jax.tree.map(lambda leaf, row=row: leaf[row], host)
            done[index] = solved_of(job.target.tokenizer, own, index // samples, index % samples)
            owner[row] = -1
        progress(len(done), len(requests))
        watch(jax.device_get(engine.view(state).usage))
    return [done[index] for index in range(len(requests))], engine.view(state)


def _nothing_said(question: int, sample: int) -> Solved:
    """Of a request that asked for no tokens."""
    return Solved(question, sample, "", [], [], Finish.LENGTH.name.lower(), dict.fromkeys(Work._fields, 0))


def _rows(
    state: StepLoopState, requests: Sequence[Request], owner: np.ndarray, free: np.ndarray, samples: int
) -> tuple[Problems, np.ndarray]:
    rows, length = state.problems.tokens.shape
    fresh = fresh_rows(length, requests, owner, free)
    zeros = np.zeros((rows,), np.int32)
    new = Problems(
        tokens=fresh.tokens,
        prompt_length=fresh.prompt_length,
        length=fresh.prompt_length,
        limit=fresh.limit,
        ticket=fresh.ticket,
        question=np.where(fresh.replace, owner // samples, 0).astype(np.int32),
        status=fresh.status,
        finish=zeros,
        stop_state=zeros,
        sampling=fresh.sampling,
        trace=Trace(*(np.zeros(leaf.shape, leaf.dtype) for leaf in state.problems.trace)),
        work=Work(*(np.zeros(leaf.shape, leaf.dtype) for leaf in state.problems.work)),
    )
    return new, fresh.replace
