"""From a user's settings to a compiled-once program, its data and its static sizes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.acceptance import Acceptance, Coupled, Greedy
from jaxspec.decode.binding import Binding, bind, of_target
from jaxspec.decode.commit import StopRules
from jaxspec.decode.loop import Inputs, Program
from jaxspec.decode.rejection import Rejection
from jaxspec.decode.state import LoopState
from jaxspec.decode.stop import build_stop_table
from jaxspec.decode.types import Drafter
from jaxspec.decode.typical import Typical
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.padded import padded
from jaxspec.engine.request import Request, check_room, flags_of_requests
from jaxspec.engine.serve import UNLIMITED, Shape, init_state
from jaxspec.models.language_model import LanguageModel, check_writes

STOP_IDS_BUCKET = 8
STRICT_NODES = 15  # with the root, blocks of sixteen
ACCEPTANCES: dict[str, type[Acceptance]] = {
    "greedy": Greedy,
    "coupled": Coupled,
    "rejection": Rejection,
    "typical": Typical,
}


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything `serve` needs but the requests.

    Attributes:
      program: the static part.
      inputs: the data.
      shape: the static sizes.
      lm: the target.
    """

    program: Program
    inputs: Inputs
    shape: Shape
    lm: LanguageModel

    def init_state(self) -> LoopState:
        """A fresh state; every `serve` consumes one."""
        lm = self.lm
        return init_state(
            lm.config, np.dtype(lm.cache_dtype), self.program.drafter, self.shape, self.inputs.drafter_params
        )


