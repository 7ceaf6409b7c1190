"""Successors of tokens and of pairs against dictionaries, and trees that read them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.bigram_tree import BigramTree
from jaxspec.drafters.successors import Successors, find, initial, learned, pair_hash
from jaxspec.drafters.token_recycling import CLASSES, token_recycling

V, R, WRITES = 9, 3, 12
TEMPLATE = ((0,), (1,), (2,), (0, 0), (0, 1), (2, 0), (0, 1, 0), (0, 1, 2), (0, 1, 0, 0))  # by depth
learn = jax.jit(learned)


def random_table(rng: np.random.Generator) -> np.ndarray:
    return np.stack([rng.permutation(V)[:R] for _ in range(V)]).astype(np.int32)


def random_writes(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "before": rng.integers(-1, V, WRITES).astype(np.int32),
        "token": rng.integers(0, V, WRITES).astype(np.int32),
        "successors": np.stack([rng.permutation(V)[:R] for _ in range(WRITES)]).astype(np.int32),
        "order": rng.permutation(WRITES).astype(np.int32),
        "wanted": rng.random(WRITES) < 0.7,
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 1024]))
def test_what_is_found_is_what_was_learned_last(seed: int, buckets: int) -> None:
    rng = np.random.default_rng(seed)
    single = random_table(rng)
    table, pairs = initial(jnp.asarray(single), buckets), {}
    for _ in range(4):
        writes = random_writes(rng)
        table = learn(table, **{name: jnp.asarray(value) for name, value in writes.items()})
        for index in np.argsort(-writes["order"]):  # the lowest order last
            if writes["wanted"][index]:
                before, token = int(writes["before"][index]), int(writes["token"][index])
                single[token] = writes["successors"][index]
                bucket = int(pair_hash(jnp.int32(before), jnp.int32(token))) % buckets
                pairs[bucket] = ((before, token), writes["successors"][index])
    np.testing.assert_array_equal(table.single, single)
    before, token, rank = (x.ravel() for x in np.meshgrid(np.arange(-1, V), np.arange(V), np.arange(R)))
    ids, of_pair = jax.jit(find)(table, jnp.asarray(before), jnp.asarray(token), jnp.asarray(rank))
    held = {pair: successors for pair, successors in pairs.values()}
    for b, t, r, found, seen in zip(before, token, rank, np.asarray(ids), np.asarray(of_pair), strict=True):
        assert bool(seen) == ((b, t) in held)
        assert found == (held[b, t][r] if seen else single[t, r])


def test_pairs_have_hashes_of_their_own() -> None:
    before, token = (jnp.asarray(x.ravel()) for x in np.meshgrid(np.arange(-1, 300), np.arange(300)))
    hashes = np.asarray(pair_hash(before, token))
    assert len(np.unique(hashes)) == len(hashes) and (hashes > 0).all()
    assert len(np.unique(hashes % 1024)) == 1024


def text_context(tokens: list[list[int]]) -> Context:
    """Lanes that end with their last token."""
    length = jnp.asarray([len(row) for row in tokens], jnp.int32)
    padded = np.zeros((len(tokens), max(map(len, tokens)) + 2), np.int32)
    for lane, row in enumerate(tokens):
        padded[lane, : len(row)] = row
    return Context(jnp.asarray(padded), length, length, length.astype(jnp.uint32), length > 0)


@functools.partial(jax.jit, static_argnames=("drafter",))
def propose(drafter, params, state, context: Context) -> Draft:
    return drafter.propose(params, state, context)[0]


@pytest.mark.parametrize("shared", [True, False])
def test_a_tree_prefers_what_follows_the_pair(shared: bool) -> None:
    drafter = token_recycling(R, template=TEMPLATE, start="empty", shared=shared, pairs=1024)
    rng = np.random.default_rng(3)
    single = random_table(rng)
    writes = random_writes(rng) | {"wanted": np.ones(WRITES, bool)}
    table = learn(initial(jnp.asarray(single), 1024), **{name: jnp.asarray(value) for name, value in writes.items()})
    held = {}
    for index in np.argsort(-writes["order"]):
        held[int(writes["before"][index]), int(writes["token"][index])] = writes["successors"][index]
    first = int(writes["token"][0])
    texts = [[int(max(writes["before"][0], 0)), first], [first], [5, 3, 2]]
    state = table if shared else Successors(*(jnp.stack([x] * len(texts)) for x in table))
    draft = propose(drafter, (), state, text_context(texts))
    hits = 0
    for lane, text in enumerate(texts):
        known = {(): ([-1, *text][-2], text[-1])}
        for node, path in enumerate(TEMPLATE):
            before, token = known[path[:-1]]
            pair = held.get((before, token))
            expected = (table.single[token] if pair is None else pair)[path[-1]]
            hits += pair is not None
            assert int(draft.ids[lane, node]) == int(expected) and bool(draft.valid[lane, node])
            assert int(draft.evidence[lane, node]) == path[-1] + (0 if pair is None else CLASSES)
            known[path] = (token, int(expected))
    assert hits > 1


def test_nodes_teach_the_pair_they_end() -> None:
    """The root is behind the text's last but one token, every other node behind its parent."""
    drafter = token_recycling(R, template=TEMPLATE, start="empty", pairs=1024)
    context = text_context([[7, 1]])
    row = functools.partial(jnp.asarray, dtype=jnp.int32)
    ids, parent, depth = row([[2, 3, 2]]), row([[0, 0, 1]]), row([[1, 1, 2]])
    draft = Draft(ids, parent, depth, jnp.zeros_like(ids), jnp.ones(ids.shape, bool), jnp.zeros_like(ids))
    top = row([[[0, 1, 2], [3, 4, 5], [6, 7, 8], [8, 0, 4]]])
    nothing = jnp.zeros((1, 4), jnp.int32)
    verdict = Verdict(row([1]), row([[0, 1, 0, 0]]), nothing, nothing, top)
    state = drafter.init(jnp.full((V, R), -1, jnp.int32), context)
    after = jax.jit(drafter.observe)((), state, context, draft, verdict)
    for before, token, expected in ((7, 1, [0, 1, 2]), (1, 2, [3, 4, 5]), (1, 3, [6, 7, 8]), (2, 2, [8, 0, 4])):
        for rank in range(R):
            found = find(after, row([before]), row([token]), row([rank]))
            assert int(found[0][0]) == expected[rank] and bool(found[1][0])
    assert int(find(after, row([4]), row([2]), row([0]))[0][0]) == 3  # of both nodes the accepted one
    assert not bool(find(after, row([4]), row([2]), row([0]))[1][0])


