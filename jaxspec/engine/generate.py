"""`generate` and `stream`: what most users call."""

import functools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jaxspec.decode.acceptance import Acceptance
from jaxspec.decode.commit import Finish
from jaxspec.decode.state import FROM_TARGET
from jaxspec.decode.stop import trim_text
from jaxspec.decode.types import Drafter
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.engine.cost import with_costs
from jaxspec.engine.job import Job, build_job
from jaxspec.engine.request import Request, make_requests
from jaxspec.engine.result import Generation, PromptResult, generation_of, statistics_of
from jaxspec.engine.serve import Progress, serve
from jaxspec.engine.text import TextStream
from jaxspec.models.language_model import LanguageModel

Prompt = str | Sequence[int]
OnResult = Callable[[int, PromptResult], None]
LOOK = 256  # target passes between looks at the device, where somebody wants to hear of what is finished


def generate(
    lm: LanguageModel,
    prompts: Prompt | Sequence[Prompt],
    *,
    drafter: Drafter | None = None,
    max_new_tokens: int | Sequence[int] = 128,
    temperature: float | Sequence[float] = 0.0,
    top_k: int | Sequence[int] = 0,
    top_p: float | Sequence[float] = 1.0,
    min_p: float | Sequence[float] = 0.0,
    repetition_penalty: float | Sequence[float] = 1.0,
    seed: int | Sequence[int] = 0,
    max_draft: int | None | Sequence[int | None] = None,
    stop: Sequence[str] | None = (),
    stop_ids: Sequence[int] | None = (),
    ignore_eos: bool = False,
    banned_ids: Sequence[int] | None = (),
    chat: bool = False,
    acceptance: Acceptance | str | None = None,
    lanes: int | None = None,
    cache: int | None = None,
    strict: bool = False,
    logprobs: bool = False,
    progress: Callable[[int, int], None] | None = None,
    on_result: OnResult | None = None,
) -> Generation:
    """Continues every prompt; the drafter changes how soon, never what.

    A request's output depends on its prompt, its seed and the settings alone: not on the number of lanes or the other
    prompts, and not on the drafter either, unless `acceptance` is `rejection` or `typical`. It holds for models in
    float32, which are multiplied at the highest precision, and with `strict`; in bfloat16 a near tie may otherwise fall
    differently in a wider pass. Settings from `max_new_tokens` to `max_draft` are data: one value for all prompts, or a
    sequence with one each, in the same compiled program. Transforms of the distribution apply in the order repetition
    penalty, bans, temperature, top-k, top-p, min-p.

    Args:
      lm: from `jaxspec.load`.
      prompts: texts, or sequences or arrays of token ids; a single one is a job of one.
      drafter: see `jaxspec.drafters`; None decodes plainly.
      max_new_tokens: at most so many tokens a prompt; more than there is room for means until the room is used up.
      temperature: 0 takes the most probable token; otherwise tokens are drawn.
      top_k: draw among the k most probable; 0 for all.
      top_p: draw among the most probable whose mass reaches top_p; 1 for all.
      min_p: draw among those at least min_p times as probable as the best; 0 for all.
      repetition_penalty: divides positive and multiplies negative logits of ids already in the text; 1 for none.
      seed: of the draws. Equal prompts with equal seeds get equal texts.
      max_draft: draft at most so many tokens in a row; 0 decodes plainly, None leaves it to the drafter.
      stop: strings that end a text; they are not part of `texts`. None for none, as also below.
      stop_ids: ids that end a text, besides the tokenizer's own.
      ignore_eos: go on past end-of-sequence ids.
      banned_ids: ids never said.
      chat: put every text through the model's chat template, as one user turn.
      acceptance: how drafts are judged, a rule or its name; None chooses by temperature: `greedy`, or `coupled`, whose
        text is plain sampling's. `rejection` keeps plain sampling's law, but not its text, which then depends on the
        drafter too; `typical` keeps neither, and is faster.
      lanes: requests decoded at once; None chooses.
      cache: tokens a lane may hold, prompt included; None takes what is needed.
      strict: make ids and logits bit-equal for every chain drafter, in any dtype, at some cost in speed.
      logprobs: return the log-probability of every new token, by the model's own logits before any transform.
      progress: called as `progress(finished, all)` while a long job runs.
      on_result: called as `on_result(index, result)` with the `PromptResult` of a prompt soon after it is finished,
        so that what is done of a long job outlives an interrupt.

    Returns:
      texts, ids, statistics; see `Generation`.

    Raises:
      ValueError: a setting or a prompt cannot be honoured; nothing has been compiled or run then.
    """
    prompts, stop = _as_list(prompts), _as_stops(stop)
    requests = make_requests(
        lm,
        prompts,
        chat=chat,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        max_draft=max_draft,
    )
    job = build_job(
        lm,
        requests,
        autoregressive() if drafter is None else drafter,
        acceptance=acceptance,
        stop=stop,
        stop_ids=stop_ids,
        ignore_eos=ignore_eos,
        banned_ids=banned_ids,
        lanes=lanes,
        cache=cache,
        strict=strict,
        logprobs=logprobs,
    )
    result_of = functools.partial(_result, job, requests, stop)
    on_finish = None if on_result is None else lambda item: on_result(item.index, result_of(item))
    done, prefill_seconds, decode_seconds = run(with_costs(job), requests, progress, on_finish)
    return generation_of([result_of(item) for item in done], prefill_seconds, decode_seconds)


