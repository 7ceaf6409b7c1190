"""The window's mask against the published one, the pool against a dictionary of rings, n-grams against their making."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.loop import run_slice
from jaxspec.decode.tree import tree_of
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.lookahead import _bucket, _insert, lookahead

NEW = 24
EVERY_OTHER = [pytest.param(0.0, 1, marks=pytest.mark.slow), pytest.param(1.5, 3, marks=pytest.mark.slow)]
W, N, G, H = 4, 4, 3, 8
DRAFTER = lookahead(W, N, G, H)
ROOMY = lookahead(W, N, G, 1024)  # where no bucket is shared
COLUMNS = G * (N - 1)  # first node of the window


def context_of(rows: list[list[int]], live: list[bool] | None = None) -> Context:
    tokens = np.full((len(rows), 16), 99)
    for lane, row in enumerate(rows):
        tokens[lane, : len(row)] = row
    length = jnp.asarray([len(row) for row in rows], jnp.int32)
    alive = jnp.ones((len(rows),), bool) if live is None else jnp.asarray(live)
    return Context(jnp.asarray(tokens, jnp.int32), length, length, length.astype(jnp.uint32), alive)


@functools.partial(jax.jit, static_argnames=("drafter",))
def propose(drafter, state, context: Context) -> Draft:
    return drafter.propose((), state, context)[0]


@functools.partial(jax.jit, static_argnames=("drafter",))
def observe(drafter, state, context: Context, draft: Draft, verdict: Verdict):
    return drafter.observe((), state, context, draft, verdict)


@functools.partial(jax.jit, static_argnames=("drafter",))
def admitted(context: Context, drafter=DRAFTER):
    return drafter.admit((), drafter.init((), context), context, jnp.ones_like(context.live))


def bucket_of(token: int) -> int:
    return int(_bucket(jnp.asarray(token), H))


def answers(draft: Draft, known: dict) -> np.ndarray:
    """What a target says after every block node of lane 0: a new token for every path it has not seen yet."""
    paths = [()]
    for token, parent in zip(np.asarray(draft.ids[0]).tolist(), np.asarray(draft.parent[0]).tolist(), strict=True):
        paths.append((*paths[parent], token))
    return np.array([known.setdefault(path, 100 + len(known)) for path in paths])


def verdict_of(chosen: np.ndarray) -> Verdict:
    lanes = chosen.shape[0]
    nothing = jnp.zeros((lanes,), jnp.int32)
    path = jnp.zeros((lanes, DRAFTER.depth + 1), jnp.int32)
    return Verdict(nothing, path, path, jnp.asarray(chosen, jnp.int32), jnp.zeros((*chosen.shape, 0), jnp.int32))


@pytest.mark.parametrize("sizes", [(4, 4, 3), (1, 3, 2), (7, 5, 7)])
def test_the_ancestors_are_the_published_mask(sizes: tuple[int, int, int]) -> None:
    """Level 0 is causal; a later level sees level 0 up to its column, and its column's levels before it."""
    window, ngram, guesses = sizes
    drafter = lookahead(*sizes, 8)
    context = context_of([[1, 2, 3]])
    draft = propose(drafter, drafter.init((), context), context)
    assert drafter.nodes + 1 == (ngram - 1) * (window + guesses)
    assert int(draft.depth.max()) == drafter.depth
    # (level, column) of every block node, the root being column 0 of level 0; guesses have their row as column
    place = [(0, 0)]
    place += [(-1 - step, guess) for guess in range(guesses) for step in range(ngram - 1)]
    place += [(0, column) for column in range(1, window)]
    place += [(level, column) for level in range(1, ngram - 1) for column in range(window)]

    def sees(query: tuple[int, int], key: tuple[int, int]) -> bool:
        if key == (0, 0):
            return True
        if query[0] < 0 or key[0] < 0:
            return query[0] <= key[0] < 0 and key[1] == query[1]
        return key[1] <= query[1] if key[0] == 0 else key[0] <= query[0] and key[1] == query[1]

    expected = [[sees(query, key) for key in place] for query in place]
    tree = tree_of(context.root, draft, drafter.depth)
    np.testing.assert_array_equal(tree.ancestors[0], expected)
    position = [-level if level < 0 else level + column for level, column in place]
    np.testing.assert_array_equal(tree.depth[0], position)


def test_a_columns_levels_and_its_end_become_an_ngram() -> None:
    """Played with a target that says a new token after every path, so that all tokens can be traced."""
    context = context_of([[1, 2, 3], [4, 5]], [True, False])
    state = admitted(context, ROOMY)
    assert set(np.unique(state.window[0])) <= {1, 2, 3} and set(np.unique(state.window[1])) <= {4, 5}
    idle = jax.tree.map(lambda leaf: np.asarray(leaf[1]), state)
    said, known = [], {}
    for step in range(N + 1):
        draft = propose(ROOMY, state, context)
        chosen = answers(draft, known)[None].repeat(2, axis=0)
        said.append(chosen[0, -W:])
        state = observe(ROOMY, state, context, draft, verdict_of(chosen))
        np.testing.assert_array_equal(state.window[0, -1], said[-1])
        pool = {tuple(gram) for gram in np.asarray(state.pool[0]).reshape(-1, N).tolist() if gram[0] >= 0}
        expected = set()
        for now in range(N - 2, step + 1):  # the root's column needs all levels but its own told, the others that too
            for column in range(W):
                if column == 0:
                    expected.add((3, *(int(said[s][0]) for s in range(now - N + 2, now + 1))))
                elif now >= N - 1:
                    expected.add(tuple(int(said[s][column]) for s in range(now - N + 1, now + 1)))
        assert pool == expected
    jax.tree.map(lambda leaf, old: np.testing.assert_array_equal(leaf[1], old), state, idle)
    guess = propose(ROOMY, state, context)
    assert guess.valid[0, :COLUMNS].all() and not guess.valid[1, :COLUMNS].any()
    assert guess.ids[0, : N - 1].tolist() == [int(said[step][0]) for step in range(2, 5)]  # the newest


