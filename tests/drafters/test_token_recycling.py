"""The template's tree against a walk of the table, and what verified nodes teach it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.loop import run_slice
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.rank_template import likeliest_template
from jaxspec.drafters.successors import Successors
from jaxspec.drafters.token_recycling import token_recycling

V, R, NEW = 9, 3, 24
EVERY_OTHER = [pytest.param(0.0, 1, marks=pytest.mark.slow), pytest.param(1.5, 3, marks=pytest.mark.slow)]
TEMPLATE = ((0,), (1,), (2,), (0, 0), (0, 1), (2, 0), (0, 1, 2), (0, 1, 0), (0, 1, 0, 0))
DRAFTER = token_recycling(R, template=TEMPLATE, start="empty")
LANES = token_recycling(R, template=TEMPLATE, start="empty", shared=False)
TEMPLATES = {nodes: likeliest_template(nodes, 8) for nodes in (8, 16, 32, 64, 80)}


def context_of(roots: list[int], live: list[bool] | None = None) -> Context:
    lanes = len(roots)
    ones = jnp.ones((lanes,), jnp.int32)
    alive = jnp.ones((lanes,), bool) if live is None else jnp.asarray(live)
    return Context(jnp.asarray(roots, jnp.int32)[:, None], ones, ones, ones.astype(jnp.uint32), alive)


def singles(table, lanes: int = 0) -> Successors:
    """A table without pairs, for each of `lanes` if not 0."""
    front = (lanes,) if lanes else ()
    return Successors(jnp.asarray(table), jnp.zeros((*front, 0, R), jnp.int32), jnp.zeros((*front, 0), jnp.uint32))


@functools.partial(jax.jit, static_argnames=("drafter",))
def propose(drafter, state: Successors, context: Context) -> Draft:
    return drafter.propose((), state, context)[0]


@functools.partial(jax.jit, static_argnames=("drafter",))
def observe(drafter, state: Successors, context: Context, draft: Draft, verdict: Verdict) -> Successors:
    return drafter.observe((), state, context, draft, verdict)


def random_table(rng: np.random.Generator, unknown: float = 0.2) -> np.ndarray:
    table = np.stack([rng.permutation(V)[:R] for _ in range(V)])
    table[rng.random(V) < unknown] = -1
    return table.astype(np.int32)


def walk(table: np.ndarray, root: int) -> dict[tuple[int, ...], int]:
    """Token of every template path the table can follow, breadth first."""
    known = {(): root}
    for path in sorted(TEMPLATE, key=len):
        if path[:-1] in known and table[known[path[:-1]], path[-1]] >= 0:
            known[path] = int(table[known[path[:-1]], path[-1]])
    return known


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_drafts_equal_a_walk_of_the_template(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, roots = random_table(rng), rng.integers(0, V, 2).tolist()
    draft = propose(DRAFTER, singles(table), context_of(roots))
    own = propose(LANES, singles(np.stack([table, table]), 2), context_of(roots))
    jax.tree.map(np.testing.assert_array_equal, own, draft)
    for lane, root in enumerate(roots):
        known = walk(table, root)
        paths = [()]
        for node in range(DRAFTER.nodes):
            path = (*paths[draft.parent[lane, node]], int(draft.evidence[lane, node]))
            paths.append(path)
            assert draft.depth[lane, node] == len(path)
            assert bool(draft.valid[lane, node]) == (path in known)
            assert draft.ids[lane, node] == known.get(path, 0)
        assert sorted(paths[1:]) == sorted(TEMPLATE)


@pytest.mark.parametrize("nodes", TEMPLATES)
def test_templates_are_trees_of_the_likeliest_paths(nodes: int) -> None:
    template = TEMPLATES[nodes]
    assert len(set(template)) == nodes and list(template) == sorted(template, key=lambda path: (len(path), path))
    assert all(path[:-1] in template for path in template if len(path) > 1)
    assert all((*path[:-1], path[-1] - 1) in template for path in template if path[-1] > 0)
    assert all(set(TEMPLATES[smaller]) <= set(template) for smaller in TEMPLATES if smaller < nodes)
    assert token_recycling(8, nodes, start="empty").nodes == nodes
    assert likeliest_template(nodes, 8) == template


def random_block(rng: np.random.Generator, lanes: int) -> tuple[Context, Draft, Verdict]:
    """A tree of few tokens, so that they repeat, with an accepted path and opinions."""
    nodes = 7
    parent = np.array([[rng.integers(0, node + 1) for node in range(nodes)] for _ in range(lanes)])
    depth = np.zeros((lanes, nodes + 1), int)
    for lane in range(lanes):
        for node in range(nodes):
            depth[lane, node + 1] = depth[lane, parent[lane, node]] + 1
    path = np.zeros((lanes, nodes + 1), int)
    accepted = np.zeros(lanes, int)
    for lane in range(lanes):
        node = int(rng.integers(0, nodes + 1))
        accepted[lane] = depth[lane, node]
        while node:
            path[lane, depth[lane, node]] = node
            node = parent[lane, node - 1]
    top = np.argsort(rng.random((lanes, nodes + 1, V)), axis=2)[:, :, : R + 1]
    top[:, -1] = -1  # not verified
    valid = rng.random((lanes, nodes)) < 0.9
    integers = functools.partial(jnp.asarray, dtype=jnp.int32)
    ids = integers(rng.integers(0, 4, (lanes, nodes)))
    zeros = jnp.zeros_like(ids)
    draft = Draft(ids, integers(parent), integers(depth[:, 1:]), zeros, jnp.asarray(valid), zeros)
    verdict = Verdict(integers(accepted), integers(path), integers(path), integers(path), integers(top))
    context = context_of(rng.integers(0, 4, lanes).tolist(), (rng.random(lanes) < 0.7).tolist())
    return context, draft, verdict


def taught(table: np.ndarray, context: Context, draft: Draft, verdict: Verdict, lanes: list[int], updates: str):
    """The table after `lanes`: of nodes with one token the best by lane, acceptance, depth, place."""
    candidates = []
    for lane in lanes:
        if not context.live[lane]:
            continue
        on_path = set(np.asarray(verdict.path[lane, : int(verdict.accepted[lane]) + 1]).tolist())
        for node in range(draft.ids.shape[1] + 1):
            token = int(context.tokens[lane, 0]) if node == 0 else int(draft.ids[lane, node - 1])
            depth = 0 if node == 0 else int(draft.depth[lane, node - 1])
            top = np.asarray(verdict.top[lane, node, :R])
            usable = (node == 0 or bool(draft.valid[lane, node - 1])) and (top >= 0).all()
            if usable and (updates == "all" or node in on_path):
                candidates.append(((lane, node not in on_path, depth, node), token, top))
    table = table.copy()
    for _, token, top in sorted(candidates, key=lambda candidate: candidate[0], reverse=True):
        table[token] = top
    return table


@pytest.mark.parametrize("updates", ["all", "path"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_table_learns_by_the_rule(shared: bool, updates: str) -> None:
    drafter = token_recycling(R, template=TEMPLATE, start="empty", shared=shared, updates=updates)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        lanes = 3
        context, draft, verdict = random_block(rng, lanes)
        table = random_table(rng)
        before = singles(table) if shared else singles(np.stack([table] * lanes), lanes)
        after = observe(drafter, before, context, draft, verdict).single
        np.testing.assert_array_equal(observe(drafter, before, context, draft, verdict).single, after)
        if shared:
            np.testing.assert_array_equal(after, taught(table, context, draft, verdict, [0, 1, 2], updates))
        else:
            for lane in range(lanes):
                np.testing.assert_array_equal(after[lane], taught(table, context, draft, verdict, [lane], updates))


def test_a_table_of_ones_own_is_renewed_with_every_request() -> None:
    start = jnp.asarray(random_table(np.random.default_rng(0)))
    own, one = (dataclasses.replace(drafter, pairs=4) for drafter in (LANES, DRAFTER))
    state = own.init(start, context_of([1, 2]))
    assert state.single.shape == (2, V, R) and state.pair.shape == (2, 4, R) and state.holder.shape == (2, 4)
    fresh = jnp.asarray([True, False])
    later = jax.tree.map(lambda x: x + 1, state)
    after = own.admit(start, later, context_of([1, 2]), fresh)
    for renewed, kept, begun in zip(after, later, state, strict=True):
        np.testing.assert_array_equal(renewed[0], begun[0])
        np.testing.assert_array_equal(renewed[1], kept[1])
    shared = one.init(start, context_of([1, 2]))
    assert one.admit(start, shared, context_of([1, 2]), fresh) is shared


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "lanes"), [(0.0, 3), (1.5, 1), *EVERY_OTHER])
def test_ids_equal_plain_ids(temperature: float, lanes: int) -> None:
    lm, rng = toy_model(0), np.random.default_rng(lanes)
    prompts = [rng.integers(0, 7, rng.integers(1, 70)).tolist() for _ in range(5)]
    options = dict(max_new_tokens=NEW, temperature=temperature, seed=list(range(5)), lanes=lanes, cache=128)
    drafter = token_recycling(4, 16, start="empty", shared=lanes == 3)
    drafted = jaxspec.generate(lm, prompts, drafter=drafter, **options)
    if temperature:
        assert drafted.ids == jaxspec.generate(lm, prompts, **options).ids
    else:
        assert drafted.ids == [greedy_continuation(lm, prompt, NEW) for prompt in prompts]
        assert drafted.statistics.tokens_per_call > 1.3
    compiled = run_slice._cache_size()
    again = jaxspec.generate(lm, prompts, drafter=drafter, **options)
    assert again.statistics == drafted.statistics and run_slice._cache_size() == compiled


def test_the_start_stays_as_prepared() -> None:
    """The loop consumes its state, which must not be the prepared table itself."""
    table = DRAFTER.prepare(toy_model(0))
    state = jax.jit(lambda params: DRAFTER.init(params, context_of([1])))(table)
    jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(state)
    assert (np.asarray(table) == -1).all() and table.shape == (7, R)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": 0}, "branches=0 is below 1"),
        ({"nodes": 0}, "nodes=0 is below 1"),
        ({"start": "zeros"}, "start='zeros' is not one of bigram, newline, empty"),
        ({"pairs": 5}, "pairs=5 is neither 0 nor a power of two; take 8 or 0"),
        ({"pairs": -1}, "pairs=-1 is neither 0 nor a power of two; take 2 or 0"),
        ({"updates": "none"}, "updates='none' is not one of all, path"),
        ({"template": ()}, "template is empty"),
        ({"template": ((0,), (0, 0, 0))}, r"\(0, 0, 0\) has no parent \(0, 0\)"),
        ({"template": ((0,), (0,))}, r"\(0,\) stands twice"),
        ({"template": ((), (0,))}, "is the root"),
        ({"template": ((8,),)}, "rank outside 0 to 7"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_recycling(**options)


def test_more_successors_than_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="branches=8 is above the model's vocabulary of 7"):
        token_recycling(8, start="empty").prepare(toy_model(0))


def test_equal_settings_are_equal_drafters() -> None:
    shuffled = token_recycling(R, template=TEMPLATE[::-1], start="empty")
    assert shuffled == DRAFTER and hash(shuffled) == hash(DRAFTER) and DRAFTER != LANES
