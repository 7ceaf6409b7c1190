"""Which scored draft steps go to the target.

B lanes.
"""

import jax
import jax.numpy as jnp

from jaxspec.decode.commit import Finish
from jaxspec.decode.sampling import key_of
from jaxspec.steps.program import StepProgram
from jaxspec.steps.state import Phase, StepLoopState, row_of

TIES = 7  # random stream of calibrators that break ties; apart from those of `decode.sampling`


def decide(program: StepProgram, state: StepLoopState, deciding: jax.Array) -> tuple[StepLoopState, jax.Array]:
    """Decides for lanes `deciding` (B,) and tells the calibrator.

    A step whose text broke off with logits that were no numbers is always escalated, if steps can be replaced.

    Returns:
      The state, and (B,) bool lanes whose step goes to the target.
    """
    policy, lanes = program.policy, state.lanes
    if policy.calibrator is None and policy.ranked is None:
        return state, jnp.zeros_like(deciding)
    broken = lanes.finish == Finish.NUMERICAL
    asked = deciding
    if not policy.decide_finished:
        asked = asked & (lanes.finish == Finish.RUNNING)
    if policy.ranked is not None:
        escalate = rank_within(lanes.score, state.problems.question[row_of(state)], asked, policy.ranked)
        return state, escalate
    assert policy.calibrator is not None
    question = state.problems.question[row_of(state)]
    group = {"turn": lanes.turn, "question": question, "none": jnp.zeros_like(lanes.turn)}[policy.groups]
    seed = state.problems.sampling.seed[row_of(state)]
    uniform = jax.vmap(lambda s, t: jax.random.uniform(key_of(s, TIES, t), (), jnp.float32))(seed, lanes.turn)
    score = jnp.where(broken, jnp.nan, lanes.score)
    escalate = asked & policy.calibrator.decide(
        state.calibrator, score, group, live=asked, question=question, uniform=uniform
    )
    if policy.on_escalation == "replace":
        escalate |= asked & broken
    if policy.overflow == "accept":
        held = jnp.sum((lanes.phase == Phase.WAIT) | (lanes.phase == Phase.TARGET), dtype=jnp.int32)
        place = jnp.cumsum(escalate, dtype=jnp.int32) - 1
        escalate &= place < program.target.lanes - held
    calibrator = policy.calibrator.observe(state.calibrator, score, group, escalate, live=asked, question=question)
    return state._replace(calibrator=calibrator), escalate


def rank_within(score: jax.Array, question: jax.Array, asked: jax.Array, share: float) -> jax.Array:
    """(B,) bool the worst `share` of each question's samples among lanes `asked`, rounded to the nearest number.

    The synchronous rule A1 replaces: it needs the scores of all samples of a question at once. Of equal scores the
    later lane is worse.
    """
    score = jnp.where(jnp.isfinite(score), score, -jnp.inf)
    lane = jnp.arange(score.shape[0], dtype=jnp.int32)
    peers = (question[:, None] == question) & asked[:, None] & asked
    worse = (score < score[:, None]) | ((score == score[:, None]) & (lane > lane[:, None]))
    rank = jnp.sum(peers & worse, axis=1)
    many = jnp.sum(peers, axis=1)
    return asked & (rank < jnp.floor(share * many + 0.5).astype(rank.dtype))
