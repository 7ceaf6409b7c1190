"""Results of single prompts, as they are finished."""

import pytest
from toy_model import toy_model

import jaxspec
from jaxspec.engine.result import PromptResult, generation_of

LM = toy_model(1)
PROMPTS = [[index % 7, (3 * index) % 7] for index in range(30)]  # more than the queue of one lane holds
SETTINGS = dict(lanes=1, cache=128, stop=["gg"], logprobs=True)
LENGTHS = [0 if index == 4 else 40 + index for index in range(30)]


@pytest.fixture(scope="module")
def whole() -> jaxspec.Generation:
    return jaxspec.generate(LM, PROMPTS, max_new_tokens=LENGTHS, **SETTINGS)


def test_every_prompt_gives_its_result_once(whole) -> None:
    given: list[tuple[int, PromptResult]] = []
    out = jaxspec.generate(LM, PROMPTS, max_new_tokens=LENGTHS, on_result=lambda *pair: given.append(pair), **SETTINGS)
    results = dict(given)
    assert len(given) == len(results) == len(PROMPTS)
    ordered = [results[index] for index in range(len(PROMPTS))]
    assert generation_of(ordered, out.prefill_seconds, out.decode_seconds) == out
    assert (out.ids, out.texts, out.logprobs, out.statistics) == (
        whole.ids, whole.texts, whole.logprobs, whole.statistics
    )  # fmt: skip


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_finished_outlives_an_interrupt(whole, error: type[BaseException]) -> None:
    finished: dict[int, PromptResult] = {}

    def interrupt(done: int, of: int) -> None:
        assert of == len(PROMPTS)
        if done > 8:
            raise error

    with pytest.raises(error):
        jaxspec.generate(
            LM, PROMPTS, max_new_tokens=LENGTHS, progress=interrupt, on_result=finished.__setitem__, **SETTINGS
        )
    assert 8 < len(finished) < len(PROMPTS)
    assert all(result.ids == whole.ids[index] for index, result in finished.items())


@pytest.mark.parametrize(
    ("acceptance", "temperature", "lossless"),
    [
        (None, [0.0, 0.0], [True, True]),
        ("coupled", [0.9, 0.9], [True, True]),
        ("rejection", [0.9, 0.9], [True, True]),
        ("typical", [0.0, 0.9], [True, False]),  # drawing nothing, it is greedy
        ("typical", [0.0, 0.0], [True, True]),
    ],
)
def test_typical_acceptance_is_not_lossless(acceptance, temperature: list[float], lossless: list[bool]) -> None:
    results: dict[int, PromptResult] = {}
    out = jaxspec.generate(
        LM, [[1], [2]], max_new_tokens=0, acceptance=acceptance, temperature=temperature, on_result=results.__setitem__
    )
    assert [results[0].lossless, results[1].lossless] == lossless and out.lossless == all(lossless)
