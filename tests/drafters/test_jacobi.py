"""Jacobi drafts against a plain Jacobi iteration, the pool against a walk, and all of it against plain decoding."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.loop import run_slice
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.drafters.context_ngram import context_ngram
from jaxspec.drafters.initial_tokens import initial_tokens
from jaxspec.drafters.jacobi import Jacobi, JacobiState, jacobi
from jaxspec.drafters.mix import mix
from jaxspec.drafters.suffix import suffix

NEW, V = 22, 7
VARIANTS = {
    "block": jacobi(5),
    "rolling": jacobi(5, "rolling"),
    "vocabulary": jacobi(6, "rolling", "vocabulary"),
    "repeat": jacobi(4, init="repeat"),
    "pair": jacobi(2),
    "recycled": jacobi(5, recycle=2, pool=4),
    "recycled rolling": jacobi(4, "rolling", "vocabulary", recycle=3),
    "two blocks": jacobi(5, blocks=2, spawn=0.4),
    "two blocks recycled": jacobi(4, "block", "vocabulary", recycle=1, blocks=2, spawn=0.5),
    "mix": mix(jacobi(5, "rolling"), context_ngram(width=4), budget=6),
    "mix recycled": mix(jacobi(5, recycle=2), suffix(width=4), context_ngram(width=3), budget=9),
}


def quick(*names: str) -> list:
    """All variants, of which only some run every time: each is a program to compile."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]


@functools.lru_cache
def model() -> jaxspec.LanguageModel:
    return toy_model(0)


def random_prompts(count: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, rng.integers(1, 70)).tolist() for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("name", quick("two blocks recycled", "mix recycled"))
@pytest.mark.parametrize("lanes", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(8, marks=pytest.mark.slow)])
def test_ids_equal_the_models_own_continuation(name: str, lanes: int) -> None:
    prompts = random_prompts(8, lanes)
    out = jaxspec.generate(model(), prompts, drafter=VARIANTS[name], max_new_tokens=NEW, lanes=lanes, cache=128)
    assert out.ids == [greedy_continuation(model(), prompt, NEW) for prompt in prompts]
    assert all(1 <= part.target_calls <= NEW for part in out.statistics.per_prompt)
    assert 0 < out.statistics.by_source["jacobi"][1] <= out.statistics.accepted


@pytest.mark.slow
@pytest.mark.parametrize("name", quick("recycled rolling"))
@pytest.mark.parametrize(
    "extra", [{}, pytest.param({"top_k": 4, "top_p": 0.9, "repetition_penalty": 1.3}, marks=pytest.mark.slow)]
)
def test_samples_equal_plain_samples(name: str, extra: dict) -> None:
    prompts = random_prompts(8, 11)
    settings = dict(max_new_tokens=NEW, temperature=2.0, seed=list(range(8)), cache=128, **extra)
    plain = jaxspec.generate(model(), prompts, lanes=2, **settings)
    drafted = jaxspec.generate(model(), prompts, drafter=VARIANTS[name], lanes=8, **settings)
    assert drafted.ids == plain.ids


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("recycled", marks=pytest.mark.slow), "rolling"])
def test_every_end_of_a_text(name: str) -> None:
    drafter, prompts = VARIANTS[name], random_prompts(6, 6)
    free = [greedy_continuation(model(), prompt, NEW) for prompt in prompts]
    settings = dict(drafter=drafter, cache=128, lanes=3)
    for eos in range(V):
        out = jaxspec.generate(model(), prompts, max_new_tokens=NEW, stop_ids=[eos], **settings)
        assert out.ids == [ids[: ids.index(eos) + 1] if eos in ids else ids for ids in free]
    for limit in (1, 2, 7):
        out = jaxspec.generate(model(), prompts, max_new_tokens=limit, **settings)
        assert out.ids == [ids[:limit] for ids in free]
    texts = ["".join(chr(97 + token) for token in ids) for ids in free]
    for stop in (texts[0][3:5], texts[1][8:11]):
        out = jaxspec.generate(model(), prompts, max_new_tokens=NEW, stop=[stop], **settings)
        assert out.texts == [text.split(stop)[0] for text in texts]