def build_job(
    lm: LanguageModel,
    requests: Sequence[Request],
    drafter: Drafter,
    *,
    acceptance: Acceptance | str | None = None,
    stop: Sequence[str] | None = (),
    stop_ids: Sequence[int] | None = (),
    ignore_eos: bool = False,
    banned_ids: Sequence[int] | None = (),
    lanes: int | None = None,
    cache: int | None = None,
    strict: bool = False,
    logprobs: bool = False,
    strict_nodes: int = STRICT_NODES,
) -> Job:
    """Checks settings, chooses static sizes and prepares the drafter.

    Args:
      lm: the target.
      requests: what will be served.
      drafter: see `jaxspec.drafters`.
      acceptance: a rule, or its name among `ACCEPTANCES`; None takes `Coupled()` if a request samples, or `Greedy()`.
      stop: strings that end a request where they first stand in its decoded text; None for none, also below.
      stop_ids: ids that do, besides the tokenizer's own.
      ignore_eos: whether the tokenizer's end-of-sequence ids do not.
      banned_ids: ids never said.
      lanes: requests at once; None takes the power of two that serves them, at most 8.
      cache: tokens a lane may hold; None takes what the requests need.
      strict: decode with logits that do not depend on the drafter, to the last bit.
      logprobs: keep the log-probability of every token.
      strict_nodes: draft nodes of every strict block, whatever the drafter proposes.

    Raises:
      ValueError: a setting is out of range; the message names it.
    """
    check_writes(lm, "target")
    if isinstance(drafter, str):
        raise ValueError(f"drafter={drafter!r} is text; build one with jaxspec.drafters")
    if callable(drafter) and not hasattr(drafter, "propose"):
        raise ValueError(f"drafter={drafter!r} proposes nothing; call it, as in jaxspec.drafters.best()")
    lanes = None if lanes is None else integer("lanes", lanes)
    cache = None if cache is None else integer("cache", cache)
    if lanes is not None and lanes < 1:
        raise ValueError(f"lanes={lanes} is below 1; at least one lane must work")
    if cache is not None and cache < 2:
        raise ValueError(f"cache={cache} is below 2 tokens: a prompt and an answer need one each")
    capacity = lm.config.context if cache is None else min(cache, lm.config.context)
    what = "the model's context" if capacity == lm.config.context else "the cache"
    check_room(requests, capacity, what)
    banned = _known_ids(lm, "banned_ids", banned_ids)
    mask, rules = banned_mask(lm, banned), stop_rules(lm, stop, stop_ids, ignore_eos=ignore_eos)
    flags = flags_of_requests(requests, banned=len(banned) > 0)
    acceptance = _acceptance(acceptance, flags.stochastic)
    drafter = of_target(drafter, lm)  # from here on drafters may load models and build tables
    if cache is not None and drafter.depth >= cache:
        raise ValueError(
            f"cache={cache} cannot hold a pass of {drafter.depth + 1} tokens, the longest draft and the token before "
            "it; choose a larger cache or a shorter draft"
        )
    needed = max((len(r.ids) + r.max_new_tokens for r in requests), default=1)
    slots = power_of_two(min(needed, capacity), 128) if cache is None else -(-capacity // 128) * 128
    lanes = min(power_of_two(len(requests), 1), 8) if lanes is None else lanes
    width = 64 if jax.default_backend() == "cpu" else 256
    model = lm.model
    if strict:
        if not drafter.is_chain:
            raise ValueError(f"strict=True needs a drafter whose drafts are chains, and {drafter} proposes trees")
        model, drafter = lm.strict_model(), padded(drafter, strict_nodes)
    binding = Binding(lm.config.vocabulary, flags, acceptance.drawing, width, by_request=acceptance.follows_draft)
    program = Program(model, bind(drafter, binding), acceptance, flags, width, logprobs)
    inputs = Inputs(
        params=lm.params,
        drafter_params=drafter.prepare(lm),
        rules=rules,
        banned=mask,
        capacity=jax.device_put(np.int32(capacity)),
        step_seconds=jnp.ones((len(program.drafter.widths),), jnp.float32),
        max_ticks=jax.device_put(UNLIMITED),
        more=jax.device_put(np.bool_(False)),
    )
    return Job(program, inputs, Shape(lanes, slots, max(16, 4 * lanes), width, logprobs), lm)


def power_of_two(value: int, least: int) -> int:
    return max(least, 1 << max(value - 1, 0).bit_length())


def _acceptance(acceptance: Acceptance | str | None, stochastic: bool) -> Acceptance:
    """The rule itself, which must be able to draw if a request samples."""
    if acceptance is None:
        return Coupled() if stochastic else Greedy()
    if isinstance(acceptance, str):
        if acceptance not in ACCEPTANCES:
            raise ValueError(f"acceptance={acceptance!r} is not one of {', '.join(ACCEPTANCES)}")
        acceptance = ACCEPTANCES[acceptance]()
    if isinstance(acceptance, type):
        raise ValueError(f"acceptance={acceptance.__name__} is a class; call it, as in jaxspec.Typical()")
    if not hasattr(acceptance, "accept"):
        raise ValueError(
            f"acceptance={acceptance!r} is no rule; give one, or the name of one: {', '.join(ACCEPTANCES)}"
        )
    if stochastic and not acceptance.stochastic:
        raise ValueError(f"{acceptance} cannot draw; use acceptance='coupled', or temperature=0")
    return acceptance


def stop_rules(
    lm: LanguageModel, stop: Sequence[str] | None, stop_ids: Sequence[int] | None, *, ignore_eos: bool
) -> StopRules:
    if isinstance(stop, str):
        raise ValueError(f"stop={stop!r} is one string; pass a list of strings")
    stop = () if stop is None else stop
    other = [text for text in stop if not isinstance(text, str)]
    if other:
        raise ValueError(f"stop holds {other[0]!r}, which is no string; ids that end a text go into stop_ids")
    if any(not text for text in stop):
        raise ValueError("stop holds an empty string, which would end every text at once; remove it")
    tokenizer = lm.tokenizer
    if stop and tokenizer is None:
        raise ValueError(f"stop strings need a tokenizer and {lm.name} has none; use stop_ids")
    ids = _known_ids(lm, "stop_ids", stop_ids)
    if tokenizer is not None and not ignore_eos:
        ids += [i for i in tokenizer.eos_ids if i not in ids]
    size = -(-max(len(ids), 1) // STOP_IDS_BUCKET) * STOP_IDS_BUCKET
    padded_ids = np.full((size,), -1, np.int32)
    padded_ids[: len(ids)] = ids
    table = None
    if stop and tokenizer is not None:
        unknown = [b""] * lm.config.vocabulary  # a model's vocabulary may be padded beyond its tokenizer's
        pieces: list[bytes] = (list(tokenizer.token_bytes()) + unknown)[: lm.config.vocabulary]
        # A tokenizer without the method decodes the start of a text like the rest.
        first = getattr(tokenizer, "first_token_bytes", tokenizer.token_bytes)()
        first = (list(first) + unknown)[: lm.config.vocabulary]
        table = jax.device_put(build_stop_table(stop, pieces, None if first == pieces else first))
    return StopRules(jax.device_put(padded_ids), table)


def _known_ids(lm: LanguageModel, name: str, ids: Sequence[int] | None) -> list[int]:
    """`ids`, all of them of the vocabulary."""
    if isinstance(ids, int | np.integer):
        raise ValueError(f"{name}={ids} is one id; pass a list of ids")
    known = [integer(f"an id of {name}", value) for value in (() if ids is None else ids)]
    for value in known:
        if not 0 <= value < lm.config.vocabulary:
            raise ValueError(f"{name} holds {value}, outside the vocabulary of {lm.config.vocabulary} ids")
    return known


def banned_mask(lm: LanguageModel, banned_ids: Sequence[int]) -> Any:
    banned = np.zeros((lm.config.vocabulary,), bool)
    banned[list(banned_ids)] = True
    if banned.all():
        raise ValueError("banned_ids bans the whole vocabulary; nothing could be said")
    return jax.device_put(banned)