def run(
    job: Job,
    requests: Sequence[Request],
    progress: Callable[[int, int], None] | None = None,
    on_finish: Callable[[Progress], None] | None = None,
) -> tuple[list[Progress], float, float]:
    """Serves `requests` to the end: one `Progress` each, then seconds of the first prefill and of the rest.

    Args:
      job: from `build_job`.
      requests: in the order they are served.
      progress: called with how many are finished, of how many.
      on_finish: called with the `Progress` of each that is.
    """
    wanted = [index for index, request in enumerate(requests) if request.max_new_tokens > 0]
    width = job.shape.prefill_width
    first = sum(-(-(len(requests[index].ids) - 1) // width) for index in wanted[: job.shape.lanes])
    nothing = Progress.nothing(job.program.drafter)
    done = {
        index: nothing._replace(index=index) for index, request in enumerate(requests) if request.max_new_tokens == 0
    }
    for item in done.values():
        if on_finish:
            on_finish(item)
    begun = read = time.perf_counter()
    state = job.init_state()
    served = [requests[index] for index in wanted]
    for slice_index, finished in enumerate(
        serve(
            job.program,
            job.inputs,
            state,
            served,
            first_ticks=first,
            slice_ticks=LOOK if progress or on_finish else None,
        )
    ):
        if slice_index == 0:
            read = time.perf_counter()
        for item in finished:
            index = wanted[item.index]
            done[index] = item._replace(index=index)
            if on_finish:
                on_finish(done[index])
        if progress and finished:
            progress(len(done), len(requests))
    ended = time.perf_counter()
    return [done[index] for index in range(len(requests))], read - begun, ended - read


def stream(lm: LanguageModel, prompt: Prompt, *, slice_ticks: int = 4, **settings) -> Iterator[str]:
    """The text of `generate(lm, prompt, **settings)`, piece by piece, in whole characters.

    Args:
      lm: from `jaxspec.load`.
      prompt: a text or token ids.
      slice_ticks: target passes between pieces.
      **settings: as `generate`, without `progress`. `on_result` is called after the last piece; without it, a text
        that ends early because logits were not finite gives a `RuntimeWarning`.

    Yields:
      Pieces whose concatenation is `generate(...).texts[0]`.

    Raises:
      ValueError: as `generate`, at the call, or if the model has no tokenizer.
    """
    if lm.tokenizer is None:
        raise ValueError(f"{lm.name} has no tokenizer, so there is no text to stream; use generate")
    slice_ticks = integer("slice_ticks", slice_ticks)
    if slice_ticks < 1:
        raise ValueError(f"slice_ticks={slice_ticks} is below 1; every piece takes a pass of the target")
    sampled = {
        name: settings.pop(name, default)
        for name, default in (
            ("chat", False),
            ("max_new_tokens", 128),
            ("temperature", 0.0),
            ("top_k", 0),
            ("top_p", 1.0),
            ("min_p", 0.0),
            ("repetition_penalty", 1.0),
            ("seed", 0),
            ("max_draft", None),
        )
    }
    drafter = settings.pop("drafter", None) or autoregressive()
    on_result = settings.pop("on_result", None)
    requests = make_requests(lm, _as_list(prompt), **sampled)
    if len(requests) != 1:
        raise ValueError(f"stream takes one prompt, not {len(requests)}; use generate for several")
    stop = _as_stops(settings.pop("stop", None))
    job = build_job(lm, requests, drafter, stop=stop, **settings)
    return _pieces(with_costs(job), requests, stop, slice_ticks, on_result)


def _pieces(
    job: Job, requests: Sequence[Request], stop: Sequence[str], slice_ticks: int, on_result: OnResult | None
) -> Iterator[str]:
    text = TextStream(job.lm.tokenizer, stop)
    last = Progress.nothing(job.program.drafter)
    served = [request for request in requests if request.max_new_tokens > 0]
    for progress in serve(job.program, job.inputs, job.init_state(), served, slice_ticks=slice_ticks, partial=True):
        sent, last = len(last.ids), progress[0]
        piece = text.push([int(i) for i in last.ids[sent:]])
        if piece:
            yield piece
    rest = text.flush()
    if rest:
        yield rest
    if on_result is not None:
        on_result(0, _result(job, requests, stop, last))
    elif last.finish == Finish.NUMERICAL:
        warnings.warn(f"the text ended early: the logits of {job.lm.name} were not finite", RuntimeWarning, 2)


def _as_list(prompts: Any) -> list[Prompt]:
    if isinstance(prompts, str | bytes | bytearray):
        return [prompts]  # bytes, to be refused as a prompt rather than be read as ids
    listed = prompts.tolist() if hasattr(prompts, "tolist") else prompts
    if not isinstance(listed, Iterable):
        raise ValueError(f"prompts={prompts!r} is neither text nor a sequence of token ids")
    listed = list(listed)
    # Ids are numbers of Python, or of NumPy or JAX, whose numbers have a length that is an error to ask for.
    if listed and (not hasattr(listed[0], "__len__") or getattr(listed[0], "ndim", 1) == 0):
        return [listed]  # one prompt, given as ids
    return listed


def _as_stops(stop: Iterable[str] | None) -> Sequence[str]:
    """Stop strings to be read more than once; a bare string stays one, for `stop_rules` to refuse."""
    if stop is not None and not isinstance(stop, Iterable):
        raise ValueError(f"stop={stop!r} is no list of strings; ids that end a text go into stop_ids")
    return stop if isinstance(stop, str) else tuple(stop or ())


def _result(job: Job, requests: Sequence[Request], stop: Sequence[str], item: Progress) -> PromptResult:
    """What a finished request gave."""
    names = ("target", *job.program.drafter.sources)
    tokenizer = job.lm.tokenizer
    ids = [int(i) for i in item.ids]
    return PromptResult(
        text="" if tokenizer is None else trim_text(tokenizer.decode(ids), stop),
        ids=ids,
        finish=Finish(item.finish).name.lower(),
        sources=[names[int(s) - FROM_TARGET] for s in item.sources],
        logprobs=[float(value) for value in item.logprobs] if job.program.logprobs else None,
        lossless=job.program.acceptance.lossless or requests[item.index].temperature == 0,
        statistics=statistics_of(item.statistics, len(ids), job.program.drafter.sources),
    )