def test_the_bigrams_tree_is_the_models_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))
    lm = toy_model(0)
    drafter = BigramTree(R, TEMPLATE, "none")
    table = np.asarray(drafter.prepare(lm))
    draft = propose(drafter, jnp.asarray(table), (), text_context([[4, 1], [6]]))
    for lane, root in enumerate([1, 6]):
        known = {(): root}
        for node, path in enumerate(TEMPLATE):
            known[path] = int(table[known[path[:-1]], path[-1]])
            assert int(draft.ids[lane, node]) == known[path] and int(draft.evidence[lane, node]) == path[-1]


@pytest.mark.parametrize(("temperature", "lanes"), [(0.0, 3), pytest.param(1.5, 1, marks=pytest.mark.slow)])
def test_ids_equal_plain_ids_with_pairs(temperature: float, lanes: int) -> None:
    lm, rng = toy_model(0), np.random.default_rng(lanes)
    prompts = [rng.integers(0, 7, rng.integers(1, 70)).tolist() for _ in range(5)]
    options = dict(max_new_tokens=24, temperature=temperature, seed=list(range(5)), lanes=lanes, cache=128)
    drafter = token_recycling(4, 16, start="empty", shared=lanes == 3, pairs=64)
    drafted = jaxspec.generate(lm, prompts, drafter=drafter, **options)
    if temperature:
        assert drafted.ids == jaxspec.generate(lm, prompts, **options).ids
    else:
        assert drafted.ids == [greedy_continuation(lm, prompt, 24) for prompt in prompts]
