"""Models from elsewhere: anything with the `ModelFn` signature decodes, NNX modules among them."""

import dataclasses

import numpy as np
from flax import nnx
from toy_model import ToyModelFn, greedy_continuation, toy_model

import jaxspec
from jaxspec.decode.loop import run_slice

LM = toy_model(4)


class NnxToy(nnx.Module):
    """The toy model's arithmetic with its table held by NNX."""

    def __init__(self, table) -> None:
        self.table = nnx.Param(table)

    def __call__(self, block, cache, *, with_logits: bool = True):
        return ToyModelFn(7, 2)({"table": self.table[...]}, block, cache, with_logits=with_logits)


def test_an_nnx_module_says_what_its_arithmetic_says() -> None:
    fn, params = jaxspec.from_nnx(NnxToy(LM.params["table"]))
    lm = dataclasses.replace(LM, model=fn, params=params)
    prompts = [[1, 2, 3], [4], [5, 5, 6, 0] * 4]
    drafter = jaxspec.drafters.context_ngram(width=4)
    out = jaxspec.generate(lm, prompts, drafter=drafter, max_new_tokens=20)
    assert out.ids == [greedy_continuation(LM, prompt, 20) for prompt in prompts]
    assert out.statistics.tokens_per_call > 1


def test_two_modules_of_one_graph_share_a_program() -> None:
    first, params = jaxspec.from_nnx(NnxToy(LM.params["table"]))
    second, other = jaxspec.from_nnx(NnxToy(LM.params["table"] + 0))
    assert first == second and hash(first) == hash(second)
    drafter = jaxspec.drafters.context_ngram(width=2)
    jaxspec.generate(dataclasses.replace(LM, model=first, params=params), [[1, 2]], drafter=drafter, max_new_tokens=5)
    before = run_slice._cache_size()
    lm = dataclasses.replace(LM, model=second, params=other)
    out = jaxspec.generate(lm, [[1, 2]], drafter=drafter, max_new_tokens=5)
    assert run_slice._cache_size() == before
    np.testing.assert_array_equal(out.ids[0], greedy_continuation(LM, [1, 2], 5))
