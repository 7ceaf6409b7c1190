"""What cannot be honoured is refused by name before anything compiles."""

import dataclasses

import pytest
from toy_model import toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.decode.loop import run_slice

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
    "top_p": (dict(top_p=0.0), "top_p=0.0 is out of range"),
    "min_p": (dict(min_p=1.5), "min_p=1.5 is out of range"),
    "penalty": (dict(repetition_penalty=0.0), "repetition_penalty=0.0 is out of range"),
    "seed": (dict(seed=-1), "seed=-1 is out of range"),
    "seeds": (dict(prompts=[[1], [2]], seed=[1]), "seed holds 1 values for 2 prompts"),
    "temperatures": (dict(prompts=[[1], [2]], temperature=[0.0, 0.5, 1.0]), "temperature holds 3 values for 2"),
    "one temperature": (dict(prompts=[[1], [2]], temperature=[0.0, -1.0]), "temperature=-1.0 is out of range"),
    "max_draft": (dict(max_draft=-1), "max_draft=-1 is negative"),
    "empty stop": (dict(stop=["ab", ""]), "empty string"),
    "bare stop": (dict(stop="ab"), "pass a list"),
    "stop id": (dict(stop_ids=[9]), "stop_ids holds 9"),
    "banned id": (dict(banned_ids=[-2]), "banned_ids holds -2"),
    "all banned": (dict(banned_ids=list(range(7))), "whole vocabulary"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_before_compilation(name: str) -> None:
    settings, message = CASES[name]
    before = run_slice._cache_size()
    with pytest.raises(ValueError, match=message):
        jaxspec.generate(LM, **({"prompts": [[1, 2]]} | settings))
    assert run_slice._cache_size() == before


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
