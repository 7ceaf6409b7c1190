"""The protocols of the step loop.

B lanes, b rows of a pass, W tokens a row, L tokens a text, O outputs of a scoring model.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from jaxspec.conformal.calibrator import Calibrator


class StepContext(NamedTuple):
    """A step of every lane, in its text.

    Attributes:
      tokens: (B, L) int32; undefined at and beyond `end`.
      prompt_length: (B,) int32.
      start, end: (B,) int32 the step is `tokens[start:end]`.
      seed: (B,) uint32 of the problem.
      turn: (B,) int32 draft steps before this one.
      live: (B,) bool; other lanes hold nothing to score.
    """

    tokens: jax.Array
    prompt_length: jax.Array
    start: jax.Array
    end: jax.Array
    seed: jax.Array
    turn: jax.Array
    live: jax.Array


@runtime_checkable
class TextScorer(Protocol):
    """Scores steps from the text alone, in one go. Instances are frozen dataclasses, as all scorers are."""

    def score(self, params: Any, context: StepContext) -> jax.Array:
        """(B,) float32, higher for a better step."""
        ...

    def prepare(self) -> Any:
        """Arrays the scorer reads, passed as `params`."""
        ...


@runtime_checkable
class ReadingScorer(Protocol):
    """Scores steps from what a model puts out while it reads them.

    Attributes:
      reads: `target`, whose reading is kept in its cache, or `scorer`, a model of its own.
    """

    @property
    def reads(self) -> str: ...

    def first(self, start: jax.Array) -> jax.Array:
        """First position whose output counts, given where steps start; nothing before needs outputs."""
        ...

    def last(self, end: jax.Array) -> jax.Array:
        """One beyond the last position whose output counts."""
        ...

    def contribution(
        self, outputs: jax.Array, following: jax.Array, position: jax.Array, start: jax.Array, end: jax.Array
    ) -> jax.Array:
        """(b,) float32 what the outputs of a pass add to each score.

        Args:
          outputs: (b, W, O) float32, of the tokens at `position`.
          following: (b, W) int32 the token behind each.
          position: (b, W) int32.
          start, end: (b,) int32 of the step; positions outside `[first, last)` must add nothing.
        """
        ...

    def finish(self, partial: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
        """(B,) float32 the score, given the sum of contributions."""
        ...


Scorer = TextScorer | ReadingScorer


@dataclasses.dataclass(frozen=True)
class Policy:
    """Who writes a problem's steps. Made by `rsd`, `arbitrage`, `oracle`, `a1` and their baselines.

    Attributes:
      name: for reports.
      scorer: what the decision looks at; None decides without a score.
      calibrator: turns scores into decisions; None keeps every draft, or, with `first` the target, asks for none.
      first: who writes a step first: `draft` or `target`.
      on_escalation: `replace`, the target writes the step anew from where it starts; `continue`, it writes on
        behind it; `compare`, it writes the step too, and the better one stays.
      margin: with `compare`, how much better the target's step must score to be taken.
      groups: what the calibrator tells apart: `turn`, `question` or `none`.
      decide_finished: whether a draft step that ends its text is put to the decision like any other.
      overflow: what becomes of an escalation when all places with the target are taken: `wait`, or `accept` the
        draft.
      ranked: None, or the share of a question's samples to hand over, by rank among them, which takes a barrier.
      samples, turns, chunk, target_chunk: what `solve` takes where it is not told: samples a question, draft steps a
        sample, and tokens of a step of the draft and of the target; None for its own defaults.
    """

    name: str
    scorer: Scorer | None = None
    calibrator: Calibrator | None = None
    first: str = "draft"
    on_escalation: str = "replace"
    margin: float = 0.0
    groups: str = "turn"
    decide_finished: bool = True
    overflow: str = "wait"
    ranked: float | None = None
    samples: int | None = None
    turns: int | None = None
    chunk: int | None = None
    target_chunk: int | None = None

    @property
    def escalates(self) -> bool:
        """Whether the target may write for a step that the draft has written."""
        return self.calibrator is not None or self.ranked is not None

    @property
    def discards_drafts(self) -> bool:
        """Whether a step of the draft may be taken back."""
        return self.escalates and self.on_escalation != "continue"

    @property
    def discards_targets(self) -> bool:
        """Whether a step of the target may be taken back."""
        return self.escalates and self.on_escalation == "compare"
