"""Tier L0: on an exact model, every drafter says what plain decoding says, wherever and however a request ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.drafters.chain import chain
from jaxspec.drafters.stateless import Stateless

NEW = 24


class Oracle(Stateless):
    """Always right: reads the toy model's own table. Exercises full acceptance."""

    nodes = depth = 3
    sources = ("oracle",)
    is_chain = True

    def prepare(self, language_model):
        return language_model.params["table"]

    def propose(self, params, state, context):
        vocabulary = params.shape[1]
        before = jnp.take_along_axis(context.tokens, jnp.maximum(context.length - 2, 0)[:, None], axis=1)[:, 0]
        before = jnp.where(context.length > 1, before, 0)
        last, ids = context.root, []
        for _ in range(self.nodes):
            said = jnp.argmax(params[last + before * vocabulary], axis=1).astype(jnp.int32)
            before, last = last, said
            ids.append(said)
        return chain(jnp.stack(ids, axis=1), jnp.full_like(context.length, self.nodes)), state


class Noise(Stateless):
    """Random trees: sometimes right, usually wrong, often with equal siblings and invalid nodes."""

    nodes, depth = 6, 6
    sources = ("noise", "more noise")

    def propose(self, params, state, context):
        lanes = context.length.shape[0]
        key = jax.random.fold_in(jax.random.key(7), jnp.sum(context.length))
        kinds = jax.random.split(key, 3)
        ids = jax.random.randint(kinds[0], (lanes, self.nodes), 0, 7)
        pick = jax.random.uniform(kinds[1], (lanes, self.nodes))
        parent = (pick * jnp.arange(1.0, self.nodes + 1)).astype(jnp.int32)
        depth = jnp.zeros((lanes, self.nodes + 1), jnp.int32)
        for node in range(self.nodes):
            above = jnp.take_along_axis(depth, parent[:, node][:, None], axis=1)[:, 0]
            depth = depth.at[:, node + 1].set(above + 1)
        valid = jax.random.uniform(kinds[2], (lanes, self.nodes)) < 0.9
        draft, _ = drafters.context_ngram(width=self.nodes).propose((), (), context)
        return draft._replace(ids=ids, parent=parent, depth=depth[:, 1:], valid=valid, source=parent % 2), state


CORE = ("context_ngram", "mix")
VARIANTS = ("long", "padding", "ngrammys rows", "draft_model tree")  # of drafters that stand there too
DRAFTERS = {
    "context_ngram": drafters.context_ngram(width=5),
    "long": drafters.context_ngram(width=9, query=1),
    "padding": drafters.autoregressive(padding=4),
    "oracle": Oracle(),
    "noise": Noise(),
    "suffix": drafters.suffix(width=5, rows=2),
    "token_recycling": drafters.token_recycling(branches=3, nodes=16, start="empty"),
    "corpus": drafters.corpus(width=5, slots=256),
    "lookahead": drafters.lookahead(window=3, ngram=3, guesses=2),
    "ngrammys": drafters.ngrammys(k=4, w=4),
    "ngrammys rows": drafters.ngrammys(k=3, w=5, q=2, strict=False, mode="rows"),
    "jacobi": drafters.jacobi(5, "rolling"),
    "model_bigram": drafters.model_bigram(k=3, w=2),
    "draft_model": drafters.draft_model(toy_model(5), 3),
    "draft_model tree": drafters.draft_model(toy_model(5), 3, branches=2),
    "reference_text": drafters.reference_text([3, 1, 4, 1, 5, 2, 6, 5, 3, 5], width=4),
    "mix": drafters.mix(
        drafters.suffix(width=5), drafters.token_recycling(branches=3, nodes=8, start="empty"), budget=9
    ),
}


@functools.lru_cache
def model(eos_ids: tuple[int, ...] = ()) -> jaxspec.LanguageModel:
    return toy_model(0, eos_ids=eos_ids)


def random_prompts(count: int, seed: int = 0, longest: int = 70) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 7, rng.integers(1, longest)).tolist() for _ in range(count)]


