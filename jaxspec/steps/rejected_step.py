"""The target drafts from the step it was called to replace: an escalation then costs a few passes, not a whole step.

A rejected step is often right for its first tokens, or says the right thing otherwise; the target verifies it like any
draft, so its text is its own.

B lanes, T tokens a step, W draft nodes.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.alignment import BOUNDARY, align, draft_from
from jaxspec.drafters.chain import OneChain
from jaxspec.steps.state import Kept


class Reference(NamedTuple):
    """Attributes:
    tokens: (B, T + 1) int32 the rejected step, `BOUNDARY` behind it.
    start: (B,) int32 length of the text where it began.
    """

    tokens: jax.Array
    start: jax.Array


@dataclasses.dataclass(frozen=True)
class RejectedStep(OneChain):
    """One chain of up to `width` tokens of the rejected step, from where the target's own step stands in it.

    Attributes:
      width: W.
      step_tokens: T, most tokens a step may have.
      query: see `drafters.alignment.align`.
    """

    width: int
    step_tokens: int
    query: int

    sources = ("rejected_step",)

    def prepare(self, language_model: Any) -> tuple[()]:
        return ()

    def init(self, params: Any, context: Context) -> Reference:
        lanes = context.length.shape[0]
        return Reference(jnp.full((lanes, self.step_tokens + 1), BOUNDARY, jnp.int32), jnp.zeros((lanes,), jnp.int32))

    def admit(self, params: Any, state: Reference, context: Context, fresh: jax.Array) -> Reference:
        return Reference(jnp.where(fresh[:, None], BOUNDARY, state.tokens), state.start)

    def remember(self, state: Reference, kept: Kept, start: jax.Array, which: jax.Array) -> Reference:
        """The reference of lanes `which` (B,) becomes the step set aside, which began at `start` (B,)."""
        place = jnp.arange(self.step_tokens, dtype=jnp.int32)
        step = jnp.take_along_axis(kept.tokens, place[None], axis=1, mode="fill", fill_value=BOUNDARY)
        tokens = jnp.where(place < kept.length[:, None], step, BOUNDARY)
        tokens = jnp.pad(tokens, ((0, 0), (0, 1)), constant_values=BOUNDARY)
        return Reference(jnp.where(which[:, None], tokens, state.tokens), jnp.where(which, start, state.start))

    def propose(self, params: Any, state: Reference, context: Context) -> tuple[Draft, Reference]:
        said = context.length - state.start
        nothing = jnp.zeros_like(said)
        following, matched, _ = align(
            state.tokens, context.tokens, context.length, said, nothing, said, self.query, self.step_tokens
        )
        return draft_from(state.tokens, following, matched, self.width), state

    def observe(self, params: Any, state: Reference, context: Context, draft: Draft, verdict: Verdict) -> Reference:
        return state


def rejected_step(width: int = 8, step_tokens: int = 256, query: int = 2) -> RejectedStep:
    """A token drafter for the target of a step-level job: `solve(..., target_drafter=rejected_step())`.

    Args:
      width: tokens proposed a pass.
      step_tokens: at least as many as the segmentation allows a step; the rest of a longer one is not drafted from.
      query: tokens matched to find the place again after a mismatch.

    Raises:
      ValueError: one is below 1.
    """
    for name, value in (("width", width), ("step_tokens", step_tokens), ("query", query)):
        if value < 1:
            raise ValueError(f"{name}={value} is below 1")
    return RejectedStep(width, step_tokens, query)
