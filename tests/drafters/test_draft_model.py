"""A draft model never changes a text, is accepted whole if it is the target, and drafts as far as pays."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer
from toy_model import ToyModelFn, greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding
from jaxspec.decode.sampling import SamplingFlags, plain_sampling
from jaxspec.decode.types import Context
from jaxspec.drafters.context_ngram import context_ngram
from jaxspec.drafters.draft_model import AUTO, DraftModel, draft_model
from jaxspec.drafters.draft_model.confidence import CLASSES
from jaxspec.drafters.draft_model.length import longer_pays
from jaxspec.drafters.draft_model.levels import LevelRules, nothing_drafted
from jaxspec.drafters.draft_model.reading import DraftModelParams, read_text
from jaxspec.drafters.draft_model.rounds import draft_in_rounds
from jaxspec.drafters.mix import mix
from jaxspec.drafters.suffix import suffix
from jaxspec.engine.generate import run
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request
from jaxspec.engine.serve import Progress
from jaxspec.models.cache import init_cache
from jaxspec.models.self_draft import self_draft

TARGET = toy_model(0)
NEW = 20


@functools.lru_cache
def close_relative(seed: int = 5) -> jaxspec.LanguageModel:
    """The target with noise in its logits: right most of the time."""
    table = np.asarray(TARGET.params["table"])
    noise = np.random.default_rng(seed).normal(size=table.shape) * 3
    return dataclasses.replace(TARGET, params={"table": jnp.asarray(table + noise, jnp.float32)})


def random_prompts(count: int, seed: int = 0, longest: int = 90) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 7, rng.integers(1, longest)).tolist() for _ in range(count)]


@pytest.mark.parametrize("lanes", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8))])
def test_greedy_ids_are_the_targets_own(lanes: int) -> None:
    prompts = random_prompts(8, seed=lanes)
    drafter = draft_model(close_relative(), 3)
    out = jaxspec.generate(TARGET, prompts, drafter=drafter, max_new_tokens=NEW, lanes=lanes, cache=128)
    assert out.ids == [greedy_continuation(TARGET, prompt, NEW) for prompt in prompts]
    totals = out.statistics
    assert 0 < totals.accepted < totals.drafted
    # Every call commits what it accepts and one token more, unless a limit took that one.
    assert 0 <= totals.target_calls + totals.accepted - totals.tokens <= len(prompts)


def random_requests(count: int, seed: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    return [
        Request(
            ids=tuple(rng.integers(0, 7, rng.integers(1, 80)).tolist()),
            max_new_tokens=int(rng.integers(1, 16)),
            temperature=float(rng.choice([0.0, 0.7, 2.0, 4.0])),
            top_k=int(rng.choice([0, 2, 5])),
            top_p=float(rng.choice([1.0, 0.8])),
            min_p=float(rng.choice([0.0, 0.1])),
            repetition_penalty=float(rng.choice([1.0, 1.4])),
            seed=int(rng.integers(0, 2**32)),
        )
        for _ in range(count)
    ]


def served(requests: list[Request], drafter, lanes: int, **settings) -> list[Progress]:
    job = build_job(
        TARGET,
        requests,
        jaxspec.drafters.autoregressive() if drafter is None else drafter,
        lanes=lanes,
        cache=128,
        **settings,
    )
    return run(job, requests)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("branches", "lanes"), [(1, 8), (3, 32)])
def test_a_thousand_random_requests_say_what_plain_sampling_says(branches: int, lanes: int) -> None:
    """Sampled and greedy ones in one queue, with every setting, stop ids and stop strings."""
    requests = random_requests(500, seed=branches)
    settings = dict(stop=["dfa", "gg"], stop_ids=[6], banned_ids=[4])
    plain = served(requests, None, 32, **settings)
    drafted = served(requests, draft_model(close_relative(), 3, branches=branches), lanes, **settings)
    assert [item.ids.tolist() for item in drafted] == [item.ids.tolist() for item in plain]
    assert [item.finish for item in drafted] == [item.finish for item in plain]
    assert len({item.finish for item in plain}) >= 3
    calls, tokens = sum(int(item.statistics.target_calls) for item in drafted), sum(len(i.ids) for i in drafted)
    assert tokens > 1.3 * calls


@pytest.mark.parametrize(
    "acceptance", ["greedy", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("coupled", "rejection"))]
)
def test_a_draft_of_the_target_itself_is_accepted_whole(acceptance: str) -> None:
    sampled = {} if acceptance == "greedy" else dict(temperature=2.0, top_k=5, top_p=0.95, min_p=0.01)
    out = jaxspec.generate(
        TARGET,
        random_prompts(5, seed=2),
        drafter=draft_model(TARGET),
        max_new_tokens=NEW,
        acceptance=acceptance,
        repetition_penalty=1.3,
        seed=list(range(5)),
        cache=128,
        **sampled,
    )
    assert out.statistics.histogram == (0, 0, 0, 0, 5 * NEW // 5)
    assert out.statistics.acceptance_rate == 1.0


def test_a_transformer_drafts_for_itself() -> None:
    """Long prompts are read in several blocks, and every cache entry is where attention looks for it."""
    lm = small_transformer()
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 17, n).tolist() for n in (1, 150, 64, 65)]
    plain = jaxspec.generate(lm, prompts, max_new_tokens=40, cache=256, lanes=2)
    out = jaxspec.generate(lm, prompts, drafter=draft_model(lm, 3), max_new_tokens=40, cache=256, lanes=2)
    assert out.ids == plain.ids
    assert out.statistics.tokens_per_call == 4.0


@pytest.mark.slow
def test_texts_of_rejection_have_plain_samplings_law() -> None:
    """Draws, decisions and residuals through the whole loop: a chi-square of the first two tokens."""
    target, draft = toy_model(1, vocabulary=4), toy_model(2, vocabulary=4)
    count, prompt, temperature = 4000, [1, 2], 9.0
    out = jaxspec.generate(
        target,
        [prompt] * count,
        drafter=draft_model(draft, 2, branches=2),
        acceptance="rejection",
        temperature=temperature,
        max_new_tokens=2,
        seed=list(range(count)),
        lanes=64,
        cache=128,
    )
    table = np.asarray(target.params["table"], np.float64) / temperature
    law = np.exp(table) / np.exp(table).sum(axis=1, keepdims=True)
    first = law[2 + 1 * 4]
    expected = np.array([first[a] * law[a + 2 * 4] for a in range(4)])
    got = np.zeros((4, 4))
    for a, b in out.ids:
        got[a, b] += 1
    chi_square = np.sum((got - count * expected) ** 2 / (count * expected))
    assert chi_square < 37.7  # the 99.9 % point of fifteen degrees of freedom
    assert 0 < out.statistics.accepted < out.statistics.drafted


def test_branches_stand_where_the_draft_is_in_doubt() -> None:
    drafter = draft_model(TARGET, 3, branches=2, branch_below=0.8)
    params = drafter.prepare(TARGET)
    drafter = drafter.bind(Binding(TARGET.config.vocabulary, SamplingFlags(), Drawing.BEST, 64))
    texts = np.zeros((6, 128), np.int32)
    texts[:, :3] = np.random.default_rng(2).integers(0, 7, (6, 3))
    lanes, live = jnp.full((6,), 3, jnp.int32), jnp.ones((6,), bool)
    context = Context(jnp.asarray(texts), lanes, lanes, lanes.astype(jnp.uint32), live, plain_sampling(6))
    state = drafter.admit(params, drafter.init(params, context), context, live)
    draft, _ = drafter.propose(params, state, context)
    ids, valid = (np.asarray(x).reshape(6, 3, 2) for x in (draft.ids, draft.valid))
    table = np.asarray(TARGET.params["table"], np.float64)
    doubtful = []
    for lane, text in enumerate(texts[:, :3].tolist()):
        for level in range(3):
            row = table[sum(token * 7**age for age, token in enumerate(reversed(text[-2:])))]
            doubtful.append(np.exp(row.max()) / np.exp(row).sum() < 0.8)
            assert valid[lane, level].tolist() == [True, doubtful[-1]]
            text.append(int(ids[lane, level, 0]))
    assert 0 < sum(doubtful) < len(doubtful)


@pytest.mark.slow
def test_a_doubtful_draft_stops_early() -> None:
    prompts = random_prompts(6, seed=3)
    settings = dict(max_new_tokens=NEW, temperature=3.0, cache=128)
    plain = jaxspec.generate(TARGET, prompts, **settings)
    runs = [
        jaxspec.generate(TARGET, prompts, drafter=draft_model(close_relative(), 4, stop_below=p), **settings)
        for p in (0.0, 0.5)
    ]
    assert all(out.ids == plain.ids for out in runs)
    assert runs[1].statistics.drafted < 0.8 * runs[0].statistics.drafted
    assert runs[1].statistics.acceptance_rate > runs[0].statistics.acceptance_rate


def auto_run(lm: jaxspec.LanguageModel, seconds: list[float], **settings) -> tuple[list[Progress], list[Request]]:
    """Requests drafted for with `length="auto"` where a step takes `seconds`, by length."""
    requests = [Request(tuple(p), 40, 0.0, 0, 1.0, 0.0, 1.0, 0) for p in random_prompts(2, seed=4, longest=40)]
    job = build_job(TARGET, requests, draft_model(lm, "auto"), lanes=2, cache=128, **settings)
    costs = jnp.asarray(seconds, jnp.float32)
    job = dataclasses.replace(job, inputs=job.inputs._replace(step_seconds=costs))
    return run(job, requests)[0], requests


def drafted_a_call(done: list[Progress]) -> float:
    calls = sum(int(item.statistics.target_calls) for item in done)
    return sum(int(item.statistics.drafted.sum()) for item in done) / calls


@pytest.mark.slow
def test_the_length_follows_what_a_step_costs() -> None:
    """Where only one length is affordable that one is taken, so that it can be measured."""
    for index, length in enumerate(AUTO):
        done, requests = auto_run(TARGET, [1.0 if i == index else np.inf for i in range(len(AUTO))])
        assert [item.ids.tolist() for item in done] == [greedy_continuation(TARGET, r.ids, 40) for r in requests]
        assert drafted_a_call(done) == length


def test_after_a_pause_it_drafts_from_where_the_text_is() -> None:
    text = [3, 1, 4]
    text += greedy_continuation(TARGET, text, 40)
    drafter = draft_model(TARGET, "auto")
    params = drafter.prepare(TARGET)
    drafter = drafter.bind(Binding(TARGET.config.vocabulary, SamplingFlags(), Drawing.BEST, 64))

    def context(length: int, affordable: int) -> Context:
        cost = [1.0 if draft == affordable else np.inf for draft in AUTO]
        tokens = np.zeros((1, 128), np.int32)
        tokens[0, :length] = text[:length]
        lane = jnp.full((1,), length, jnp.int32)
        seed, live = jnp.zeros((1,), jnp.uint32), jnp.ones((1,), bool)
        seconds = jnp.asarray(cost, jnp.float32)
        return Context(jnp.asarray(tokens), lane, lane, seed, live, plain_sampling(1), step_seconds=seconds)

    begin = context(3, 0)
    state = drafter.admit(params, drafter.init(params, begin), begin, jnp.ones((1,), bool))
    for length in range(3, 15):  # the target says one token after another
        draft, state = drafter.propose(params, state, context(length, 0))
        assert not draft.valid.any()
    draft, _ = drafter.propose(params, state, context(15, 4))
    assert draft.valid[0].tolist() == [True] * 4 + [False] * 4
    assert draft.ids[0, :4].tolist() == text[15:19]


@pytest.mark.slow
def test_the_length_follows_what_is_accepted() -> None:
    stranger = toy_model(9)
    dear = [1.0 + 0.3 * length for length in AUTO]
    good, requests = auto_run(TARGET, dear)
    bad, _ = auto_run(stranger, dear)
    expected = [greedy_continuation(TARGET, request.ids, 40) for request in requests]
    assert [item.ids.tolist() for item in good] == expected
    assert [item.ids.tolist() for item in bad] == expected
    assert drafted_a_call(good) > 3 > 1 > drafted_a_call(bad)


@pytest.mark.slow
@pytest.mark.parametrize("acceptance", ["coupled", "rejection"])
def test_within_a_mix_it_catches_up_with_what_others_got_right(acceptance: str) -> None:
    prompts = random_prompts(6, seed=6)
    drafter = mix(suffix(width=6), draft_model(close_relative(), 3, branches=2), budget=8)
    settings = dict(max_new_tokens=NEW, cache=128, lanes=3, seed=list(range(6)))
    out = jaxspec.generate(TARGET, prompts, drafter=drafter, acceptance=acceptance, temperature=0.0, **settings)
    assert out.ids == [greedy_continuation(TARGET, prompt, NEW) for prompt in prompts]
    assert out.statistics.by_source["draft_model"][1] > 0
    assert out.statistics.by_source["suffix"][1] > 0


@pytest.mark.parametrize(
    "sampled",
    [
        {"acceptance": "greedy"},
        pytest.param({"acceptance": "coupled", "temperature": 4.0, "repetition_penalty": 1.2}, marks=pytest.mark.slow),
        pytest.param({"acceptance": "rejection", "temperature": 4.0, "top_k": 5}, marks=pytest.mark.slow),
    ],
    ids=lambda sampled: sampled["acceptance"],
)
def test_a_draft_that_is_drafted_is_the_same_draft(sampled: dict) -> None:
    settings = dict(max_new_tokens=NEW, cache=128, lanes=3, seed=list(range(6)), **sampled)
    inner = context_ngram(width=3, query=1)
    plain, drafted = (
        jaxspec.generate(
            TARGET, random_prompts(6, seed=8), drafter=draft_model(close_relative(), 4, drafter=one), **settings
        )
        for one in (None, inner)
    )
    assert drafted.ids == plain.ids
    assert drafted.statistics == plain.statistics


@pytest.mark.slow
def test_a_transformer_drafted_for_drafts_the_same() -> None:
    lm = small_transformer()
    prompts = [np.random.default_rng(1).integers(0, 17, n).tolist() for n in (1, 150, 65)]
    inner = context_ngram(width=4, query=1)
    out = jaxspec.generate(
        lm, prompts, drafter=draft_model(lm, 6, drafter=inner), max_new_tokens=40, cache=256, lanes=2
    )
    assert out.ids == jaxspec.generate(lm, prompts, max_new_tokens=40, cache=256, lanes=2).ids
    assert out.statistics.tokens_per_call == pytest.approx(40 / 6)


def test_a_drafted_draft_takes_fewer_passes() -> None:
    """A model that goes round in a circle says a whole round a pass, once the text has gone round."""
    circle = np.full((49, 7), -9.0)
    for last in range(7):
        circle[last + 7 * np.arange(7), (last + 1) % 7] = 9.0
    lm = dataclasses.replace(TARGET, params={"table": jnp.asarray(circle, jnp.float32)})
    tokens = jnp.asarray([list(range(7)) * 3 + [0] * 43], jnp.int32)
    context = Context(tokens, *(jnp.full((1,), n) for n in (21, 21)), jnp.zeros((1,), jnp.uint32), jnp.ones((1,), bool))
    context = context._replace(sampling=plain_sampling(1), banned=jnp.zeros((7,), bool))
    rules = LevelRules(lm.model, SamplingFlags(), Drawing.BEST, CLASSES, room=64, stop_below=0.0)
    cache = init_cache(lm.config, 1, 64, jnp.float32)
    weights = DraftModelParams(lm.params, None)
    cache = read_text(lm.model, weights, cache, context, 64)
    ahead, rate = jnp.full((8, 1), 0.5), jnp.full((1, CLASSES), 0.5)
    found = draft_in_rounds(rules, context_ngram(width=3, query=2), weights, rate, ahead, cache, context, 7)
    assert found.drafting.ids[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    assert found.drafting.step == 2 and found.done.tolist() == [8]
    assert found.drafting.cache.length.tolist() == [21 + 8 - 1]
    np.testing.assert_allclose(found.drafting.gain[0, :, 0], 0.5 ** np.arange(1, 9))


class Counted(ToyModelFn):
    """Notes how many tokens of a lane every pass reads."""

    passes: list[int] = []

    def __call__(self, params, block, cache, *, with_logits=True):
        width = block.ids.shape[1]
        jax.debug.callback(lambda: Counted.passes.append(width))
        return super().__call__(params, block, cache, with_logits=with_logits)


def counted_run(drafter: DraftModel, requests: list[Request]) -> tuple[list[Progress], list[int]]:
    """Requests drafted for on one lane, with a model that is `Counted`, and its passes."""
    assert drafter.model == Counted(7, 2)
    job = build_job(TARGET, requests, drafter, lanes=1, cache=128)
    Counted.passes.clear()
    done = run(job, requests)[0]
    jax.effects_barrier()
    assert [item.ids.tolist() for item in done] == [greedy_continuation(TARGET, r.ids, NEW) for r in requests]
    return done, list(Counted.passes)


def asking(prompts: list[list[int]], *max_draft: int | None) -> list[Request]:
    return [Request(tuple(p), NEW, max_draft=depth) for p, depth in zip(prompts, max_draft, strict=True)]


COUNTED = dataclasses.replace(TARGET, model=Counted(7, 2))
SHORT = dataclasses.replace(COUNTED, config=dataclasses.replace(TARGET.config, context=32))


EVERY_WAY = [
    dict(length=3),
    *(pytest.param(d, marks=pytest.mark.slow) for d in (dict(length="auto"), dict(length=3, drafter=context_ngram(2)))),
]


@pytest.mark.parametrize("settings", EVERY_WAY)
def test_a_request_that_wants_no_draft_costs_no_pass(settings: dict) -> None:
    """Nor does a longer draft than requests want; and the next on the same lane is drafted for from its beginning."""
    drafter = draft_model(COUNTED, **settings)
    done, passes = counted_run(drafter, asking(random_prompts(3), 0, 0, 0))
    assert passes == [] and all(item.statistics.drafted.sum() == 0 for item in done)
    done, passes = counted_run(drafter, asking(random_prompts(4), 0, 1, 0, None))
    calls = [int(item.statistics.target_calls) for item in done]
    assert calls[:3] == [NEW, NEW // 2, NEW]
    if settings == dict(length=3):
        assert calls[3] == NEW // 4 and calls[1] + calls[3] == passes.count(2) and passes.count(1) == 2 * calls[3]


def test_lanes_that_want_no_draft_promise_nothing_of_one() -> None:
    """One lane's hope does not pay for a draft; that of four does."""
    rules = LevelRules(TARGET.model, SamplingFlags(), Drawing.BEST, CLASSES, room=64, stop_below=0.0)
    cache, ahead = init_cache(TARGET.config, 4, 64, jnp.float32), jnp.full((2, 1), 0.6)
    for length, max_draft, pays in ((9, [2] * 4, True), (9, [0, 0, 0, 2], False), (64, [2] * 4, False)):
        lanes, seconds = jnp.full((4,), length), jnp.asarray([1.0, 1.3, np.inf])
        context = Context(jnp.zeros((4, 128), jnp.int32), lanes, lanes, lanes.astype(jnp.uint32), lanes > 0)
        context = context._replace(step_seconds=seconds, max_draft=jnp.asarray(max_draft))
        nothing = nothing_drafted(rules, cache, context, ahead, 7)
        assert longer_pays((0, 1, 2), Drawing.BEST, ahead, context, nothing) == pays


