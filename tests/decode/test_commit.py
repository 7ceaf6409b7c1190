"""Where a request ends, for every position and every pair of reasons, against a plain walk over its tokens."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.decode.commit import Finish, StopRules, resolve
from jaxspec.decode.stop import build_stop_table
from jaxspec.decode.types import Verdict

VOCABULARY, DEPTH = 6, 4
PIECES = [b"a", b"b", b"c", b"d", b"", b"cd"]
EOS, STOPS = 4, ["bc", "cdc"]
NO_END = 99


def walk(ids, accepted, length, limit, capacity, said):
    """Token by token: how many stay, and why the request ends."""
    for count, token in enumerate(ids[: accepted + 1], start=1):
        if token >= VOCABULARY:
            return count - 1, Finish.NUMERICAL
        said = said + PIECES[token]
        if token == EOS:
            return count, Finish.EOS
        if any(stop.encode() in said for stop in STOPS):
            return count, Finish.STOP
        if length + count >= limit:
            return count, Finish.LENGTH
        if length + count >= capacity:
            return count, Finish.CACHE
    return accepted + 1, Finish.RUNNING


@pytest.fixture(scope="module")
def resolved():
    rules = StopRules(jnp.asarray([EOS, -1], jnp.int32), jax.device_put(build_stop_table(STOPS, PIECES)))

    @jax.jit
    def run(ids, accepted, length, limit, capacity, state):
        lanes = ids.shape[0]
        nothing = jnp.zeros((lanes, DEPTH + 1), jnp.int32)
        verdict = Verdict(accepted, nothing, ids, nothing, jnp.zeros((lanes, DEPTH + 1, VOCABULARY)))
        return resolve(verdict, length, limit, capacity, state, rules, VOCABULARY)

    return run


def check(resolved, cases, capacity):
    columns = [jnp.asarray(column, jnp.int32) for column in zip(*cases, strict=True)]
    ids, accepted, length, limit = columns
    states = jnp.zeros_like(accepted)
    got = resolved(ids, accepted, length, limit, jnp.int32(capacity), states)
    for index, (tokens, m, size, end) in enumerate(cases):
        expected = walk(tokens, m, size, end, capacity, b"")
        assert (int(got.count[index]), Finish(int(got.finish[index]))) == expected, (tokens, m, size, end)


def test_every_sequence_of_tokens(resolved) -> None:
    sequences = itertools.product(range(VOCABULARY + 1), repeat=DEPTH + 1)
    check(resolved, [(ids, DEPTH, 10, NO_END) for ids in sequences], NO_END)


def test_every_limit_and_every_accepted_length(resolved) -> None:
    sequences = [(0, 0, 0, 0, 0), (0, 1, 2, 0, 0), (0, 0, EOS, 0, 0), (5, 2, 5, 2, 0), (0, 0, 0, VOCABULARY, 0)]
    cases = [
        (ids, accepted, 10, limit)
        for ids in sequences
        for accepted in range(DEPTH + 1)
        for limit in [*range(11, 17), NO_END]
    ]
    for capacity in (11, 12, 13, 14, 15, NO_END):
        check(resolved, cases, capacity)


def test_a_stop_string_may_begin_in_an_earlier_block(resolved) -> None:
    first = resolved(
        jnp.asarray([[1, 0, 0, 0, 0]], jnp.int32), *(jnp.asarray([v], jnp.int32) for v in (0, 10, NO_END)),
        jnp.int32(NO_END), jnp.zeros((1,), jnp.int32),
    )  # fmt: skip
    assert int(first.finish[0]) == Finish.RUNNING
    second = resolved(
        jnp.asarray([[2, 0, 0, 0, 0]], jnp.int32), *(jnp.asarray([v], jnp.int32) for v in (4, 11, NO_END)),
        jnp.int32(NO_END), first.stop_state,
    )  # fmt: skip
    assert (int(second.count[0]), int(second.finish[0])) == (1, Finish.STOP)


def test_without_stop_strings_the_automaton_is_not_needed() -> None:
    rules = StopRules(jnp.full((8,), -1, jnp.int32), None)
    ids = jnp.asarray([[1, 2, 3]], jnp.int32)
    verdict = Verdict(jnp.asarray([1], jnp.int32), ids, ids, ids, jnp.zeros((1, 3, VOCABULARY)))
    got = resolve(verdict, *(jnp.asarray([v], jnp.int32) for v in (5, 50)), jnp.int32(50), jnp.zeros((1,), jnp.int32),
                  rules, VOCABULARY)  # fmt: skip
    np.testing.assert_array_equal([got.count[0], got.finish[0]], [2, Finish.RUNNING])
