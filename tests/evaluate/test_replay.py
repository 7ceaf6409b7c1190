"""Replay counts what decoding counts, without the model: for every drafter that learns from the text alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer
from toy_model import toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.decode import statistics
from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding, bind
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.types import Context, Draft, Drafter
from jaxspec.drafters.chain import chain
from jaxspec.drafters.stateless import Stateless
from jaxspec.engine.generate import run
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request
from jaxspec.engine.result import GenerationStatistics, statistics_of
from jaxspec.evaluate import replay as replaying
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.replay import PREFILL, Texts, learns_off_path, replay

NEW = 24
EXACT = {
    "plain": drafters.autoregressive(),
    "context_ngram": drafters.context_ngram(width=5),
    "suffix": drafters.suffix(width=5, rows=2),
    "ngrammys": drafters.ngrammys(k=4, w=4),
    "ngrammys rows": drafters.ngrammys(k=3, w=5, mode="rows"),
    "model_bigram": drafters.model_bigram(k=3, w=2),
    "corpus": drafters.corpus(width=5, slots=256),
    "draft_model": drafters.draft_model(toy_model(5), 3),
    "mix": drafters.mix(drafters.suffix(width=5), drafters.model_bigram(k=3, w=2), drafters.corpus(4, 256), budget=6),
}
LEARNING = {
    "token_recycling": drafters.token_recycling(branches=3, nodes=16, start="empty"),
    "lookahead": drafters.lookahead(window=3, ngram=3, guesses=2),
    "mix": drafters.mix(drafters.suffix(width=4), drafters.token_recycling(3, 8, start="empty"), budget=7),
}


def random_prompts(count: int, seed: int, vocabulary: int = 7, longest: int = 60) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, rng.integers(1, longest)).tolist() for _ in range(count)]


@functools.lru_cache
def toy(eos_ids: tuple[int, ...] = ()) -> jaxspec.LanguageModel:
    return toy_model(0, eos_ids=eos_ids)


@functools.lru_cache
def recording(eos_ids: tuple[int, ...] = (), seed: int = 1, max_new_tokens: int = NEW, **settings) -> Recording:
    return record(toy(eos_ids), random_prompts(11, seed), max_new_tokens, top=4, **settings)


def counts(statistics: GenerationStatistics) -> list:
    """All that replay claims to know, per prompt."""
    return [
        (part.tokens, part.target_calls, part.drafted, part.accepted, part.histogram, part.by_source)
        for part in statistics.per_prompt
    ]


@pytest.mark.parametrize("name", EXACT)
def test_a_job_counts_as_decoded(name: str) -> None:
    kept = recording()
    out = jaxspec.generate(toy(), kept.prompts(), drafter=EXACT[name], max_new_tokens=NEW, lanes=3, cache=128)
    replayed = replay(kept, EXACT[name], toy(), lanes=3)
    assert replayed.exact
    assert counts(replayed.statistics) == counts(out.statistics)
    assert out.statistics.tokens == 11 * NEW


@pytest.mark.parametrize("name", ["suffix", "corpus"])
def test_prompts_on_their_own_count_as_decoded_on_their_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, settings = recording(), dict(max_new_tokens=NEW, lanes=1, cache=128)
    alone = [jaxspec.generate(toy(), prompt, drafter=EXACT[name], **settings) for prompt in kept.prompts()]
    expected = [count for out in alone for count in counts(out.statistics)]
    replayed = replay(kept, EXACT[name], toy())
    assert replayed.exact and counts(replayed.statistics) == expected
    assert sum(replayed.passes.values()) == replayed.statistics.target_calls
    monkeypatch.setattr(replaying, "BATCH_BYTES", 1)  # text by text, not side by side
    replaying._run.clear_cache()
    assert counts(replay(kept, EXACT[name], toy()).statistics) == expected


@pytest.mark.parametrize("name", ["suffix", "corpus"])
@pytest.mark.parametrize("eos", [0, 3, 5])
def test_texts_that_end_within_a_block(name: str, eos: int) -> None:
    lm, kept = toy((eos,)), recording((eos,), seed=2)
    answers = kept.answers()
    assert any(answer[-1] == eos and len(answer) < NEW for answer in answers)
    assert [answer.count(eos) for answer in answers] == [int(answer[-1] == eos) for answer in answers]
    out = jaxspec.generate(lm, kept.prompts(), drafter=EXACT[name], max_new_tokens=NEW, lanes=3, cache=128)
    assert counts(replay(kept, EXACT[name], lm, lanes=3).statistics) == counts(out.statistics)


@pytest.mark.parametrize("new", range(1, 9))
def test_every_limit_within_a_block(new: int) -> None:
    kept = recording(seed=3, max_new_tokens=new)
    out = jaxspec.generate(toy(), kept.prompts(), drafter=EXACT["suffix"], max_new_tokens=new, lanes=3, cache=128)
    assert counts(replay(kept, EXACT["suffix"], lanes=3).statistics) == counts(out.statistics)


@pytest.mark.parametrize("name", [pytest.param("suffix", marks=pytest.mark.slow), "mix"])
def test_a_transformer_counts_as_decoded(name: str) -> None:
    lm = small_transformer()
    prompts = random_prompts(5, 1, vocabulary=17, longest=150)
    kept = record(lm, prompts, NEW, top=4, stop_ids=[2])
    assert kept.disagreements == 0
    settings = dict(max_new_tokens=NEW, lanes=2, stop_ids=[2])
    out = jaxspec.generate(lm, prompts, drafter=EXACT[name], **settings)
    assert kept.answers() == out.ids
    assert counts(replay(kept, EXACT[name], lm, lanes=2).statistics) == counts(out.statistics)


@pytest.mark.parametrize(
    ("drafter", "costs"),
    [
        (
            drafters.mix(drafters.suffix(width=8), drafters.model_bigram(k=3, w=2), budget=8, widths=(0, 2, 5, 8)),
            (1.0, 1.1, 1.3, 2.0),
        ),
        pytest.param(drafters.draft_model(toy_model(0), "auto"), (1.0, 1.1, 1.3, 1.7, 9.0), marks=pytest.mark.slow),
    ],
    ids=["mix", "draft_model"],
)
def test_widths_are_chosen_as_in_decoding(drafter: Drafter, costs: tuple[float, ...]) -> None:
    kept = recording()
    requests = [Request(tuple(prompt), NEW, 0.0, 0, 1.0, 0.0, 1.0, 0) for prompt in kept.prompts()]
    job = build_job(toy(), requests, drafter, lanes=1, cache=128)
    job = dataclasses.replace(job, inputs=job.inputs._replace(step_seconds=jnp.asarray(costs)))
    done, _, _ = run(job, requests)
    replayed = replay(kept, drafter, toy(), lanes=1, step_seconds=costs)
    assert list(replayed.statistics.per_prompt) == [
        dataclasses.replace(statistics_of(item.statistics, NEW, drafter.sources), prefill_calls=0) for item in done
    ]
    assert sum(count > 0 for count in replayed.passes.values()) > 1
    dear = replay(kept, drafter, toy(), lanes=1, step_seconds=(1.0, *(99.0 for _ in costs[1:])))
    assert dear.passes == {0: 11 * NEW} | dict.fromkeys(drafter.widths[1:], 0)


def test_one_pass_serves_all_lanes() -> None:
    kept = recording()
    plain = replay(kept, drafters.autoregressive(), lanes=4)
    assert plain.statistics.target_calls == 11 * NEW
    assert plain.passes == {0: 3 * NEW}  # four texts, four texts, three texts


@pytest.mark.parametrize("name", LEARNING)
def test_what_rejected_nodes_teach_is_missing_and_said_to_be(name: str) -> None:
    kept, drafter = recording(), LEARNING[name]
    out = jaxspec.generate(toy(), kept.prompts(), drafter=drafter, max_new_tokens=NEW, lanes=1, cache=128)
    replayed = replay(kept, drafter, toy(), lanes=1)
    assert not replayed.exact
    assert counts(replayed.statistics) != counts(out.statistics)
    assert replayed.statistics.tokens == out.statistics.tokens and replayed.statistics.tokens_per_call > 1.0


def test_what_accepted_nodes_teach_is_known() -> None:
    drafter = drafters.token_recycling(branches=4, nodes=16, start="empty", updates="path")
    kept = recording()
    out = jaxspec.generate(toy(), kept.prompts(), drafter=drafter, max_new_tokens=NEW, lanes=3, cache=128)
    assert counts(replay(kept, drafter, toy(), lanes=3).statistics) == counts(out.statistics)


def test_learning_off_the_path_is_read_from_the_program() -> None:
    lm = toy()
    binding = Binding(lm.config.vocabulary, SamplingFlags(), Drawing.BEST, PREFILL)
    for kind, learns in ((EXACT, False), (LEARNING, True)):
        assert {name: learns_off_path(bind(d, binding), d.prepare(lm)) for name, d in kind.items()} == dict.fromkeys(
            kind, learns
        )


def test_drafts_as_long_as_a_context_are_followed_too() -> None:
    lm, deep = toy(), drafters.jacobi(120)
    binding = Binding(lm.config.vocabulary, SamplingFlags(), Drawing.BEST, PREFILL)
    assert deep.depth > 16 + PREFILL and learns_off_path(bind(deep, binding), deep.prepare(lm))


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(drafter, *_):
        return statistics.empty(11, len(drafter.sources), drafter.depth), np.zeros((len(drafter.widths),), int)

    monkeypatch.setattr(replaying, "_run", nothing)


def test_what_chooses_its_width_is_not_exact(nothing_runs: None) -> None:
    kept, part = recording(), drafters.suffix(width=4)
    assert replay(kept, drafters.mix(part, budget=4)).exact
    assert not replay(kept, drafters.mix(part, budget=4, widths=(0, 4))).exact


def test_memory_deeper_than_the_tail_is_not_exact(nothing_runs: None) -> None:
    kept = recording(tail=2)
    assert kept.tail == 2
    deep, shallow, forgetful = drafters.corpus(3, 256), drafters.corpus(2, 256), drafters.suffix(width=9)
    assert not replay(kept, deep, lanes=2).exact
    assert replay(kept, deep).exact and replay(kept, shallow, lanes=2).exact and replay(kept, forgetful, lanes=2).exact


@dataclasses.dataclass(frozen=True)
class Peeking(Stateless):
    """Copies what stands beyond the text, where nothing is to be read."""

    nodes = depth = 4
    sources = ("peeking",)
    is_chain = True

    def propose(self, params, state, context):
        place = jnp.minimum(context.length[:, None] + jnp.arange(4), context.tokens.shape[1] - 1)
        return chain(jnp.take_along_axis(context.tokens, place, axis=1), jnp.full_like(context.length, 4)), state


def test_the_future_is_hidden_from_drafters() -> None:
    kept = recording(seed=4)
    replayed = replay(kept, Peeking())
    zeros = sum(answer.count(0) for answer in kept.answers())
    assert replayed.statistics.accepted <= zeros < replayed.statistics.tokens / 2


def test_the_verdict_on_a_tree() -> None:
    tokens = jnp.array([[5, 6, 7, 8, 9, 0, 0, 0]])
    top = jnp.stack([tokens * 10, tokens * 10 + 1], axis=2)
    texts = Texts(tokens, jnp.array([1]), jnp.array([4]), jnp.array([5]), top)
    one = jnp.array([2])
    context = Context(tokens, one, jnp.array([1]), jnp.array([0], jnp.uint32), jnp.array([True]))
    # Root 6; below it 7 twice, the first not valid, and a wrong 3; 8 below each; 9, then a guess beyond what is known.
    ids = jnp.array([[7, 7, 3, 8, 8, 8, 9, 1]])
    parent = jnp.array([[0, 0, 0, 1, 2, 3, 5, 7]])
    depth = jnp.array([[1, 1, 1, 2, 2, 2, 3, 4]])
    valid = jnp.array([[False, True, True, True, True, True, True, True]])
    draft = Draft(ids, parent, depth, jnp.zeros_like(ids), valid, jnp.zeros_like(ids))
    judge = jax.jit(replaying.judge, static_argnums=(5, 6))
    verdict = judge(draft, context, texts, jnp.array([0]), jnp.int32(8), 4, 1)
    assert verdict.accepted.tolist() == [3]
    assert verdict.path.tolist() == [[0, 2, 5, 7, 0]]
    assert verdict.ids.tolist()[0][:4] == [7, 8, 9, -1]
    assert verdict.chosen.tolist() == [[7, 8, 8, -1, 9, 9, -1, -1, -1]]
    assert verdict.top[0, :, 0].tolist() == [60, 70, 70, -1, 80, 80, -1, 90, -1]
    four = draft._replace(valid=valid & (jnp.arange(8) < 4))
    narrow = judge(four, context, texts, jnp.array([0]), jnp.int32(4), 4, 1)
    assert narrow.accepted.tolist() == [1] and narrow.chosen[0, 5:].tolist() == [-1] * 4
    assert narrow.top.tolist()[0][5:] == [[-1]] * 4


def test_mistakes_are_named(small_recording: Recording) -> None:
    with pytest.raises(ValueError, match="lanes=0"):
        replay(small_recording, EXACT["suffix"], lanes=0)
    with pytest.raises(ValueError, match=r"step_seconds=\(1.0, 2.0\)"):
        replay(small_recording, EXACT["suffix"], step_seconds=(1.0, 2.0))
    with pytest.raises(ValueError, match="record with top=5"):
        replay(small_recording, drafters.token_recycling(branches=5, nodes=8, start="empty"), toy())
    with pytest.raises(ValueError, match="pass the recorded model"):
        replay(small_recording, EXACT["ngrammys"])
    with pytest.raises(ValueError, match="small has 17 ids"):
        replay(small_recording, EXACT["suffix"], small_transformer())


@pytest.fixture(scope="module")
def small_recording() -> Recording:
    return recording().first(2)
