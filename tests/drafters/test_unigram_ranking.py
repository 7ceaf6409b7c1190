"""The closed form against the sum over the vocabulary, and the symmetries of the distance."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer
from toy_model import toy_model

from jaxspec.drafters.unigram_ranking import unigram_ranking, unigram_scores

W, V = 8, 30


def embeddings(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(W, V)).astype(np.float32), rng.normal(size=(W, V)).astype(np.float32)


def test_scores_equal_the_sum_over_the_vocabulary() -> None:
    inputs, outputs = embeddings(0)
    mean = outputs.mean(axis=1)

    def inner(a: np.ndarray, b: np.ndarray) -> float:
        return sum(float(a @ inputs[:, y]) * float(b @ inputs[:, y]) for y in range(V))

    text = [inner(outputs[:, x] - mean, outputs[:, x] - mean) for x in range(V)]
    appendix = [inner(mean, outputs[:, x]) for x in range(V)]
    np.testing.assert_allclose(unigram_scores(inputs, outputs), text, rtol=1e-4)
    np.testing.assert_allclose(unigram_scores(inputs, outputs, "appendix"), appendix, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("variant", ["text", "appendix"])
def test_a_rotated_residual_stream_ranks_the_same(variant: str) -> None:
    inputs, outputs = embeddings(1)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(W, W)))[0].astype(np.float32)
    plain = unigram_scores(inputs, outputs, variant)
    np.testing.assert_allclose(unigram_scores(rotation @ inputs, rotation @ outputs, variant), plain, rtol=1e-3)


def test_the_token_at_the_mean_is_first() -> None:
    inputs, outputs = embeddings(3)
    outputs[:, 11] = np.delete(outputs, 11, axis=1).mean(axis=1)  # which leaves the mean there
    assert int(jnp.argmin(unigram_scores(inputs, outputs))) == 11


def test_a_models_ranking_reads_its_own_kernels() -> None:
    lm = small_transformer()
    assert lm.config.tied
    kernel = lm.params["embedding"]["kernel"]
    ranking = unigram_ranking(lm)
    np.testing.assert_array_equal(ranking, np.argsort(unigram_scores(kernel, kernel), kind="stable"))
    assert ranking.dtype == np.int32 and sorted(ranking.tolist()) == list(range(17))
    head = jnp.flip(kernel, axis=1)
    untied = dataclasses.replace(
        lm, config=dataclasses.replace(lm.config, tied=False), params={**lm.params, "head": {"kernel": head}}
    )
    expected = np.argsort(unigram_scores(kernel, head, "appendix"), kind="stable")
    np.testing.assert_array_equal(unigram_ranking(untied, "appendix"), expected)


def test_what_has_no_ranking_is_refused() -> None:
    with pytest.raises(ValueError, match="variant='norm' is not one of text, appendix"):
        unigram_ranking(small_transformer(), "norm")
    with pytest.raises(ValueError, match="parameters of toy hold no embedding"):
        unigram_ranking(toy_model())
