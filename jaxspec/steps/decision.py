"""Which scored draft steps go to the target.

B lanes.
"""

import jax
import jax.numpy as jnp

from jaxspec.conformal.lanes import usable
from jaxspec.decode.commit import Finish
from jaxspec.decode.hashing import prompt_mark
from jaxspec.steps.draws import turn_uniform
from jaxspec.steps.program import StepProgram
from jaxspec.steps.state import Lanes, Phase, StepLoopState, row_of

TIES = 7  # random stream of calibrators that break ties; apart from those of `decode.sampling`


def decide(program: StepProgram, state: StepLoopState, deciding: jax.Array) -> tuple[StepLoopState, jax.Array]:
    """Decides for lanes `deciding` (B,) and tells the calibrator.

    A step whose text broke off with logits that were no numbers has no score, which is the worst there is, and is
    always escalated, if steps can be replaced. With `overflow="accept"` the target takes no more steps than it has
    places, the worst; and the calibrator is told what was decided, for it would make up for what found no place with
    steps of any score.

    Returns:
      The state, and (B,) bool lanes whose step goes to the target.
    """
    policy, lanes = program.policy, state.lanes
    if policy.calibrator is None and policy.ranked is None:
        return state, jnp.zeros_like(deciding)
    row = row_of(state)
    question = state.problems.question[row]
    asked = deciding & to_be_decided(program, lanes)
    usage = state.usage
    usage = usage._replace(decisions=usage.decisions + jnp.sum(asked, dtype=jnp.int32))
    if policy.ranked is not None:
        return state._replace(usage=usage), rank_within(lanes.score, question, asked, policy.ranked)
    assert policy.calibrator is not None
    score = lanes.score
    group = {"turn": lanes.turn, "question": question, "none": jnp.zeros_like(lanes.turn)}[policy.groups]
    mark = prompt_mark(state.problems.tokens[row], state.problems.prompt_length[row])
    uniform = turn_uniform(state.problems.sampling.seed[row], TIES, lanes.turn, mark)
    escalate = asked & policy.calibrator.decide(
        state.calibrator, score, group, live=asked, question=question, uniform=uniform
    )
    if policy.on_escalation == "replace":
        escalate |= asked & (lanes.finish == Finish.NUMERICAL)
    calibrator = policy.calibrator.observe(state.calibrator, score, group, escalate, live=asked, question=question)
    if policy.overflow == "accept":
        held = jnp.sum((lanes.phase == Phase.WAIT) | (lanes.phase == Phase.TARGET), dtype=jnp.int32)
        taken = worst_of(escalate, score, state.problems.ticket[row], program.target.lanes - held)
        usage = usage._replace(overruled=usage.overruled + jnp.sum(escalate & ~taken, dtype=jnp.int32))
        escalate = taken
    return state._replace(calibrator=calibrator, usage=usage), escalate


def to_be_decided(program: StepProgram, lanes: Lanes) -> jax.Array:
    """(B,) bool whether the step in progress is one to decide on, and so to score.

    Without `decide_finished`, a step that ends its text is not, unless what ended it were logits that are no numbers
    and the target can write the step anew.
    """
    policy = program.policy
    if policy.decide_finished:
        return jnp.ones_like(lanes.finish, bool)
    open_end = lanes.finish == Finish.RUNNING
    return open_end | (lanes.finish == Finish.NUMERICAL) if policy.on_escalation == "replace" else open_end


def rank_within(score: jax.Array, question: jax.Array, asked: jax.Array, share: float) -> jax.Array:
    """(B,) bool the worst `share` of each question's samples among lanes `asked`, rounded to the nearest number.

    The synchronous rule A1 replaces: it needs the scores of all samples of a question at once. Of equal scores the
    later lane is worse, which is the later sample, since samples of a question take lanes in order.
    """
    lane = jnp.arange(score.shape[0], dtype=jnp.int32)
    peers = (question[:, None] == question) & asked[:, None] & asked
    rank = _rank(score, -lane, peers)
    many = jnp.sum(peers, axis=1)
    return asked & (rank < jnp.floor(share * many.astype(jnp.float32) + 0.5).astype(rank.dtype))


def worst_of(asked: jax.Array, score: jax.Array, ticket: jax.Array, places: jax.Array) -> jax.Array:
    """(B,) bool so many lanes of `asked` as there are `places` (): those of the worst scores, of equal ones the
    lowest tickets."""
    return asked & (_rank(score, ticket, asked) < places)


def _rank(score: jax.Array, order: jax.Array, peers: jax.Array) -> jax.Array:
    """(B,) how many `peers` of a lane, (B,) bool or (B, B), have a worse score, or an equal one and a lower `order`."""
    score = usable(score)
    worse = (score < score[:, None]) | ((score == score[:, None]) & (order < order[:, None]))
    return jnp.sum(peers & worse, axis=1, dtype=jnp.int32)
