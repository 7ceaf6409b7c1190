"""From a user's settings to the step loop's static program, its data and its sizes; all errors are raised here.

B lanes, S cache slots, V vocabulary.
"""

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.conformal import Fixed
from jaxspec.decode.acceptance import Coupled, Greedy
from jaxspec.decode.binding import Binding, bind, of_target
from jaxspec.decode.commit import StopRules
from jaxspec.decode.types import Drafter
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.vocabulary import compare, tokens_of
from jaxspec.engine.job import power_of_two, stop_rules
from jaxspec.engine.request import Request, check_room, flags_of_requests
from jaxspec.models.language_model import LanguageModel, check_writes
from jaxspec.steps.program import Model, ModelInputs, StepInputs, StepProgram
from jaxspec.steps.scorers import AdvantageRouter, RewardModel
from jaxspec.steps.segmentation import Segmentation, step_rules
from jaxspec.steps.types import Policy, ReadingScorer, TextScorer
from jaxspec.steps.wider_vocabulary import with_vocabulary

LANES_A_READER = 16  # lanes for each that a reading pass takes on a CPU
MOST_PATIENCE = 128  # ticks: a few steps of the usual length
DRAFT_STEPS, TARGET_STEPS = 10, 11  # random streams, apart from those of `decode.sampling`, decisions and scorers


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """How a job runs; see `solve` for what each means."""

    segmentation: Segmentation
    target_segmentation: Segmentation | None
    max_steps: int | None = None
    max_turns: int | None = None
    drafter: Drafter | None = None
    target_drafter: Drafter | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    lanes: int | None = None
    target_lanes: int | None = None
    wave: float = 0.75
    lockstep: bool = False
    cache: int | None = None


def step_settings(
    policy: Policy,
    *,
    segmentation: Segmentation | None = None,
    target_segmentation: Segmentation | None = None,
    max_steps: int | None = None,
    max_turns: int | None = None,
    lanes: int | None = None,
    target_lanes: int | None = None,
    cache: int | None = None,
    **others: Any,
) -> StepSettings:
    """Settings in which the policy has chosen what was left to it.

    Raises:
      ValueError: a count is no integer.
    """
    chunks, target_chunks = (
        None if size is None else Segmentation.chunks(size) for size in (policy.chunk, policy.target_chunk)
    )
    counts = {
        "max_steps": max_steps,
        "max_turns": policy.turns if max_turns is None else max_turns,
        "lanes": lanes,
        "target_lanes": target_lanes,
        "cache": cache,
    }
    return StepSettings(
        segmentation=segmentation or chunks or Segmentation.reasoning(),
        target_segmentation=target_segmentation or target_chunks,
        **{name: None if count is None else integer(name, count) for name, count in counts.items()},
        **others,
    )


@dataclasses.dataclass(frozen=True)
class StepJob:
    """Attributes:
    program: the static part.
    inputs: the data.
    lanes, slots, rows, step_tokens: B, S, problems on the device at once, and tokens a draft step may have.
    draft, target, scorer: the models.
    """

    program: StepProgram
    inputs: StepInputs
    lanes: int
    slots: int
    rows: int
    step_tokens: int
    draft: LanguageModel
    target: LanguageModel
    scorer: LanguageModel | None


