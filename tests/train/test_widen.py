"""The nets of the benchmark by size: larger, and the same function."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec
from jaxspec.models.transformer import transformer_fn
from jaxspec.tasks.task import find_task
from jaxspec.train.forward import init_params
from jaxspec.train.run import ModelShape


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("jacobi_by_size")


def small_model() -> jaxspec.LanguageModel:
    """Two layers of random weights, whose embeddings and norms are no special case."""
    tokenizer = find_task("text_to_sql").tokenizer()
    config = ModelShape(16, 24, 2, 2).config(tokenizer.vocabulary_size)
    params = jax.tree.map(lambda leaf: leaf * 1.5, init_params(config, jax.random.key(1)))
    return jaxspec.LanguageModel(config, transformer_fn(config), params, tokenizer, jnp.float32, jnp.float32)


def test_a_larger_net_is_the_same_function(benchmark) -> None:
    lm = small_model()
    large = benchmark.enlarged(lm, benchmark.Size(width=40, mlp_width=56, heads=3))
    prompts = [[5, 9, 200, 31], [7]]
    mine, theirs = (jaxspec.generate(each, prompts, max_new_tokens=12, logprobs=True) for each in (lm, large))
    assert theirs.ids == mine.ids
    for one, other in zip(mine.logprobs, theirs.logprobs, strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5)
    kernels = jax.tree.leaves(large.params)
    assert sum(leaf.size for leaf in kernels) > 3 * sum(leaf.size for leaf in jax.tree.leaves(lm.params))


def test_a_smaller_net_or_another_kind_is_refused(benchmark, tiny_model_folder) -> None:
    with pytest.raises(ValueError, match=r"Size\(width=8, mlp_width=56, heads=3\) is smaller than"):
        benchmark.enlarged(small_model(), benchmark.Size(8, 56, 3))
    grouped = jaxspec.load(tiny_model_folder)
    with pytest.raises(ValueError, match="is not made of equal heads"):
        benchmark.enlarged(grouped, benchmark.Size(512, 512, 16))