@pytest.mark.parametrize("settings", EVERY_WAY)
def test_a_draft_model_stops_where_its_own_context_ends(settings: dict) -> None:
    drafter = draft_model(SHORT, **settings)
    prompt, long = (np.random.default_rng(1).integers(0, 7, size).tolist() for size in (22, 40))
    done, passes = counted_run(drafter, asking([prompt, long], None, None))
    assert passes and done[1].statistics.drafted.sum() == 0
    if settings["length"] == 3:  # 22, 26, 30, and two tokens more that have room
        assert done[0].statistics.drafted.sum() == 3 + 3 + 2
        assert done[0].statistics.target_calls == 3 + (22 + NEW - 33)
    _, passes = counted_run(drafter, asking([long], None))
    assert passes == []


@pytest.mark.parametrize("length", [4, "auto"])
def test_only_the_first_block_of_a_draft_has_two_tokens(length: int | str, monkeypatch) -> None:
    """It may lack the last token of a draft that was accepted whole; later blocks lack one, and cost what they read."""
    read = []

    def noted(self, params, block, cache, *, with_logits=True):
        read.append(block.ids.shape[1])
        return call(self, params, block, cache, with_logits=with_logits)

    call = type(TARGET.model).__call__
    drafter = draft_model(close_relative(), length).bind(
        Binding(7, SamplingFlags(), Drawing.BEST, prefill_width=64, alone=True)
    )
    nine, seed, live = jnp.full((1,), 9), jnp.zeros((1,), jnp.uint32), jnp.ones((1,), bool)
    context = Context(jnp.zeros((1, 128), jnp.int32), nine, nine, seed, live, plain_sampling(1))
    context = context._replace(banned=jnp.zeros((7,), bool), step_seconds=jnp.ones((len(drafter.widths),)))
    weights = DraftModelParams(TARGET.params, None)
    state = drafter.init(weights, context)
    monkeypatch.setattr(type(TARGET.model), "__call__", noted)
    jax.eval_shape(drafter.propose, weights, state, context)
    assert [width for width in dict.fromkeys(read) if width < 64] == [2, 1]  # 64 where it catches up after a pause