def build_step_job(
    draft: LanguageModel,
    target: LanguageModel,
    policy: Policy,
    requests: Sequence[Request],
    settings: StepSettings,
    scorer: LanguageModel | None = None,
    samples: int = 1,
) -> StepJob:
    """Checks settings, chooses static sizes, prepares drafters and scorer.

    Raises:
      ValueError: a setting is out of range, the models do not share a vocabulary, or the policy's scorer lacks its
        model; the message names it.
    """
    _check(settings)
    _check_questions(policy, len(requests) // samples, samples)
    check_writes(draft, "draft")
    check_writes(target, "target")
    check_same_vocabulary(target, draft)
    _check_scorer(policy, target, scorer)
    _check_comparison(policy)
    cohort = 1 if policy.ranked is None else samples
    lanes = min(power_of_two(len(requests), 1), 8) if settings.lanes is None else settings.lanes
    if settings.lanes is None:
        lanes = -(-lanes // cohort) * cohort
    if lanes % cohort:
        raise ValueError(
            f"lanes={lanes} do not divide into questions of samples={samples}; policy {policy.name!r} ranks the "
            f"samples of a question together: take {-(-lanes // cohort) * cohort} lanes"
        )
    target_lanes = lanes if settings.target_lanes is None else settings.target_lanes
    if not 1 <= target_lanes <= lanes:
        raise ValueError(f"target_lanes={target_lanes} is not between 1 and lanes={lanes}")
    models = [draft, target, *([scorer] if scorer is not None else [])]
    context = min(lm.config.context for lm in models)
    capacity = context if settings.cache is None else min(settings.cache, context)
    _check_chunks(settings, capacity)
    check_room(requests, capacity, "the shortest of the models' contexts" if capacity == context else "the cache")
    needed = max((len(r.ids) + r.max_new_tokens for r in requests), default=1)
    slots = power_of_two(min(needed, capacity), 128) if settings.cache is None else -(-capacity // 128) * 128
    on_cpu = jax.default_backend() == "cpu"
    flags = flags_of_requests(requests)
    acceptance = Coupled() if flags.stochastic else Greedy()
    read_width, read_lanes = _reading_sizes(policy, settings, lanes, on_cpu=on_cpu)
    vocabulary = max(target.config.vocabulary, draft.config.vocabulary)
    # Within a step loop others write on too, so a drafter may lack any part of the text when its turn comes.
    binding = Binding(
        vocabulary, flags, acceptance.drawing, read_width, alone=False,
        by_request=acceptance.follows_draft,
    )  # fmt: skip
    redrawn = flags.stochastic and (policy.discards_drafts or policy.discards_targets)
    rules_of_draft, rules_of_target = (
        _rules(dataclasses.replace(cut, lookahead=0) if redrawn else cut, lm, settings.ignore_eos)
        for cut, lm in (
            (settings.segmentation, draft),
            (settings.target_segmentation or settings.segmentation, target),
        )
    )
    token_drafters = [
        of_target(settings.drafter or autoregressive(), draft),
        of_target(settings.target_drafter or autoregressive(), target),
    ]
    longest = max((request.max_new_tokens for request in requests), default=1)
    max_steps, max_turns = _most_steps(policy, settings, min(power_of_two(longest, 64), slots))
    streams = [
        stream if flags.stochastic and discards else None
        for stream, discards in ((DRAFT_STEPS, policy.discards_drafts), (TARGET_STEPS, policy.discards_targets))
    ]
    barrier = lanes if settings.lockstep else 1
    networks = [with_vocabulary(lm.model, lm.config.vocabulary, vocabulary) for lm in (draft, target)]
    scorer_fn = None
    if scorer is not None:
        scorer_fn = with_vocabulary(scorer.model, scorer.config.vocabulary, vocabulary, says=False)
    program = StepProgram(
        draft=Model(networks[0], bind(token_drafters[0], binding), lanes, streams[0]),
        target=Model(networks[1], bind(token_drafters[1], binding), target_lanes, streams[1]),
        scorer_fn=scorer_fn,
        annotation=target.config.vocabulary if scorer is not None and is_annotated(scorer, target) else 0,
        policy=policy,
        acceptance=acceptance,
        flags=flags,
        read_width=read_width,
        read_lanes=read_lanes,
        wave=max(1, int(np.ceil(settings.wave * target_lanes))),
        patience=min(settings.segmentation.max_step_tokens, MOST_PATIENCE),
        cohort=cohort,
        barrier=cohort if policy.ranked is not None else barrier,
        max_steps=max_steps,
        max_turns=max_turns,
    )

    text_rules_of_draft, text_rules_of_target = _text_rules(draft, target, policy, settings)

    def model_inputs(lm: LanguageModel, drafter: Drafter, rules: Any, text_rules: StopRules) -> ModelInputs:
        seconds = jnp.ones((len(drafter.widths),), jnp.float32)
        return ModelInputs(lm.params, drafter.prepare(lm), jax.device_put(rules), text_rules, seconds)

    scorer_params: Any = () if scorer is None else scorer.params
    if isinstance(policy.scorer, TextScorer):
        scorer_params = policy.scorer.prepare()
    inputs = StepInputs(
        draft=model_inputs(draft, token_drafters[0], rules_of_draft, text_rules_of_draft),
        target=model_inputs(target, token_drafters[1], rules_of_target, text_rules_of_target),
        scorer_params=scorer_params,
        banned=jax.device_put(np.zeros((vocabulary,), bool)),
        capacity=jax.device_put(np.int32(capacity)),
        max_ticks=jax.device_put(np.int32(2**30)),
        more=jax.device_put(np.bool_(False)),
    )
    step_tokens = settings.segmentation.max_step_tokens
    rows = -(-max(16, 4 * lanes) // cohort) * cohort
    return StepJob(program, inputs, lanes, slots, rows, step_tokens, draft, target, scorer)


def _check(settings: StepSettings) -> None:
    for name in ("lanes", "target_lanes", "max_steps", "max_turns"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} is below 1")
    if not (isinstance(settings.wave, numbers.Real) and 0 < settings.wave <= 1):
        raise ValueError(f"wave={settings.wave!r} is not a share of the target's places above 0, and at most 1")
    if settings.cache is not None and settings.segmentation.max_step_tokens >= settings.cache:
        raise ValueError(
            f"steps of up to {settings.segmentation.max_step_tokens} tokens do not fit a cache of {settings.cache}; "
            "take shorter steps or a larger cache"
        )


def _most_steps(policy: Policy, settings: StepSettings, most_tokens: int) -> tuple[int, int]:
    """Steps and draft steps a problem may have. Left to us, an answer of `most_tokens` has no more: none is empty."""
    a_turn = 2 if policy.on_escalation == "continue" else 1
    if settings.max_steps is None:
        turns = min(settings.max_turns or most_tokens, most_tokens)
        return min(a_turn * turns, most_tokens), turns
    turns = settings.max_turns or settings.max_steps
    if a_turn > 1:  # a turn must not end between its steps
        turns = min(turns, settings.max_steps)
    return a_turn * settings.max_steps, turns


def _check_chunks(settings: StepSettings, capacity: int) -> None:
    for segmentation in (settings.segmentation, settings.target_segmentation):
        if segmentation is None or segmentation.delimiters or segmentation.delimiter_ids:
            continue
        if segmentation.max_step_tokens >= capacity:
            raise ValueError(
                f"chunks of {segmentation.max_step_tokens} tokens do not fit a cache of {capacity}; take shorter ones"
            )


def _check_questions(policy: Policy, questions: int, samples: int) -> None:
    if policy.ranked is not None and samples < 2:
        raise ValueError(
            f"policy {policy.name!r} hands over the worst of a question's samples, and samples={samples} leaves "
            "nothing to rank; take 2 or more"
        )
    setting, known = "questions", getattr(policy.calibrator, "questions", 0)
    if not known and policy.groups == "question" and not isinstance(policy.calibrator, Fixed):
        setting, known = "groups", getattr(policy.calibrator, "groups", 0)
    if known and known < questions:
        raise ValueError(
            f"the calibrator of policy {policy.name!r} was made for {setting}={known}, and there are {questions} "
            "questions; make it for as many"
        )


def _check_comparison(policy: Policy) -> None:
    scorer = policy.scorer
    if policy.on_escalation == "compare" and isinstance(scorer, ReadingScorer) and scorer.reads == "target":
        raise ValueError(
            f"policy {policy.name!r} compares steps of both models by {type(scorer).__name__}, and the target would be "
            "the judge of its own; pass a scorer that reads with a model of its own, or the text"
        )


def _check_scorer(policy: Policy, target: LanguageModel, scorer: LanguageModel | None) -> None:
    """Checks that the policy has the scoring model it reads, of the target's vocabulary."""
    head = policy.scorer
    if not isinstance(head, ReadingScorer) or head.reads != "scorer":
        return
    if scorer is None:
        raise ValueError(f"policy {policy.name!r} scores steps with a model of its own; pass scorer=...")
    if scorer.config.outputs is None:
        raise ValueError(
            f"scorer={scorer.name} is a language model, and policy {policy.name!r} reads a scoring model; "
            "open one with load_scorer"
        )
    if isinstance(head, RewardModel | AdvantageRouter):
        head.check_outputs(scorer.config.outputs)
    if is_annotated(scorer, target):
        scorer = dataclasses.replace(scorer, config=target.config)  # its first half is the target's vocabulary
    check_same_vocabulary(target, scorer, "scorer")


def is_annotated(scorer: LanguageModel, target: LanguageModel) -> bool:
    """Whether a scoring model reads, by ids of their own, which steps the target wrote; see `steps.history`."""
    return scorer.config.vocabulary == 2 * target.config.vocabulary


def check_same_vocabulary(target: LanguageModel, other: LanguageModel, role: str = "draft") -> None:
    """Checks that both models mean the same by every id, so that one text serves both.

    One vocabulary may be padded further than the other: with ids that stand for nothing.

    Raises:
      ValueError: they do not; the message says how many ids differ and shows some.
    """
    sizes = target.config.vocabulary, other.config.vocabulary
    differ = f"the target has {sizes[0]} ids and the {role} {sizes[1]}"
    if target.tokenizer is None or other.tokenizer is None:
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"{differ}, and without both tokenizers nobody can tell whether the others stand for nothing; load "
                "both models with their tokenizers"
            )
        return
    tokens = tokens_of(target.tokenizer, sizes[0]), tokens_of(other.tokenizer, sizes[1])
    alone = [token for token in max(tokens, key=len)[min(sizes) :] if token is not None]
    if alone:
        raise ValueError(
            f"{differ}, and {len(alone)} of those that only one has are tokens, such as {alone[0]!r}; steps need one "
            f"vocabulary, so choose a {role} of the target's family"
        )
    agreement = compare(*tokens)
    if agreement.differing:
        raise ValueError(
            f"{agreement.differing} ids stand for different tokens in target and {role}, such as "
            f"{agreement.examples[0]}; steps need one vocabulary, so choose a {role} of the target's family"
        )


def _rules(segmentation: Segmentation, lm: LanguageModel, ignore_eos: bool) -> Any:
    tokenizer = lm.tokenizer
    if tokenizer is None and segmentation.delimiters:
        raise ValueError(f"delimiters need a tokenizer and {lm.name} has none; use delimiter_ids")
    pieces = [b""] * lm.config.vocabulary
    if tokenizer is not None:
        pieces = (list(tokenizer.token_bytes()) + pieces)[: lm.config.vocabulary]
    end_ids = () if tokenizer is None or ignore_eos else tuple(tokenizer.eos_ids)
    return step_rules(segmentation, pieces, end_ids)


def _text_rules(
    draft: LanguageModel, target: LanguageModel, policy: Policy, settings: StepSettings
) -> tuple[StopRules, StopRules]:
    """What ends a text where the draft writes it, and where the target does.

    Either model alone ends where it ends in `generate`: at its own EOS. Where the target may write on behind the
    draft, its EOS ends the text whoever says it, since it has nothing to say behind it.
    """
    of_target = stop_rules(target, settings.stop, settings.stop_ids, ignore_eos=settings.ignore_eos)
    ids = list(settings.stop_ids)
    if policy.escalates and target.tokenizer is not None and not settings.ignore_eos:
        ids += [i for i in target.tokenizer.eos_ids if i < draft.config.vocabulary and i not in ids]
    of_draft = stop_rules(draft, (), ids, ignore_eos=settings.ignore_eos)
    return of_draft._replace(table=of_target.table), of_target


def _reading_sizes(policy: Policy, settings: StepSettings, lanes: int, *, on_cpu: bool) -> tuple[int, int]:
    """Tokens and lanes of a pass that reads what others wrote."""
    by_target = isinstance(policy.scorer, ReadingScorer) and policy.scorer.reads == "target"
    chunk = settings.segmentation.max_step_tokens
    if not on_cpu:
        if not by_target:
            return 256, lanes
        # A pass that scores puts out a row of the vocabulary for every token, so it is not much wider than steps may
        # be; but prompts are read by it as well.
        of_target = settings.target_segmentation or settings.segmentation
        return min(256, power_of_two(max(chunk, of_target.max_step_tokens), 64)), lanes
    # A pass of many lanes leaves room for few tokens of each on a CPU, but prompts must keep up with lanes.
    width = 64
    if not by_target:
        return width, max(1, lanes // LANES_A_READER)
    # Short chunks are read several lanes at a time, for as many tokens a pass. Where all lanes draft, as many chunks
    # are complete every tick as go into their number; half as many again are left for prompts and for catching up.
    read_width = min(width, power_of_two(chunk, 8))
    return read_width, min(lanes, max(width // read_width, -(-3 * lanes // (2 * chunk))))