@pytest.mark.parametrize("name", quick("block", "rolling")[:4])
def test_passes_are_those_of_a_plain_iteration(name: str) -> None:
    prompts, seeds = random_prompts(6, 2), [3, 1, 4, 1, 5, 9]
    out = jaxspec.generate(model(), prompts, drafter=VARIANTS[name], max_new_tokens=NEW, seed=seeds, lanes=3, cache=128)
    assert out.ids == [greedy_continuation(model(), prompt, NEW) for prompt in prompts]
    for prompt, seed, part in zip(prompts, seeds, out.statistics.per_prompt, strict=True):
        commits = plain_iteration(VARIANTS[name], prompt, seed)
        assert part.target_calls == len(commits)
        # The last call may say more than the limit lets stay.
        histogram = np.bincount([count - 1 for count in commits[:-1]], minlength=len(part.histogram))
        assert np.abs(histogram - part.histogram).sum() == 1


def plain_iteration(drafter: Jacobi, prompt: list[int], seed: int) -> list[int]:
    """Tokens every pass makes right, by iterating y <- f(y) in Python."""
    table = np.asarray(model().params["table"])
    context = context_of([prompt], seeds=[seed])
    size = len(prompt) + NEW + drafter.n
    drawn = np.asarray(initial_tokens(drafter.initial, context, jnp.arange(size)[None], jnp.int32(V)))[0].tolist()
    text, guess, commits = list(prompt), {}, []
    while len(text) < len(prompt) + NEW:
        left = drafter.n - (len(text) - len(prompt)) % drafter.n if drafter.mode == "block" else drafter.n
        start = [text[-1]] * size if drafter.initial == "repeat" else drawn
        read = text + [guess.get(at, start[at]) for at in range(len(text), len(text) + left - 1)]
        said = {}
        for at in range(len(text), len(text) + left):
            before = read[at - 2] if at >= 2 else 0
            said[at] = int(np.argmax(table[read[at - 1] + before * V]))
        right = 1
        while right < left and read[len(text) + right - 1] == said[len(text) + right - 1]:
            right += 1
        commits.append(right)
        text += [said[at] for at in range(len(text), len(text) + right)]
        guess = said
    assert text[len(prompt) :][:NEW] == greedy_continuation(model(), prompt, NEW)
    return commits


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("recycled rolling", marks=pytest.mark.slow), "two blocks recycled"])
def test_a_lane_does_not_depend_on_its_mates(name: str) -> None:
    prompts, seeds = random_prompts(5, 4), [0, 1, 2, 3, 4]
    settings = dict(drafter=VARIANTS[name], max_new_tokens=NEW, cache=128)
    one = jaxspec.generate(model(), prompts, seed=seeds, lanes=3, **settings)
    other = jaxspec.generate(model(), prompts[::-1], seed=seeds[::-1], lanes=1, **settings)
    assert one.statistics.per_prompt == other.statistics.per_prompt[::-1]
    compiled = run_slice._cache_size()
    again = jaxspec.generate(model(), prompts, seed=seeds[::-1], lanes=3, **settings)
    assert again.ids == one.ids and run_slice._cache_size() == compiled


def test_a_guess_that_is_right_is_said_in_one_pass() -> None:
    lm = toy_model(0, order=1)
    lm.params["table"] = jnp.asarray(np.eye(V)[np.full(V, 3)], jnp.float32)  # 3 after anything
    out = jaxspec.generate(lm, [3], drafter=jacobi(6, init="repeat"), max_new_tokens=24)
    assert out.statistics.tokens_per_call == 6.0
    out = jaxspec.generate(lm, [3], drafter=jacobi(6, init="repeat", blocks=2, spawn=0), max_new_tokens=24)
    assert out.statistics.tokens_per_call == 12.0


