"""What cannot be honoured is refused by name before anything compiles."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.decode.loop import run_slice
from jaxspec.drafters.autoregressive import Autoregressive
from jaxspec.engine.job import build_job
from jaxspec.engine.request import Request

LM = toy_model(3, context=100)

CASES = {
    "empty prompt": (dict(prompts=[[1], []]), "prompt 1 is empty"),
    "empty text": (dict(prompts=[""]), "prompt 0 is empty"),
    "id outside": (dict(prompts=[[1, 7]]), "prompt 0 holds id 7, outside the vocabulary of 7"),
    "negative id": (dict(prompts=[[-1]]), "holds id -1"),
    "beyond context": (dict(prompts=[[1] * 100]), "prompt 0 has 100 tokens, and the model's context holds 100"),
    "beyond cache": (dict(prompts=[[1] * 40], cache=40), "the cache holds 40"),
    "cache": (dict(cache=1), "cache=1 is below 2"),
    "lanes": (dict(lanes=0), "lanes=0 is below 1"),
    "max_new_tokens": (dict(max_new_tokens=-1), "max_new_tokens=-1 is negative"),
    "temperature": (dict(temperature=-0.5), "temperature=-0.5 is out of range"),
    "nan temperature": (dict(temperature=float("nan")), "temperature=nan is out of range"),
    "top_k": (dict(top_k=-1), "top_k=-1 is out of range"),
    "cold temperature": (dict(temperature=2e-38), "temperature=2e-38 is out of range"),
    "hot temperature": (dict(temperature=1e39), "temperature=1e[+]39 is out of range"),
    "top_p": (dict(top_p=0.0), "top_p=0.0 is out of range"),
    "tiny top_p": (dict(top_p=1e-50), "top_p=1e-50 is out of range; it must be from 1e-30 to 1"),
    "tiny penalty": (dict(repetition_penalty=1e-50), "repetition_penalty=1e-50 is out of range"),
    "drafter not called": (dict(drafter=drafters.best), "proposes nothing; call it"),
    "acceptance not called": (dict(acceptance=jaxspec.Typical), "acceptance=Typical is a class; call it"),
    "acceptance": (dict(acceptance=0.5), "acceptance=0.5 is no rule; give one, or the name of one: greedy, coupled"),
    "min_p": (dict(min_p=1.5), "min_p=1.5 is out of range"),
    "penalty": (dict(repetition_penalty=0.0), "repetition_penalty=0.0 is out of range"),
    "seed": (dict(seed=-1), "seed=-1 is out of range"),
    "seeds": (dict(prompts=[[1], [2]], seed=[1]), "seed holds 1 values for 2 prompts"),
    "temperatures": (dict(prompts=[[1], [2]], temperature=[0.0, 0.5, 1.0]), "temperature holds 3 values for 2"),
    "one temperature": (dict(prompts=[[1], [2]], temperature=[0.0, -1.0]), "temperature=-1.0 is out of range"),
    "max_draft": (dict(max_draft=-1), "max_draft=-1 is negative"),
    "empty stop": (dict(stop=["ab", ""]), "empty string"),
    "bare stop": (dict(stop="ab"), "pass a list"),
    "stop that is none": (dict(stop=3), "stop=3 is no list of strings"),
    "ids in passing": (dict(stop=iter([3])), "stop holds 3, which is no string"),
    "stop id": (dict(stop_ids=[9]), "stop_ids holds 9"),
    "banned id": (dict(banned_ids=[-2]), "banned_ids holds -2"),
    "all banned": (dict(banned_ids=list(range(7))), "whole vocabulary"),
    "bytes": (dict(prompts=b"\1\2"), r"prompt 0 is b'.x01.x02', neither text nor token ids; decode it"),
    "bytes among prompts": (dict(prompts=[[1], bytearray(b"\1")]), "prompt 1 is bytearray.*decode it"),
    "fractional id": (dict(prompts=[[1.9, 2]]), "prompt 0 holds 1.9, which is no token id"),
    "fractional ids": (dict(prompts=np.array([[1.0, 2.0]])), "prompt 0 holds 1.0, which is no token id"),
    "nested ids": (dict(prompts=[[[1], [2]]]), r"prompt 0 holds \[1\], which is no token id"),
    "no prompts": (dict(prompts=5), "prompts=5 is neither text nor"),
    "no array": (dict(prompts=jnp.array(5)), "is neither text nor"),
    "no sequence": (dict(prompts=[[1], 5]), "prompt 1 is 5; give a text, or a sequence"),
    "fractional tokens": (dict(max_new_tokens=12.7), "max_new_tokens=12.7 is not an integer"),
    "fractional tokens of one": (dict(prompts=[[1], [2]], max_new_tokens=[5, 1.5]), "max_new_tokens=1.5 is not"),
    "no tokens": (dict(max_new_tokens=None), "max_new_tokens=None is not an integer"),
    "fractional draft": (dict(max_draft=1.5), "max_draft=1.5 is not an integer"),
    "fractional top_k": (dict(top_k=np.float32(2.5)), "top_k=2.5 is not an integer"),
    "text for a number": (dict(temperature="warm"), "temperature='warm' is text"),
    "nothing for a number": (dict(top_p=None), "top_p=None is not a number"),
    "fractional lanes": (dict(lanes=1.5), "lanes=1.5 is not an integer"),
    "fractional cache": (dict(cache=64.5), "cache=64.5 is not an integer"),
    "stop of ids": (dict(stop=[3]), "stop holds 3, which is no string"),
    "bare stop id": (dict(stop_ids=3), "stop_ids=3 is one id; pass a list"),
    "fractional stop id": (dict(stop_ids=[1.5]), "an id of stop_ids=1.5 is not an integer"),
    "fractional ban": (dict(banned_ids=[1.5]), "an id of banned_ids=1.5 is not an integer"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_before_compilation(name: str) -> None:
    settings, message = CASES[name]
    before = run_slice._cache_size()
    with pytest.raises(ValueError, match=message):
        jaxspec.generate(LM, **({"prompts": [[1, 2]]} | settings))
    assert run_slice._cache_size() == before


class MakesAModel(Autoregressive):
    def of_target(self, language_model):
        raise AssertionError("made ready")


class BuildsTables(Autoregressive):
    def prepare(self, language_model):
        raise AssertionError("made ready")


@pytest.mark.parametrize("drafter", [MakesAModel(), BuildsTables()], ids=lambda drafter: type(drafter).__name__)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(stop=[""]), "empty string"),
        (dict(stop_ids=[9]), "stop_ids holds 9"),
        (dict(banned_ids=[-2]), "banned_ids holds -2"),
        (dict(banned_ids=list(range(7))), "whole vocabulary"),
        (dict(lanes=0), "lanes=0"),
        (dict(cache=1), "cache=1"),
        (dict(prompts=[[1] * 100]), "has 100 tokens"),
        (dict(acceptance="greedy", temperature=0.5), "cannot draw"),
    ],
)
def test_settings_are_refused_before_a_drafter_is_made_ready(drafter, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jaxspec.generate(LM, **({"prompts": [[1, 2]], "drafter": drafter} | settings))
    with pytest.raises(AssertionError, match="made ready"):
        jaxspec.generate(LM, [[1, 2]], drafter=drafter)


def test_no_new_tokens_is_an_empty_answer() -> None:
    out = jaxspec.generate(LM, [[1, 2], [3]], max_new_tokens=0)
    assert out.ids == [[], []] and out.texts == ["", ""] and out.finish == ["length"] * 2
    assert out.statistics.target_calls == 0 and out.statistics.tokens_per_call == 0.0
    assert list(jaxspec.stream(LM, [1, 2], max_new_tokens=0)) == []


def test_no_prompts_is_no_answer() -> None:
    out = jaxspec.generate(LM, [])
    assert out.ids == [] and out.statistics.tokens == 0


def test_one_text_is_a_job_of_one() -> None:
    assert jaxspec.generate(LM, "abc", max_new_tokens=3).ids == jaxspec.generate(LM, [0, 1, 2], max_new_tokens=3).ids


@pytest.mark.parametrize(
    "prompts",
    [
        np.array([1, 2, 3]),
        jnp.array([1, 2, 3]),
        [jnp.int32(1), jnp.int32(2), jnp.int32(3)],
        [np.int64(1), 2, 3],
        jnp.array([[1, 2, 3]]),
        [jnp.array([1, 2, 3])],
        ((1, 2, 3),),
    ],
    ids=lambda prompts: type(prompts).__name__,
)
def test_ids_come_as_lists_or_arrays(prompts) -> None:
    assert (
        jaxspec.generate(LM, prompts, max_new_tokens=3).ids == jaxspec.generate(LM, [[1, 2, 3]], max_new_tokens=3).ids
    )


@pytest.mark.parametrize("large", [2**31 - 1, 3_000_000_000, 2**70])
def test_numbers_beyond_all_limits_are_no_limit(large: int) -> None:
    settings = dict(max_new_tokens=large, temperature=0.7, drafter=drafters.context_ngram(width=4))
    free = jaxspec.generate(LM, [[1, 2]], **settings)
    assert free.finish == ["cache"] and len(free.ids[0]) == 98
    assert jaxspec.generate(LM, [[1, 2]], **settings, top_k=large, max_draft=large).ids == free.ids


def test_numbers_of_arrays_are_numbers() -> None:
    plain = jaxspec.generate(LM, [[1, 2]], max_new_tokens=5, seed=3, temperature=0.5)
    arrays = jaxspec.generate(LM, [[1, 2]], max_new_tokens=np.int64(5), seed=jnp.uint32(3), temperature=np.float64(0.5))
    assert arrays.ids == plain.ids


def test_a_cache_beyond_the_context_takes_no_memory() -> None:
    job = build_job(LM, [Request((1, 2), 9)], drafters.autoregressive(), cache=10**9)
    assert job.shape.slots == 128
    assert jaxspec.generate(LM, [[1, 2]], max_new_tokens=3, cache=10**9).ids == jaxspec.generate(
        LM, [[1, 2]], max_new_tokens=3, cache=100
    ).ids  # fmt: skip


def test_the_smallest_settings_are_greedy() -> None:
    greedy = jaxspec.generate(LM, [[1, 2]], max_new_tokens=8)
    for least in (dict(temperature=1e-30), dict(temperature=1.0, top_p=1e-30)):
        out = jaxspec.generate(LM, [[1, 2]], max_new_tokens=8, **least)
        assert out.ids == greedy.ids and out.finish == greedy.finish


def test_none_stops_nothing() -> None:
    free = jaxspec.generate(LM, "abc", max_new_tokens=3)
    assert jaxspec.generate(LM, "abc", max_new_tokens=3, stop=None, stop_ids=None, banned_ids=None).ids == free.ids
    assert "".join(jaxspec.stream(LM, "abc", max_new_tokens=3, stop=None)) == free.texts[0]


def test_an_answer_may_reach_the_end_of_the_context() -> None:
    out = jaxspec.generate(LM, [[1] * 95], drafter=drafters.context_ngram(width=4), max_new_tokens=50)
    assert out.finish == ["cache"] and len(out.ids[0]) == 5


def test_strict_refuses_trees() -> None:
    class Tree:
        nodes, depth, sources, is_chain = 3, 2, (), False

    with pytest.raises(ValueError, match="strict=True needs"):
        jaxspec.generate(LM, [[1]], drafter=Tree(), strict=True)


def test_stream_needs_one_prompt_and_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="one prompt, not 2"):
        jaxspec.stream(LM, ["a", "b"])


@pytest.mark.parametrize(("setting", "message"), [
    ({"block": 0}, "block=0 is below 1"), ({"cache": 101}, "cache=101 is beyond"), ({"lanes": 0}, "lanes=0"),
])  # fmt: skip
def test_plans_are_checked(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jaxspec.plan(LM, **({"cache": 64} | setting))


def test_a_scoring_model_says_no_tokens() -> None:
    scoring = dataclasses.replace(LM, config=dataclasses.replace(LM.config, outputs=1), name="reward")
    for refused in (
        lambda: jaxspec.generate(scoring, [[1]]),
        lambda: jaxspec.stream(scoring, "ab"),
        lambda: jaxspec.plan(scoring, cache=64),
        lambda: jaxspec.generate(LM, [[1]], drafter=drafters.draft_model(scoring)),
    ):
        with pytest.raises(ValueError, match="reward is a scoring model: it puts out 1 numbers a token and no text"):
            refused()


def test_a_pass_must_fit_the_cache() -> None:
    with pytest.raises(ValueError, match="cache=40 cannot hold a pass of 64 tokens"):
        jaxspec.generate(LM, [[1]], drafter=drafters.jacobi(n=64), cache=40)
    with pytest.raises(ValueError, match="n=128 needs passes of 128 tokens, and the model's context holds 100"):
        jaxspec.generate(LM, [[1]], drafter=drafters.jacobi(n=128))


def test_a_drafter_is_not_its_name() -> None:
    with pytest.raises(ValueError, match="drafter='best' is text; build one"):
        jaxspec.generate(LM, [[1]], drafter="best")  # type: ignore[arg-type]


def test_pieces_of_a_stream_take_passes() -> None:
    with pytest.raises(ValueError, match="slice_ticks=0 is below 1"):
        jaxspec.stream(LM, "ab", slice_ticks=0)
    with pytest.raises(ValueError, match="slice_ticks=1.5 is not an integer"):
        jaxspec.stream(LM, "ab", slice_ticks=1.5)  # type: ignore[arg-type]
