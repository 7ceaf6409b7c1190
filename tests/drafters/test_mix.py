"""Merged trees, learned rates and the choice of a width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.decode.verify import choose_width
from jaxspec.drafters.merge import best_nodes, join, representatives
from jaxspec.drafters.mix import came_true
from jaxspec.drafters.paths import path_hash, prefix_hash

NODES, DEPTH = 9, 9
LM = toy_model(0)


def random_draft(seed: int) -> Draft:
    rng = np.random.default_rng(seed)
    parent = np.array([rng.integers(0, j + 1) for j in range(NODES)])
    depth = np.zeros(NODES, int)
    for j in range(NODES):
        depth[j] = 1 if parent[j] == 0 else depth[parent[j] - 1] + 1

    def row(values, dtype=jnp.int32):
        return jnp.asarray(values, dtype)[None]

    return Draft(
        ids=row(rng.integers(0, 2, NODES)),
        parent=row(parent),
        depth=row(depth),
        source=row(np.zeros(NODES)),
        valid=row(np.ones(NODES), bool),
        evidence=row(np.zeros(NODES)),
    )


def paths_of(draft: Draft, only_valid: bool = True) -> list[tuple[int, ...]]:
    parent, ids = np.asarray(draft.parent[0]), np.asarray(draft.ids[0])
    found = []
    for node in range(len(ids)):
        if only_valid and not bool(draft.valid[0, node]):
            continue
        path, at = [], node + 1
        while at:
            path.append(int(ids[at - 1]))
            at = int(parent[at - 1])
        found.append(tuple(path[::-1]))
    return found


@jax.jit
def merge_all(one: Draft, two: Draft, weights: jax.Array):
    both = join([one, two], [0, 1])
    hashes = path_hash(both, DEPTH)
    first, same = representatives(hashes, both.valid)
    likely = jnp.max(jnp.where(same, weights[:, None, :], 0.0), axis=2)
    return both, hashes, best_nodes(both, first, likely, 2 * NODES), best_nodes(both, first, likely, 5)


@given(st.integers(0, 10_000))
def test_a_merged_tree_has_every_path_once(seed: int) -> None:
    one, two = random_draft(seed), random_draft(seed + 1)
    depth = np.concatenate([one.depth[0], two.depth[0]])
    both, hashes, everything, five = merge_all(one, two, jnp.asarray(0.5**depth, jnp.float32)[None])
    expected = paths_of(both)
    assert sorted(set(expected)) == sorted(paths_of(everything))
    for path, value in zip(expected, np.asarray(hashes[0]), strict=True):
        assert int(prefix_hash(jnp.asarray([path], jnp.int32))[0, -1]) == int(value)
    kept = paths_of(five)
    shortest = sorted(map(len, set(expected)))[: len(kept)]
    assert sorted(map(len, kept)) == shortest  # the most probable ones, which here are the shallowest
    parent = np.asarray(five.parent[0])
    assert (parent <= np.arange(len(parent))).all()  # parents precede children
    assert (np.diff(np.asarray(five.gain[0])) <= 0).all()


@given(st.integers(0, 10_000))
def test_agreement_counts_the_other_drafters_of_a_path(seed: int) -> None:
    three = [random_draft(seed + number) for number in range(3)]
    both = join(three, [0, 1, 2])
    valid = jnp.asarray(np.random.default_rng(seed).random((1, 3 * NODES)) < 0.8)
    both = both._replace(valid=both.valid & valid)
    _, same = representatives(path_hash(both, DEPTH), both.valid)
    parts = tuple(drafters.suffix(width=NODES, rows=1) for _ in three)
    counted = np.asarray(drafters.mix(*parts, budget=5)._agreement(same))[0]
    paths = paths_of(both, only_valid=False)
    for node, path in enumerate(paths):
        if both.valid[0, node]:
            same_path = [other // NODES for other in range(3 * NODES) if paths[other] == path and both.valid[0, other]]
            assert counted[node] == len(set(same_path)) - 1


@given(st.integers(0, 10_000))
def test_candidates_that_came_true(seed: int) -> None:
    draft = random_draft(seed)
    rng = np.random.default_rng(seed)
    said, accepted = rng.integers(0, 2, DEPTH + 1), int(rng.integers(0, 4))
    nothing = jnp.zeros((1, DEPTH + 1), jnp.int32)
    verdict = Verdict(
        jnp.asarray([accepted], jnp.int32), nothing, jnp.asarray(said[None], jnp.int32), nothing, nothing[..., None]
    )
    trial, success = came_true(draft, verdict, jnp.asarray([True]), DEPTH)
    known = tuple(said[: accepted + 1].tolist())
    for node, path in enumerate(paths_of(draft)):
        in_reach = len(path) <= len(known)
        assert bool(trial[0, node]) == (in_reach and path[:-1] == known[: len(path) - 1])
        assert bool(success[0, node]) == (in_reach and path == known[: len(path)])
    idle = came_true(draft, verdict, jnp.asarray([False]), DEPTH)
    assert not idle[0].any() and not idle[1].any()


def prompts_of(count: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 7, rng.integers(1, 40)).tolist() for _ in range(count)]


PARTS = (drafters.context_ngram(width=6, query=1), drafters.context_ngram(width=6), drafters.context_ngram(width=3))
MIXES = {
    "all nodes": drafters.mix(*PARTS, budget=15),
    "few nodes": drafters.mix(*PARTS, budget=4),
    "widths": drafters.mix(*PARTS, budget=8, widths=(0, 2, 8)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_mix_is_lossless(name: str, lanes: int, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))
    prompts = prompts_of(6)
    out = jaxspec.generate(LM, prompts, drafter=MIXES[name], max_new_tokens=24, lanes=lanes, cache=128)
    assert out.ids == [greedy_continuation(LM, prompt, 24) for prompt in prompts]
    settings = dict(max_new_tokens=24, temperature=1.5, seed=list(range(6)), cache=128)
    plain = jaxspec.generate(LM, prompts, **settings)
    drafted = jaxspec.generate(LM, prompts, drafter=MIXES[name], lanes=lanes, **settings)
    assert drafted.ids == plain.ids


@pytest.mark.slow
def test_a_mix_is_no_worse_than_its_best_part() -> None:
    prompts = prompts_of(12)
    calls = {
        name: jaxspec.generate(LM, prompts, drafter=drafter, max_new_tokens=40, cache=128).statistics.target_calls
        for name, drafter in {"mix": MIXES["all nodes"], "one": PARTS[0], "three": PARTS[1]}.items()
    }
    assert calls["mix"] <= min(calls["one"], calls["three"])


def gains(values: list[float]) -> tuple[Draft, Context]:
    draft = random_draft(0)._replace(gain=jnp.asarray([values]))
    ones = jnp.ones((1,), jnp.int32)
    return draft, Context(ones[:, None], ones, ones, ones.astype(jnp.uint32), jnp.asarray([True]))


@pytest.mark.parametrize(
    ("gain", "seconds", "width"),
    [
        ([0.9] * 9, [1.0, 1.0, 1.0], 9),
        ([0.9] * 9, [1.0, 2.0, 9.5], 3),  # 1 / 1, 3.7 / 2, 9.1 / 9.5 tokens a second
        ([0.01] * 9, [1.0, 1.1, 1.5], 0),
        ([0.5] * 9, [1.0, np.inf, 100.0], 0),
    ],
)
def test_the_width_with_the_most_tokens_a_second(gain: list[float], seconds: list[float], width: int) -> None:
    widths = (0, 3, 9)
    chosen = choose_width(*gains(gain), widths, jnp.asarray(seconds))
    assert widths[int(chosen)] == width


def test_a_prior_in_lists_is_kept_as_tuples() -> None:
    """A drafter is a static argument, and is hashed with all it holds."""
    listed = [[[[0.5]]], [[[0.5, np.float32(0.25)]], [[0.5], [0.75]]]]
    mixed = drafters.mix(*PARTS[:2], budget=4, prior=listed)
    same = drafters.mix(*PARTS[:2], budget=4, prior=((((0.5,),),), (((0.5, 0.25),), ((0.5,), (0.75,)))))
    assert mixed == same and hash(mixed) == hash(same) and repr(mixed) == repr(same)


def test_costs_are_measured_once_and_kept(tmp_path, monkeypatch) -> None:
    from jaxspec.engine import cost
    from jaxspec.engine.job import build_job
    from jaxspec.engine.request import Request

    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))
    job = build_job(LM, [Request((1, 2), 9, 0.0, 0, 1.0, 0.0, 1.0, 0)], MIXES["widths"], cache=128)
    measured = cost.with_costs(job)
    assert measured.inputs.step_seconds.shape == (3,) and (np.asarray(measured.inputs.step_seconds) > 0).all()
    monkeypatch.setattr(cost, "measure", lambda job: pytest.fail("measured again"))
    again = cost.with_costs(job)
    np.testing.assert_array_equal(again.inputs.step_seconds, measured.inputs.step_seconds)
    plain = build_job(LM, [Request((1, 2), 9, 0.0, 0, 1.0, 0.0, 1.0, 0)], PARTS[0], cache=128)
    assert cost.with_costs(plain) is plain


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((), {}, "at least one drafter"),
        (PARTS, {"budget": 0}, "budget=0 is not between 1 and 15"),
        (PARTS, {"budget": 16}, "budget=16 is not between 1 and 15"),
        (PARTS, {"budget": 8, "widths": (4, 2, 8)}, "must ascend"),
        (PARTS, {"budget": 8, "widths": (2, 4)}, "to the budget of 8"),
        (PARTS, {"budget": 8, "widths": (-1, 8)}, "must ascend from 0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(arguments, settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drafters.mix(*arguments, **settings)