@pytest.mark.parametrize(("n", "wrong"), [(21, 0), (22, 3), (23, 12)])  # sizes of no other test: programs are kept
def test_every_right_guess_before_the_first_wrong_one_is_said_at_once(n: int, wrong: int, monkeypatch) -> None:
    lm, prompt = toy_model(0), [1, 4, 2]
    plain = jaxspec.generate(lm, prompt, max_new_tokens=n)
    guess = np.array(plain.ids[0][: n - 1])
    guess[len(guess) - wrong :] = (guess[len(guess) - wrong :] + 1) % V
    monkeypatch.setattr(
        sys.modules[type(jacobi()).__module__],  # jaxspec.drafters.jacobi is the function
        "initial_tokens",
        lambda initial, context, position, vocabulary: jnp.asarray(guess, jnp.int32)[position - len(prompt)],
    )
    out = jaxspec.generate(lm, prompt, drafter=jacobi(n), max_new_tokens=n)
    assert out.ids == plain.ids and out.statistics.target_calls <= wrong + 1


def test_a_model_that_counts_takes_a_pass_a_token() -> None:
    lm = toy_model(0, order=1)
    lm.params["table"] = jnp.asarray(np.eye(V)[(np.arange(V) + 1) % V], jnp.float32)
    for drafter in (jacobi(6, init="repeat"), jacobi(6, init="repeat", blocks=2, spawn=0)):
        out = jaxspec.generate(lm, [3], drafter=drafter, max_new_tokens=12)
        assert out.ids == [[(4 + i) % V for i in range(12)]]
        assert out.statistics.target_calls == 12 and out.statistics.accepted == 0


@pytest.mark.slow
def test_real_arithmetic() -> None:
    lm, rng = small_transformer(), np.random.default_rng(0)
    prompts = [rng.integers(0, 17, 9).tolist() for _ in range(3)]
    plain = jaxspec.generate(lm, prompts, max_new_tokens=40)
    assert jaxspec.generate(lm, prompts, drafter=jacobi(16), max_new_tokens=40).ids == plain.ids
    exact = jaxspec.generate(lm, prompts, drafter=jacobi(16, "rolling"), max_new_tokens=40, strict=True)
    assert exact.ids == jaxspec.generate(lm, prompts, max_new_tokens=40, strict=True).ids


# The drafter by itself: what it proposes, and what it makes of a verdict.


def context_of(rows: list[list[int]], seeds: list[int] | None = None, live: list[bool] | None = None) -> Context:
    tokens = np.full((len(rows), 96), 99)
    for lane, row in enumerate(rows):
        tokens[lane, : len(row)] = row
    length = jnp.asarray([len(row) for row in rows], jnp.int32)
    return Context(
        jnp.asarray(tokens, jnp.int32),
        length,
        length,
        jnp.asarray(np.array(seeds or [0] * len(rows), np.uint32)),
        jnp.asarray(live or [True] * len(rows)),
    )


@functools.partial(jax.jit, static_argnames=("drafter",))
def propose(drafter: Jacobi, state: JacobiState, context: Context) -> Draft:
    return drafter.propose(jnp.int32(100), state, context)[0]


@functools.partial(jax.jit, static_argnames=("drafter",))
def observe(drafter: Jacobi, state: JacobiState, context: Context, draft: Draft, verdict: Verdict) -> JacobiState:
    return drafter.observe(jnp.int32(100), state, context, draft, verdict)


def verdict_of(accepted: list[int], ids: list[list[int]], chosen: list[list[int]]) -> Verdict:
    said = jnp.asarray(chosen, jnp.int32)
    return Verdict(
        jnp.asarray(accepted, jnp.int32),
        jnp.zeros_like(said),
        jnp.asarray(ids, jnp.int32),
        said,
        jnp.zeros((*said.shape, 0), jnp.int32),
    )


