"""The static part of the step loop, and the data no tick changes.

B lanes, V vocabulary.
"""

import dataclasses
from typing import Any, NamedTuple

import jax

from jaxspec.decode.acceptance import Acceptance
from jaxspec.decode.commit import StopRules
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.types import Drafter
from jaxspec.models.model_fn import ModelFn, Params
from jaxspec.steps.segmentation import StepRules
from jaxspec.steps.types import Policy


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that writes, and how.

    Attributes:
      model_fn: the network.
      drafter: token drafts within its steps.
      lanes: places, at most B; a pass takes the lanes that want it, that many at a time.
      stream: random stream from which every step takes noise of its own; None for the noise of plain decoding.
    """

    model_fn: ModelFn
    drafter: Drafter
    lanes: int
    stream: int | None = None


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """One program is compiled for each, and for each shape of the state.

    Attributes:
      draft, target: the models that write.
      scorer_fn: a scoring model's network, or None.
      annotation: what it reads added to the ids of steps that the target wrote; 0 if it reads all alike.
      policy: who writes what.
      acceptance, flags: of token drafts, as in the token loop.
      read_width: tokens a reading pass.
      read_lanes: lanes a reading pass.
      wave: places with the target that must be taken before it writes, or half of the lanes that hold a problem if
        that is less, unless nobody else has work.
      patience: ticks after which a lane with the target need not wait for others.
      cohort: problems that start together, consecutive in the queue, on lanes side by side: 1, or the samples of a
        question.
      barrier: lanes side by side that draft, score and write together, each waiting for the last of them: a
        baseline; 1 for lanes that wait for nobody.
      max_steps: S, steps a problem at most.
      max_turns: draft steps a problem at most.
    """

    draft: Model
    target: Model
    scorer_fn: ModelFn | None
    annotation: int
    policy: Policy
    acceptance: Acceptance
    flags: SamplingFlags
    read_width: int
    read_lanes: int
    wave: int
    patience: int
    cohort: int
    barrier: int
    max_steps: int
    max_turns: int

    @property
    def lockstep(self) -> bool:
        """Whether lanes wait for each other."""
        return self.barrier > 1


class ModelInputs(NamedTuple):
    """Attributes:
    params: of the network.
    drafter_params: what the drafter prepared.
    step_rules: where its steps end.
    text_rules: where its steps end the text.
    step_seconds: (number of the drafter's widths,) float32.
    """

    params: Params
    drafter_params: Any
    step_rules: StepRules
    text_rules: StopRules
    step_seconds: jax.Array


class StepInputs(NamedTuple):
    """Attributes:
    draft, target: see there.
    scorer_params: of the scoring model, or what a text scorer prepared.
    rules: when texts end.
    banned: (V,) bool ids never said.
    capacity: () int32 total length the buffers and the models allow.
    max_ticks: () int32 length of the slice.
    more: () bool whether the host holds further problems.
    """

    draft: ModelInputs
    target: ModelInputs
    scorer_params: Any
    banned: jax.Array
    capacity: jax.Array
    max_ticks: jax.Array
    more: jax.Array
