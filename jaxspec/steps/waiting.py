"""Who waits for whom: the target for enough lanes to write for, and lanes in lockstep for each other.

B lanes.
"""

import jax
import jax.numpy as jnp

from jaxspec.steps.program import StepProgram
from jaxspec.steps.state import Author, Phase, StepLoopState


def is_ripe(program: StepProgram, state: StepLoopState) -> jax.Array:
    """() whether the target's pass is worth its price now: it costs the same however few lanes it writes for.

    So it waits for a wave of them, also between the tokens of a step, as long as others have work and nobody has
    waited too long. A wave is never more than half of the lanes that hold a problem: the other half would have to
    escalate too, and wait for their own last.
    """
    phase = state.lanes.phase
    writing = phase == Phase.TARGET
    others = jnp.any((phase == Phase.DRAFT) | (phase == Phase.SCORE))
    late = jnp.any(writing & (state.usage.ticks - state.lanes.since >= program.patience))
    held = jnp.sum(phase != Phase.IDLE, dtype=jnp.int32)
    return (jnp.sum(writing, dtype=jnp.int32) >= jnp.minimum(program.wave, (held + 1) // 2)) | late | ~others


def any_behind_barrier(program: StepProgram, which: jax.Array) -> jax.Array:
    """(B,) bool whether `which` (B,) is true of a lane, or of one that it waits for."""
    together = which.reshape(-1, program.barrier)
    return jnp.repeat(jnp.any(together, axis=1), program.barrier)


def with_target_behind_barrier(program: StepProgram, state: StepLoopState) -> jax.Array:
    """(B,) bool whether a step is with the target, or being compared, of the lane or one that it waits for: in
    lockstep, none of them begins the next until none is."""
    lanes = state.lanes
    compared = (lanes.author == Author.TARGET) & ((lanes.phase == Phase.SCORE) | (lanes.phase == Phase.DECIDE))
    return any_behind_barrier(program, (lanes.phase >= Phase.WAIT) | compared)
