"""How slices of the step loop run: one program, or two where draft and target live on devices of their own.

R rows.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxspec.decode.lanes import choose
from jaxspec.decode.whole_number import integer
from jaxspec.engine.step_job import StepJob
from jaxspec.models.language_model import LanguageModel
from jaxspec.steps.apart import (
    TargetSide,
    common_of,
    draft_side,
    draft_slice,
    merge,
    split,
    target_side,
    target_slice,
)  # fmt: skip
from jaxspec.steps.loop import run_slice
from jaxspec.steps.program import StepInputs, StepProgram
from jaxspec.steps.state import Problems, StepLoopState

NO_LIMIT = 2**30  # ticks


class Engine(Protocol):
    """Runs a job's slices; its states are donated."""

    def begin(self, state: StepLoopState) -> Any:
        """The engine's own state, from the loop's."""
        ...

    def submit(self, state: Any, new: Problems, replace: np.ndarray) -> Any:
        """Puts the rows `replace` (R,) bool of `new`, on the host, into the queue."""
        ...

    def run(self, state: Any, ticks: int | None, more: bool) -> Any:
        """A slice of at most so many ticks, None for no limit; `more` problems may wait on the host."""
        ...

    def view(self, state: Any) -> StepLoopState:
        """Queue, lanes, usage and calibrator as they are."""
        ...

    def lower(self, state: StepLoopState) -> list[Any]:
        """The programs of a slice, lowered and not yet compiled, for the shapes of the loop's own state; the draft's
        first."""
        ...


@functools.partial(jax.jit, donate_argnames=("state",))
def submit(state: StepLoopState, new: Problems, replace: jax.Array) -> StepLoopState:
    """Puts the rows `replace` (R,) bool of `new` into the queue."""
    return state._replace(problems=choose(replace, new, state.problems))


@dataclasses.dataclass(frozen=True)
class OneProgram:
    """All models on the same devices: a slice is one program."""

    program: StepProgram
    inputs: StepInputs

    def begin(self, state: StepLoopState) -> StepLoopState:
        return state

    def submit(self, state: StepLoopState, new: Problems, replace: np.ndarray) -> StepLoopState:
        return submit(state, *jax.device_put((new, replace)))

    def run(self, state: StepLoopState, ticks: int | None, more: bool) -> StepLoopState:
        limit, more_too = jax.device_put((np.int32(NO_LIMIT if ticks is None else ticks), np.bool_(more)))
        return run_slice(self.program, self.inputs._replace(max_ticks=limit, more=more_too), state)

    def view(self, state: StepLoopState) -> StepLoopState:
        return state

    def lower(self, state: StepLoopState) -> list[Any]:
        return [run_slice.lower(self.program, self.inputs, state)]


class ApartState(NamedTuple):
    """Attributes:
    here: the draft's side, with queue and lanes.
    there: what stays with the target.
    """

    here: StepLoopState
    there: TargetSide