def test_the_rest_of_an_iterate_is_the_next_chain() -> None:
    drafter = jacobi(5, "rolling")
    context = context_of([[1, 2, 3], [4, 5]], live=[True, False])
    state = drafter.init(jnp.int32(100), context)
    idle = jax.tree.map(lambda leaf: np.asarray(leaf[1]), state)
    first = propose(drafter, state, context)
    assert set(np.asarray(first.ids[0]).tolist()) <= {1, 2, 3} and set(np.asarray(first.ids[1]).tolist()) <= {4, 5}
    assert first.valid.all() and first.parent[0].tolist() == [0, 1, 2, 3] and first.depth[0].tolist() == [1, 2, 3, 4]
    a, _, c, d = np.asarray(first.ids[0]).tolist()
    # One node accepted, then 50 instead of the second; the target repeats the fourth node.
    said = [[a, 50, 51, d, 53]] * 2
    state = observe(drafter, state, context, first, verdict_of([1, 1], [said[0]] * 2, said))
    assert state.guess[0, :3].tolist() == [51, d, 53] and state.repeats[0].tolist() == [1, 2 if c == d else 1, 1, 0]
    jax.tree.map(lambda leaf, old: np.testing.assert_array_equal(leaf[1], old), state, idle)
    later = context_of([[1, 2, 3, a, 50], [4, 5]])._replace(prompt_length=jnp.asarray([3, 2], jnp.int32))
    second = propose(drafter, state, later)
    assert second.ids[0, :3].tolist() == [51, d, 53]
    assert int(second.ids[0, 3]) == int(initial_tokens("prompt", later, jnp.asarray([[8], [8]]), jnp.int32(100))[0, 0])


def test_what_stood_is_better_evidence() -> None:
    drafter = jacobi(5, "rolling")
    context = context_of([[1, 2, 3]])
    state = drafter.init(jnp.int32(100), context)._replace(
        guess=jnp.asarray([[10, 11, 12, 13]], jnp.int32), repeats=jnp.asarray([[1, 1, 3, 0]], jnp.int32)
    )
    draft = propose(drafter, state, context)
    assert draft.evidence.tolist() == [[1, 1, 3, 0]]
    said = [[20, 11, 12, 21, 22]]  # the node above repeats 11 and 12, and corrects 10
    state = observe(drafter, state, context, draft, verdict_of([0], said, said))
    assert state.guess.tolist() == [[11, 12, 21, 22]] and state.repeats.tolist() == [[2, 4, 1, 1]]


def test_nodes_that_were_not_verified_keep_their_guess() -> None:
    drafter = jacobi(5, "rolling")
    context = context_of([[1, 2, 3]])
    state = drafter.init(jnp.int32(100), context)._replace(
        guess=jnp.asarray([[10, 11, 12, 13]], jnp.int32), repeats=jnp.asarray([[1, 1, 3, 0]], jnp.int32)
    )
    draft = propose(drafter, state, context)
    said = np.array([[10, 30, 31, -1, -1]])  # the block was cut behind two nodes, of which one was right
    cut = draft._replace(valid=jnp.asarray([[True, True, False, False]]))
    after = observe(drafter, state, context, cut, verdict_of([1], said.tolist(), said.tolist()))
    assert after.guess[0, :1].tolist() == [31] and after.repeats.tolist() == [[1, 0, 0, 0]]
    # Among other drafters' nodes, in another order, and where one of them was accepted.
    joint = Draft(
        ids=jnp.asarray([[70, 10, 71, 11, 12, 72]], jnp.int32),
        parent=jnp.asarray([[0, 0, 1, 2, 4, 3]], jnp.int32),
        depth=jnp.asarray([[1, 1, 2, 2, 3, 3]], jnp.int32),
        source=jnp.zeros((1, 6), jnp.int32),
        valid=jnp.ones((1, 6), bool),
        evidence=jnp.zeros((1, 6), jnp.int32),
    )
    chosen = [[70, 71, 40, 73, 41, 42, 74]]
    after = observe(drafter, state, context, joint, verdict_of([2], [[70, 71, 73, 0, 0, 0, 0]], chosen))
    assert after.guess[0, :1].tolist() == [42] and after.repeats.tolist() == [[1, 0, 0, 0]]


def test_what_is_no_token_is_no_guess() -> None:
    drafter = jacobi(4, "rolling")
    context = context_of([[1, 2, 3]])
    state = drafter.init(jnp.int32(100), context)
    draft = propose(drafter, state, context)
    said = [[90, 100, 91, 100]]
    state = observe(drafter, state, context, draft, verdict_of([0], said, said))
    assert state.repeats.tolist() == [[0, 1, 0]] and int(state.guess[0, 1]) == 91