def test_plain_decoding_is_the_models_own_continuation() -> None:
    prompts = random_prompts(5)
    out = jaxspec.generate(model(), prompts, max_new_tokens=NEW)
    assert out.ids == [greedy_continuation(model(), prompt, NEW) for prompt in prompts]
    assert out.finish == ["length"] * 5
    assert out.statistics.tokens_per_call == 1.0
    assert out.statistics.per_prompt[0].prefill_calls == -(-(len(prompts[0]) - 1) // 64)


def cases(few: object, *more: object) -> list:
    """Every drafter with `few`, and `CORE` ones with more; variants and the rest of all combinations are slow."""
    listed = []
    for name in DRAFTERS:
        listed.append(pytest.param(name, few, marks=[pytest.mark.slow] if name in VARIANTS else []))
        marks = [] if name in CORE else [pytest.mark.slow]
        listed += [pytest.param(name, value, marks=marks) for value in more]
    return listed


@pytest.mark.parametrize(("name", "lanes"), cases(3, 1, 8))
def test_drafted_ids_equal_plain_ids(name: str, lanes: int) -> None:
    prompts = random_prompts(8, seed=lanes)
    settings = dict(max_new_tokens=NEW, lanes=lanes, cache=128)
    out = jaxspec.generate(model(), prompts, drafter=DRAFTERS[name], **settings)
    assert out.ids == [greedy_continuation(model(), prompt, NEW) for prompt in prompts]
    totals = out.statistics
    assert totals.tokens == 8 * NEW and totals.accepted <= totals.drafted
    assert sum(totals.histogram) == totals.target_calls
    # Every call commits its accepted nodes and one token more, unless it was the last and a limit took that one.
    missing = totals.target_calls + totals.accepted - totals.tokens
    assert 0 <= missing <= len(prompts)
    said = [source for sources in out.sources for source in sources]
    for source, (_, accepted) in totals.by_source.items():
        assert said.count(source) == accepted


@pytest.mark.parametrize(
    ("name", "extra"), cases({"top_k": 4, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3}, {})
)
def test_drafted_samples_equal_plain_samples(name: str, extra: dict) -> None:
    prompts = random_prompts(8, seed=3)
    settings = dict(max_new_tokens=NEW, temperature=2.0, seed=list(range(8)), cache=128, **extra)
    plain = jaxspec.generate(model(), prompts, lanes=2, **settings)
    drafted = jaxspec.generate(model(), prompts, drafter=DRAFTERS[name], lanes=8, **settings)
    assert drafted.ids == plain.ids
    assert len({tuple(ids) for ids in plain.ids}) == 8


def test_the_oracle_is_accepted_whole() -> None:
    out = jaxspec.generate(model(), random_prompts(4), drafter=Oracle(), max_new_tokens=NEW)
    assert out.statistics.tokens_per_call == 4.0
    assert out.statistics.histogram == (0, 0, 0, 4 * NEW // 4)
    assert out.statistics.acceptance_rate == 1.0


@pytest.mark.parametrize("name", ["context_ngram", "oracle", "noise"])
def test_every_limit_within_a_block(name: str) -> None:
    prompt = random_prompts(1, seed=5)[0]
    expected = greedy_continuation(model(), prompt, 12)
    out = [jaxspec.generate(model(), prompt, drafter=DRAFTERS[name], max_new_tokens=n, cache=128) for n in range(13)]
    assert [o.ids[0] for o in out] == [expected[:n] for n in range(13)]
    assert {o.finish[0] for o in out} == {"length"}


@pytest.mark.parametrize("name", ["context_ngram", "oracle", "noise"])
def test_every_id_as_the_end_of_sequence(name: str) -> None:
    prompts = random_prompts(6, seed=6)
    for eos in range(7):
        settings = dict(max_new_tokens=NEW, stop_ids=[eos], cache=128)
        plain = jaxspec.generate(model(), prompts, **settings)
        drafted = jaxspec.generate(model(), prompts, drafter=DRAFTERS[name], **settings)
        assert drafted.ids == plain.ids and drafted.finish == plain.finish
        for prompt, ids, finish in zip(prompts, plain.ids, plain.finish, strict=True):
            free = greedy_continuation(model(), prompt, NEW)
            end = free.index(eos) + 1 if eos in free else NEW
            assert ids == free[:end]
            assert finish == ("eos" if eos in free else "length")


@pytest.mark.parametrize("name", ["context_ngram", "oracle", "noise"])
def test_every_stop_string_of_two_letters(name: str) -> None:
    prompts = random_prompts(6, seed=7)
    free = jaxspec.generate(model(), prompts, max_new_tokens=NEW, cache=128).texts
    stops = sorted({text[i : i + 2] for text in free for i in range(0, NEW - 2, 5)})
    for stop in stops:
        out = jaxspec.generate(model(), prompts, drafter=DRAFTERS[name], max_new_tokens=NEW, stop=[stop], cache=128)
        for text, got, ids in zip(free, out.texts, out.ids, strict=True):
            assert got == text.split(stop)[0]
            assert len(ids) == (text.index(stop) + 2 if stop in text else NEW)


def test_the_tokenizers_end_of_sequence_ends_a_text_unless_ignored() -> None:
    prompts = random_prompts(6, seed=6)
    ended = jaxspec.generate(model((3,)), prompts, max_new_tokens=NEW, cache=128)
    assert "eos" in ended.finish
    ignoring = jaxspec.generate(model((3,)), prompts, max_new_tokens=NEW, ignore_eos=True, cache=128)
    assert ignoring.ids == [greedy_continuation(model(), prompt, NEW) for prompt in prompts]


def test_a_full_cache_ends_a_text() -> None:
    prompt = random_prompts(1, seed=8)[0][:10]
    for name in ("context_ngram", "oracle"):
        out = jaxspec.generate(model(), prompt, drafter=DRAFTERS[name], max_new_tokens=500, cache=21)
        assert out.finish == ["cache"] and out.ids[0] == greedy_continuation(model(), prompt, 11)


def test_bans_and_penalties_hold() -> None:
    prompts = random_prompts(4, seed=9)
    for name in ("context_ngram", "noise"):
        settings = dict(max_new_tokens=NEW, banned_ids=[1, 4], repetition_penalty=1.5, cache=128)
        plain = jaxspec.generate(model(), prompts, **settings)
        drafted = jaxspec.generate(model(), prompts, drafter=DRAFTERS[name], **settings)
        assert drafted.ids == plain.ids
        assert not {1, 4} & {token for ids in plain.ids for token in ids}