@dataclasses.dataclass(frozen=True)
class TwoPrograms:
    """Draft and target on devices of their own; see `steps.apart`.

    The host sends off both programs and the exchange, and looks at nothing but whether work is left, an exchange
    late, so that no device waits for it.

    Attributes:
      draft, draft_inputs: of the draft's devices.
      target, target_inputs: of the target's.
      here, there: shardings of what lives with the draft and with the target.
      exchange_ticks: rounds between exchanges.
    """

    draft: StepProgram
    draft_inputs: StepInputs
    target: StepProgram
    target_inputs: StepInputs
    here: jax.sharding.Sharding
    there: jax.sharding.Sharding
    exchange_ticks: int

    def begin(self, state: StepLoopState) -> ApartState:
        ours, theirs = split(state)
        return ApartState(_move(ours, self.here), _move(theirs, self.there))

    def submit(self, state: ApartState, new: Problems, replace: np.ndarray) -> ApartState:
        return state._replace(here=submit(state.here, *jax.device_put((new, replace), self.here)))

    def run(self, state: ApartState, ticks: int | None, more: bool) -> ApartState:
        more_here = jax.device_put(np.bool_(more), self.here)
        going: jax.Array | None = None
        for _ in range(-(-(NO_LIMIT if ticks is None else ticks) // self.exchange_ticks)):
            state, still = self._exchange(state, more_here)
            if going is not None and not jax.device_get(going):
                break
            going = still
        return state

    def view(self, state: ApartState) -> StepLoopState:
        return state.here

    def lower(self, state: StepLoopState) -> list[Any]:
        ours, theirs = jax.eval_shape(split, state)
        sent, ticks = jax.eval_shape(common_of, ours), self.exchange_ticks
        return [
            draft_slice.lower(self.draft, self.draft_inputs, ours, ticks=ticks),
            target_slice.lower(self.target, self.target_inputs, theirs, sent, ticks=ticks),
        ]

    def _exchange(self, state: ApartState, more: jax.Array) -> tuple[ApartState, jax.Array]:
        sent = _put(common_of(state.here), self.there)
        ours, away = draft_slice(self.draft, self.draft_inputs, state.here, ticks=self.exchange_ticks)
        there, theirs = target_slice(self.target, self.target_inputs, state.there, sent, ticks=self.exchange_ticks)
        here, going = merge(self.draft, ours, away, _put(theirs, self.here), more)
        return ApartState(here, there), going


def engine_of(job: StepJob, exchange_ticks: int = 1) -> Engine:
    """The engine that suits where the job's models live.

    Raises:
      ValueError: `exchange_ticks` is below 1, the models' devices overlap without being the same, a scoring model
        lives elsewhere than the draft, or lanes of models on two device sets are to move in lockstep.
    """
    exchange_ticks = integer("exchange_ticks", exchange_ticks)
    if exchange_ticks < 1:
        raise ValueError(f"exchange_ticks={exchange_ticks} is below 1; models must work before they can tell")
    if not is_apart(job.draft, job.target):
        _check_scorer_lives_with(job, "draft and target")
        return OneProgram(job.program, job.inputs)
    shared = devices_of(job.draft) & devices_of(job.target)
    if shared:
        raise ValueError(
            f"draft and target share {len(shared)} of their devices; place them on the same ones, or on none in common"
        )
    _check_scorer_lives_with(job, "the draft")
    if job.program.lockstep:
        raise ValueError(
            f"policy {job.program.policy.name!r} moves lanes in lockstep, which leaves little to do at the same "
            "time; place draft and target on the same devices"
        )
    here, there = place_of(job.draft), place_of(job.target)
    draft, draft_inputs = draft_side(job.program, job.inputs)
    target, target_inputs = target_side(job.program, job.inputs)
    return TwoPrograms(draft, _put(draft_inputs, here), target, _put(target_inputs, there), here, there, exchange_ticks)


def devices_of(lm: LanguageModel) -> set[Any]:
    """Where the model's parameters are; none for one of shapes alone."""
    leaves = jax.tree.leaves(lm.params)
    return {device for leaf in leaves if isinstance(leaf, jax.Array) for device in leaf.devices()}


def is_apart(draft: LanguageModel, target: LanguageModel) -> bool:
    """Whether the models do not live on the same devices."""
    sets = devices_of(draft), devices_of(target)
    return bool(sets[0]) and bool(sets[1]) and sets[0] != sets[1]


def place_of(lm: LanguageModel) -> jax.sharding.Sharding:
    """The sharding of what every device of the model holds a copy of."""
    sharding = jax.tree.leaves(lm.params)[0].sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return sharding


def _check_scorer_lives_with(job: StepJob, whom: str) -> None:
    if job.scorer is not None and is_apart(job.draft, job.scorer):
        raise ValueError(f"scorer={job.scorer.name} lives on other devices than {whom}; place it there")


def _put(tree: Any, place: jax.sharding.Sharding) -> Any:
    """`tree` on `place`; parameters stay sharded as they are, and what will be donated is never shared memory."""
    return jax.tree.map(
        lambda leaf: leaf if _lives_on(leaf, place) else jax.device_put(leaf, place, may_alias=False), tree
    )


def _move(tree: Any, place: jax.sharding.Sharding) -> Any:
    """`tree` on `place`, and nowhere else: a cache made on another device must not stay there while the job runs."""

    def move(leaf: Any) -> Any:
        moved = _put(leaf, place)
        if moved is not leaf:
            leaf.delete()
        return moved

    return jax.tree.map(move, tree)


def _lives_on(leaf: Any, place: jax.sharding.Sharding) -> bool:
    return isinstance(leaf, jax.Array) and leaf.committed and leaf.sharding.device_set == place.device_set