def test_a_block_ends_where_it_ends() -> None:
    one, two = jacobi(4), jacobi(4, blocks=2, spawn=0.6)
    assert one.nodes == 3 and two.nodes == 4
    prompt = [1, 2, 3]
    for done, expected in enumerate([(3, 3), (2, 2), (1, 1), (0, 4), (3, 3), (2, 2), (1, 1), (0, 4)]):
        context = context_of([prompt + [9] * done])._replace(prompt_length=jnp.asarray([3], jnp.int32))
        counts = tuple(int(propose(d, d.init(jnp.int32(100), context), context).valid.sum()) for d in (one, two))
        assert counts == expected, done
    early = jacobi(4, blocks=2, spawn=0.5)
    context = context_of([[*prompt, 9, 9]])._replace(prompt_length=jnp.asarray([3], jnp.int32))
    assert early.nodes == 5 == int(propose(early, early.init(jnp.int32(100), context), context).valid.sum())


def test_recycled_rows_are_what_followed_the_root_in_the_pool() -> None:
    """Random pools of few ids, so that matches, ends and equal rows abound, against a walk."""
    drafter, rng = jacobi(5, "rolling", recycle=2, pool=4), np.random.default_rng(0)
    lanes, rounds = 8, 12
    for _ in range(rounds):
        context = context_of([rng.integers(0, 3, 4).tolist() for _ in range(lanes)])
        pool = rng.integers(0, 3, (lanes, 4, 5))
        pool[np.arange(5) >= rng.integers(2, 6, (lanes, 4))[:, :, None]] = -1
        count = rng.integers(0, 9, lanes)
        for lane in range(lanes):
            pool[lane, count[lane] :] = -1
        state = JacobiState(
            guess=jnp.asarray(rng.integers(0, 3, (lanes, 4)), jnp.int32),
            repeats=jnp.ones((lanes, 4), jnp.int32),
            pool=jnp.asarray(pool, jnp.int32),
            count=jnp.asarray(count, jnp.int32),
        )
        draft = propose(drafter, state, context)
        rows, valid = np.asarray(draft.ids).reshape(lanes, 3, 4), np.asarray(draft.valid).reshape(lanes, 3, 4)
        for lane in range(lanes):
            own, root = np.asarray(state.guess[lane]).tolist(), int(context.root[lane])
            expected = [own]
            for back in range(min(int(count[lane]), 4)):
                tail = [t for t in pool[lane, (count[lane] - 1 - back) % 4].tolist() if t >= 0]
                if root in tail[:-1]:
                    rest = tail[tail.index(root) + 1 :][:4]
                    row = rest + own[len(rest) :]
                    if row not in expected:
                        expected.append(row)
            expected = expected[:3]
            assert rows[lane][valid[lane, :, 0]].tolist() == expected
            assert valid[lane].all(axis=1).sum() == len(expected)
    assert draft.source[0].tolist() == [0] * 4 + [1] * 8
    assert draft.parent[0].tolist() == [0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11]