def test_equal_models_share_a_program_and_weights_are_data() -> None:
    drafters = [draft_model(lm, 3) for lm in (close_relative(5), close_relative(6))]
    assert drafters[0] == drafters[1] and hash(drafters[0]) == hash(drafters[1])
    requests = random_requests(1, seed=0)
    jobs = [build_job(TARGET, requests, drafter, cache=128) for drafter in drafters]
    assert jobs[0].program == jobs[1].program
    bound = jobs[0].program.drafter
    assert isinstance(bound, DraftModel) and bound.lm is None  # or the program would keep the weights alive


@pytest.mark.parametrize("where", [str, pathlib.Path])
def test_a_draft_model_is_named_as_to_load(where, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("jaxspec.engine.load.load", lambda source: dataclasses.replace(TARGET, name=source))
    assert draft_model(where(tmp_path)).lm.name == where(tmp_path)
    assert draft_model(TARGET, np.int64(3)) == draft_model(TARGET, "3") == draft_model(TARGET, 3)


def test_bad_settings_are_refused_by_name() -> None:
    for settings, message in (
        (dict(length=0), "length=0"),
        (dict(length="long"), "length='long'"),
        (dict(length=2.7), "length=2.7 is neither a whole number of tokens nor auto"),
        (dict(length=None), "length=None is neither"),
        (dict(branches=2.0), "branches=2.0 is not an integer"),
        (dict(stop_below=1.0), "stop_below=1.0"),
        (dict(branches=2, branch_below=0.0), "branch_below=0.0 is not above 0"),
        (dict(branches=0), "branches=0"),
        (dict(vocabulary="any"), "vocabulary='any'"),
        (dict(drafter=suffix(width=4)), "use context_ngram"),
        (dict(drafter=context_ngram(), length="auto"), "use a fixed length of one branch"),
        (dict(drafter=context_ngram(), branches=2), "branches=2; use a fixed length"),
    ):
        with pytest.raises(ValueError, match=message):
            draft_model(TARGET, **settings)
    for lm in (None, TARGET.params):
        with pytest.raises(ValueError, match="is neither a language model nor what jaxspec.load takes"):
            draft_model(lm)
    with pytest.raises(ValueError, match="branches=8"):
        jaxspec.generate(TARGET, [[1]], drafter=draft_model(TARGET, branches=8))
    with pytest.raises(ValueError, match="acceptance='exact' is not one of greedy, coupled, rejection, typical"):
        jaxspec.generate(TARGET, [[1]], acceptance="exact")
    with pytest.raises(ValueError, match="cannot draw"):
        jaxspec.generate(TARGET, [[1]], acceptance="greedy", temperature=1.0)


@pytest.mark.parametrize("how", [pytest.param("layers=1", marks=pytest.mark.slow), "int8"])
def test_a_cheaper_version_of_the_target_drafts_for_it(how: str) -> None:
    lm = small_transformer()
    prompts = [[1, 2, 3], [7, 5, 6, 2]]
    plain = jaxspec.generate(lm, prompts, max_new_tokens=12)
    drafter = draft_model(f"self:{how}", 3)
    drafted = jaxspec.generate(lm, prompts, drafter=drafter, max_new_tokens=12)
    assert drafted.ids == plain.ids
    given = jaxspec.generate(lm, prompts, drafter=draft_model(self_draft(lm, how), 3), max_new_tokens=12)
    assert given.statistics == drafted.statistics
    mixed = jaxspec.drafters.mix(drafter, jaxspec.drafters.suffix(width=2), budget=4)
    assert jaxspec.generate(lm, prompts, drafter=mixed, max_new_tokens=12).ids == plain.ids


def test_an_unknown_version_of_the_target_is_refused() -> None:
    with pytest.raises(ValueError, match="self draft 'half' is none of"):
        jaxspec.generate(small_transformer(), [[1]], drafter=draft_model("self:half"), max_new_tokens=1)