def test_columns_that_were_not_verified_stay() -> None:
    context = context_of([[1, 2, 3]])
    state = admitted(context)
    # All tokens different, as paths are told apart by them.
    state = state._replace(window=jnp.arange(10, 10 + (N - 1) * W, dtype=jnp.int32).reshape(1, N - 1, W))
    draft = propose(DRAFTER, state, context)
    chosen = np.arange(DRAFTER.nodes + 1)[None]
    cut = observe(DRAFTER, state, context, draft, verdict_of(np.where(chosen < DRAFTER.nodes, chosen, -1)))
    np.testing.assert_array_equal(cut.window[0, :, -1], state.window[0, :, -1])
    assert (np.asarray(cut.told[0, -1]) == [True, True, True, False]).all()
    # Another order of nodes, as a mix makes it: the columns are found where they are.
    order = jnp.asarray([*range(COLUMNS, DRAFTER.nodes), *range(COLUMNS)])
    place = jnp.zeros((DRAFTER.nodes + 1,), jnp.int32).at[order + 1].set(jnp.arange(1, DRAFTER.nodes + 1))
    moved = jax.tree.map(lambda field: field[:, order], draft)
    moved = moved._replace(parent=place[moved.parent])
    said = np.concatenate([[0], np.asarray(order) + 1])[None]
    again = observe(DRAFTER, state, context, moved, verdict_of(said))
    whole = observe(DRAFTER, state, context, draft, verdict_of(chosen))
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_the_pool_is_a_ring_for_every_bucket() -> None:
    rng = np.random.default_rng(0)
    pool, count = jnp.full((H, G, N), -1, jnp.int32), jnp.zeros((H,), jnp.int32)
    rings: dict[int, list] = {bucket: [] for bucket in range(H)}
    insert = jax.jit(_insert)
    for _ in range(40):
        grams, wanted = rng.integers(0, 2, (W, N)), rng.random(W) < 0.8
        grams[:, 0] = rng.integers(0, 12, W)
        pool, count = insert(pool, count, jnp.asarray(grams, jnp.int32), jnp.asarray(wanted))
        before = {bucket: list(ring[-G:]) for bucket, ring in rings.items()}
        new: dict[int, list] = {bucket: [] for bucket in range(H)}
        for gram in grams[wanted].tolist():
            bucket = bucket_of(gram[0])
            if gram not in before[bucket] and gram not in new[bucket] and len(new[bucket]) < G:
                new[bucket].append(gram)
        for bucket in range(H):
            rings[bucket] += new[bucket]
            assert int(count[bucket]) == len(rings[bucket])
            held = np.asarray(pool[bucket])
            for back, gram in enumerate(rings[bucket][::-1][:G]):
                assert held[(len(rings[bucket]) - 1 - back) % G].tolist() == gram


def test_guesses_begin_after_the_root_only() -> None:
    context = context_of([[5], [6]])
    state = admitted(context)
    collision = next(t for t in range(100) if t != 6 and bucket_of(t) == bucket_of(6))
    grams = jnp.asarray([[[6, 1, 2, 3], [6, 4, 5, 6]], [[6, 1, 2, 3], [collision, 7, 8, 9]]], jnp.int32)
    pool, count = jax.vmap(_insert)(state.pool, state.count, grams, jnp.ones((2, 2), bool))
    draft = propose(DRAFTER, state._replace(pool=pool, count=count), context)
    valid = np.asarray(draft.valid[:, :COLUMNS]).reshape(2, G, N - 1)
    assert not valid[0].any()  # lane 0 asks for 5
    assert valid[1].all(axis=1).sum() == 1 and draft.ids[1, 3:6].tolist() == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "lanes"), [(0.0, 3), (1.5, 1), *EVERY_OTHER])
def test_ids_equal_plain_ids(temperature: float, lanes: int) -> None:
    lm, rng = toy_model(0), np.random.default_rng(lanes)
    prompts = [rng.integers(0, 7, rng.integers(1, 70)).tolist() for _ in range(5)]
    options = dict(max_new_tokens=NEW, temperature=temperature, seed=list(range(5)), lanes=lanes, cache=128)
    drafted = jaxspec.generate(lm, prompts, drafter=DRAFTER, **options)
    if temperature:
        assert drafted.ids == jaxspec.generate(lm, prompts, **options).ids
    else:
        assert drafted.ids == [greedy_continuation(lm, prompt, NEW) for prompt in prompts]
        assert drafted.statistics.tokens_per_call > 1.5
        assert drafted.statistics.by_source["lookahead"][1] > 0
    compiled = run_slice._cache_size()
    again = jaxspec.generate(lm, prompts, drafter=DRAFTER, **options)
    assert again.statistics == drafted.statistics and run_slice._cache_size() == compiled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window=0 is below 1"),
        ({"guesses": 0}, "guesses=0 is below 1"),
        ({"buckets": 0}, "buckets=0 is below 1"),
        ({"ngram": 2}, "ngram=2 is below 3"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lookahead(**options)


def test_equal_settings_are_equal_drafters() -> None:
    assert lookahead() == lookahead(7, 5, 7) and hash(lookahead()) == hash(lookahead()) and lookahead() != DRAFTER