def test_discarded_tails_enter_the_pool_and_the_best_row_goes_on() -> None:
    drafter = jacobi(5, "rolling", recycle=1, pool=2)
    context = context_of([[1, 2, 3], [1, 2, 3]], live=[True, False])
    state = drafter.init(jnp.int32(100), context)._replace(
        guess=jnp.full((2, 4), 10, jnp.int32) + jnp.arange(4, dtype=jnp.int32),
        repeats=jnp.full((2, 4), 2, jnp.int32),
        pool=jnp.full((2, 2, 5), -1, jnp.int32).at[:, 0, :4].set(jnp.asarray([3, 20, 21, 22], jnp.int32)),
        count=jnp.ones((2,), jnp.int32),
    )
    draft = propose(drafter, state, context)
    assert draft.ids[0].tolist() == [10, 11, 12, 13, 20, 21, 22, 13]
    # The recycled row was right for two tokens: what the target said along it goes on.
    chosen = [[20, 40, 41, 42, 43, 21, 50, 51, 52]] * 2
    after = observe(drafter, state, context, draft, verdict_of([2, 2], [[20, 21, 50, 0, 0]] * 2, chosen))
    assert after.guess[0, :2].tolist() == [51, 52] and after.repeats[0].tolist() == [1, 1, 0, 0]
    assert after.pool[0, 1].tolist() == [50, 51, 52, -1, -1] and after.count.tolist() == [2, 1]
    np.testing.assert_array_equal(after.pool[0, 0], state.pool[0, 0])
    np.testing.assert_array_equal(after.pool[1], state.pool[1])
    # All right: nothing is discarded.
    whole = observe(
        drafter,
        state,
        context,
        draft,
        verdict_of([4, 4], [[10, 11, 12, 13, 60]] * 2, [[10, 11, 12, 13, 60] + [0] * 4] * 2),
    )
    assert whole.count.tolist() == [1, 1] and whole.repeats[0].tolist() == [0] * 4
    fresh = drafter.admit(jnp.int32(100), after, context, jnp.asarray([True, False]))
    assert (fresh.pool[0] == -1).all() and fresh.count.tolist() == [0, 1]


@pytest.mark.slow
def test_initial_tokens_depend_on_seed_and_position_alone() -> None:
    prompt = list(range(20, 60))
    context = context_of([prompt, prompt], seeds=[5, 6])._replace(length=jnp.asarray([45, 70], jnp.int32))
    position = jnp.arange(40, 72, dtype=jnp.int32)[None].repeat(2, axis=0)
    for initial, allowed in (("prompt", set(prompt)), ("vocabulary", set(range(1000)))):
        drawn = np.asarray(initial_tokens(initial, context, position, jnp.int32(1000)))
        assert set(drawn.reshape(-1).tolist()) <= allowed and len(set(drawn[0].tolist())) > 12
        assert (drawn[0] == drawn[1]).mean() < 0.3
        alone = context_of([prompt], seeds=[6])
        shifted = initial_tokens(initial, alone, position[:1, 8:], jnp.int32(1000))
        np.testing.assert_array_equal(shifted[0], drawn[1, 8:])
    roots = initial_tokens("repeat", context_of([[1, 2], [3]]), position, jnp.int32(1000))
    assert set(np.asarray(roots[0]).tolist()) == {2} and set(np.asarray(roots[1]).tolist()) == {3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n=1 is below 2"),
        ({"mode": "sliding"}, "mode='sliding' is unknown; choose one of block, rolling"),
        ({"init": "zeros"}, "init='zeros' is unknown; choose one of prompt, vocabulary, repeat"),
        ({"recycle": -1}, "recycle=-1 is negative"),
        ({"recycle": 3, "pool": 2}, "pool=2 is below 3"),
        ({"blocks": 3}, "blocks=3 is not 1 or 2"),
        ({"blocks": 2, "mode": "rolling"}, "blocks=2 is for mode='block'"),
        ({"blocks": 2, "spawn": 1.0}, r"spawn=1\.0 is not from 0"),
    ],
)
def test_impossible_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jacobi(**options)


def test_a_pass_wider_than_the_context_is_refused() -> None:
    compiled = run_slice._cache_size()
    with pytest.raises(ValueError, match="n=129 needs passes of 129 tokens, and the model's context holds 128"):
        jaxspec.generate(model(), [1, 2], drafter=jacobi(129), max_new_tokens=4)
    long = toy_model(0, context=4096)
    with pytest.raises(ValueError, match="n=2000 needs passes of 2000 tokens, and a lane holds"):
        jaxspec.generate(long, [1, 2], drafter=jacobi(2000), max_new_tokens=4)
    assert run_slice._cache_size() == compiled


def test_equal_settings_are_equal_drafters() -> None:
    assert jacobi() == jacobi(16, "block", "prompt") and hash(jacobi()) == hash(jacobi()) and jacobi() != jacobi(8)
    assert jacobi(16).is_chain and not jacobi(16, recycle=1).is_chain
