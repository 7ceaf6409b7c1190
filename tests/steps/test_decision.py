"""Which steps go to a target that has no place for all of them, and what the calibrator learns of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec import steps
from jaxspec.conformal import adaptive_conformal, fixed
from jaxspec.decode.acceptance import Greedy
from jaxspec.decode.commit import Finish
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.models.cache import KVCache
from jaxspec.steps.decision import decide, worst_of
from jaxspec.steps.program import Model, StepProgram
from jaxspec.steps.state import Phase, StepLoopState, Writer, empty_problems, idle_lanes, no_usage

LANES = 8


def program_of(policy: steps.Policy, places: int) -> StepProgram:
    """No more than decisions read; the rest is never looked at."""
    nobody = Model(lambda *_: None, autoregressive(), places)
    others = dict.fromkeys(StepProgram.__dataclass_fields__, 1)
    return StepProgram(
        **{
            **others,
            "draft": nobody,
            "target": nobody,
            "policy": policy,
            "acceptance": Greedy(),
            "flags": SamplingFlags(),
        }
    )


def state_of(policy: steps.Policy, ticket: np.ndarray) -> StepLoopState:
    """Every lane with a step to decide on."""
    cache = KVCache((), (), jnp.zeros(LANES, jnp.int32))
    problems = empty_problems(LANES, 4, 2)._replace(ticket=jnp.asarray(ticket, jnp.int32))
    lanes = idle_lanes(LANES, LANES, 4)._replace(
        row=jnp.arange(LANES, dtype=jnp.int32), phase=jnp.full((LANES,), int(Phase.DECIDE), jnp.int32)
    )
    calibrator = policy.calibrator.init()
    zero = jnp.zeros((), jnp.int32)
    return StepLoopState(problems, lanes, Writer(cache, ()), Writer(cache, ()), (), calibrator, no_usage(), zero)


@functools.partial(jax.jit, static_argnums=0)
def decided(program: StepProgram, state: StepLoopState, score: jax.Array, broken: jax.Array):
    finish = jnp.where(broken, int(Finish.NUMERICAL), int(Finish.RUNNING))
    state = state._replace(lanes=state.lanes._replace(score=score, finish=finish.astype(jnp.int32)))
    return decide(program, state, jnp.ones(LANES, bool))


def policy_of(calibrator, **settings) -> steps.Policy:
    return steps.a1(samples=1, turns=9, chunk=4, calibrator=calibrator, overflow="accept", groups="none", **settings)


@given(
    lanes=st.lists(st.tuples(st.booleans(), st.sampled_from([-1.0, 0.0, 2.0, np.nan])), min_size=5, max_size=5),
    places=st.integers(0, 6),
    tickets=st.permutations(range(5)),
)
def test_places_go_to_the_worst_and_then_to_the_first_in_the_queue(lanes, places: int, tickets: list[int]) -> None:
    asked, score = (np.array(column) for column in zip(*lanes, strict=True))
    order = sorted(
        np.flatnonzero(asked), key=lambda lane: (score[lane] if score[lane] == score[lane] else -np.inf, tickets[lane])
    )
    taken = jax.jit(worst_of)(asked, score.astype(np.float32), np.array(tickets), places)
    assert np.flatnonzero(taken).tolist() == sorted(order[:places])


def test_who_finds_a_place_does_not_depend_on_lanes() -> None:
    policy, random = policy_of(fixed(0.0)), np.random.default_rng(0)
    score = np.array([-1, -1, -1, -3, 5, -1, -2, -1], np.float32)  # ties at the last place
    ticket = random.permutation(LANES)
    found = set()
    for _ in range(4):
        order = random.permutation(LANES)
        state, escalate = decided(
            program_of(policy, 3), state_of(policy, ticket[order]), jnp.asarray(score[order]), jnp.zeros(LANES, bool)
        )
        found.add(frozenset(ticket[order][np.asarray(escalate)].tolist()))
        assert int(state.usage.overruled) == 4 and int(state.usage.decisions) == 8
    assert len(found) == 1
    assert {ticket[3], ticket[6]} < next(iter(found))


def test_steps_that_broke_off_are_the_worst() -> None:
    broken = jnp.zeros(LANES, bool).at[6].set(True)
    score = (-jnp.arange(1.0, LANES + 1)).at[6].set(np.nan)
    for threshold, places, handed_over in ((0.0, 2, [6, 7]), (-np.inf, 8, [6])):  # the last would keep any score
        policy = policy_of(fixed(threshold), resample=True)
        _, escalate = decided(program_of(policy, places), state_of(policy, np.arange(LANES)), score, broken)
        assert np.flatnonzero(escalate).tolist() == handed_over


@pytest.mark.parametrize("places", [1, 8])
def test_a_full_target_does_not_make_the_calibrator_blind(places: int) -> None:
    """Two places short of what is asked for, for long: still it is bad steps that are asked for."""
    policy = policy_of(adaptive_conformal(0.4, 0.05))
    program, state = program_of(policy, places), state_of(policy, np.arange(LANES))
    random = np.random.default_rng(1)
    asked, handed = [], []
    for _ in range(150):
        score = random.standard_normal(LANES).astype(np.float32)
        state, escalate = decided(program, state, jnp.asarray(score), jnp.zeros(LANES, bool))
        handed += score[np.asarray(escalate)].tolist()
        asked.append(int(state.usage.overruled) + len(handed))
    assert abs(asked[-1] / (150 * LANES) - 0.4) < 0.02
    assert 0.1 < float(policy.calibrator.levels(state.calibrator)[0]) < 0.9
    assert np.mean(np.array(handed[-80:]) < 0.5) > 0.95
    assert (places == 1) == (int(state.usage.overruled) > 0)
