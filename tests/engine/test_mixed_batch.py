"""Settings of each request as data: a mixed batch says what every request says on its own, in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer
from toy_model import toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.decode.loop import run_slice
from jaxspec.decode.types import Drafter
from jaxspec.train.forward import forward

NEW = 20
PROMPTS = [[1, 2, 3, 1, 2], [4, 0, 4, 0], [2], [6, 5, 6, 5, 6], [3, 3, 3], [0, 1, 2, 3, 0, 1]]
SETTINGS = {
    "temperature": [0.0, 0.9, 0.0, 1.3, 0.7, 0.0],
    "top_k": [0, 3, 0, 0, 5, 0],
    "top_p": [1.0, 1.0, 1.0, 0.8, 1.0, 1.0],
    "min_p": [0.0, 0.0, 0.0, 0.0, 0.1, 0.0],
    "repetition_penalty": [1.0, 1.2, 1.0, 1.0, 1.0, 1.1],
    "seed": [0, 1, 2, 3, 4, 5],
    "max_draft": [0, None, 2, 1, 0, None],
    "max_new_tokens": [20, 7, 15, 20, 1, 18],
}
FAST = ("context_ngram", "draft_model")
DRAFTERS = {
    "context_ngram": drafters.context_ngram(width=5),
    "token_recycling": drafters.token_recycling(branches=3, nodes=12, start="empty"),
    "draft_model": drafters.draft_model(toy_model(5), 3),
    "jacobi": drafters.jacobi(5, "rolling"),
}


def with_companion(index: int) -> dict:
    """Settings of one request, and of another that needs every transform, so that all jobs run one program."""
    return {setting: [values[index], values[1]] for setting, values in SETTINGS.items()}


@pytest.mark.parametrize(
    "name",
    ["context_ngram", "draft_model", *(pytest.param(n, marks=pytest.mark.slow) for n in ("token_recycling", "jacobi"))],
)
def test_every_request_equals_its_own_run(name: str) -> None:
    lm, shape = toy_model(0), {"lanes": 2, "cache": 128}
    together = jaxspec.generate(lm, PROMPTS, drafter=DRAFTERS[name], **shape, **SETTINGS)
    assert 0 < together.statistics.accepted < together.statistics.drafted
    for index, prompt in enumerate(PROMPTS):
        pair = [prompt, PROMPTS[1]]
        alone = jaxspec.generate(lm, pair, drafter=DRAFTERS[name], **shape, **with_companion(index))
        plain = jaxspec.generate(lm, pair, **shape, **with_companion(index))
        assert together.ids[index] == alone.ids[0] == plain.ids[0]
        assert together.statistics.per_prompt[index].drafted == 0 or SETTINGS["max_draft"][index] != 0


@pytest.mark.parametrize("index", [0, 1])
def test_a_single_run_compiled_for_itself_says_the_same(index: int) -> None:
    together = jaxspec.generate(
        toy_model(0), PROMPTS, drafter=DRAFTERS["context_ngram"], lanes=2, cache=128, **SETTINGS
    )
    own = {setting: values[index] for setting, values in SETTINGS.items()}
    alone = jaxspec.generate(toy_model(0), PROMPTS[index], drafter=DRAFTERS["context_ngram"], **own)
    assert together.ids[index] == alone.ids[0]


@pytest.mark.parametrize(
    "drafter",
    [DRAFTERS["context_ngram"], pytest.param(drafters.draft_model(toy_model(0), 3), marks=pytest.mark.slow)],
    ids=["context_ngram", "draft_model"],
)
def test_drafts_are_as_long_as_a_request_allows(drafter: Drafter) -> None:
    settings = {"max_new_tokens": 40, "max_draft": [0, 1, 2, None]}
    found = jaxspec.generate(toy_model(0), [[1, 2, 1, 2]] * 4, drafter=drafter, **settings)
    longest = [max(np.flatnonzero(part.histogram)) for part in found.statistics.per_prompt]
    assert longest[0] == 0 and longest[1] <= 1 and longest[2] <= 2 < longest[3]
    assert found.ids[0] == found.ids[3]


def test_one_program_serves_all_settings() -> None:
    lm, drafter = toy_model(0), DRAFTERS["context_ngram"]
    sampled = {"temperature": 0.5, "acceptance": "coupled", "max_new_tokens": 8, "cache": 128}
    jaxspec.generate(lm, PROMPTS[:2], drafter=drafter, **sampled)
    before = run_slice._cache_size()
    jaxspec.generate(lm, PROMPTS[:2], drafter=drafter, max_draft=[0, 3], **sampled)
    jaxspec.generate(lm, PROMPTS[:2], drafter=drafter, **(sampled | {"temperature": [0.0, 1.5]}))
    assert run_slice._cache_size() == before


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_logprobs_are_those_of_a_plain_forward_pass(temperature: float) -> None:
    lm = small_transformer()
    prompts = [[5, 9, 2, 5, 9], [1, 2, 3]]
    out = jaxspec.generate(
        lm,
        prompts,
        drafter=drafters.context_ngram(4),
        max_new_tokens=12,
        temperature=temperature,
        top_k=20,
        logprobs=True,
    )
    assert out.logprobs is not None
    for prompt, ids, logprobs in zip(prompts, out.ids, out.logprobs, strict=True):
        text = jnp.asarray([[*prompt, *ids]], jnp.int32)
        expected = jax.nn.log_softmax(forward(lm.params, lm.config, text).astype(jnp.float32))[0]
        told = [float(expected[len(prompt) + place - 1, token]) for place, token in enumerate(ids)]
        np.testing.assert_allclose(logprobs, told, atol=2e-4)
    assert jaxspec.generate(lm, prompts, max_new_tokens=2).logprobs is None
