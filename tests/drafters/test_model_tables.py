"""The model bigram is the model's own opinion of single tokens, and is kept for its weights alone."""

import dataclasses

import jax
import numpy as np
import pytest
from small_transformer import small_transformer

from jaxspec.drafters import model_tables
from jaxspec.models.cache import init_cache
from jaxspec.models.model_fn import chain_block


def logits_after(lm, ids: list[int]) -> np.ndarray:
    cache = init_cache(lm.config, 1, 128, np.float32)
    return np.asarray(lm.model(lm.params, chain_block(np.array([ids], np.int32)), cache).logits[0, -1])


@pytest.mark.parametrize("prefix", [(), (3,)])
def test_successors_are_the_models_best(tmp_path, prefix) -> None:
    lm = small_transformer()
    table = np.asarray(model_tables.model_bigram(lm, 4, prefix, folder=tmp_path))
    assert table.shape == (17, 4)
    for token in range(17):
        logits = logits_after(lm, [*prefix, token])
        np.testing.assert_array_equal(table[token], np.argsort(-logits, kind="stable")[:4])


def test_chunks_do_not_matter(tmp_path, monkeypatch) -> None:
    lm = small_transformer()
    whole = model_tables.model_bigram(lm, 3, folder=tmp_path / "a")
    monkeypatch.setattr(model_tables, "CHUNK", 5)
    np.testing.assert_array_equal(whole, model_tables.model_bigram(lm, 3, folder=tmp_path / "b"))


def test_a_table_is_built_once(tmp_path, monkeypatch) -> None:
    lm = small_transformer()
    seen = []
    first = model_tables.model_bigram(lm, 3, folder=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (17, 17)
    monkeypatch.setattr(model_tables, "_successors", lambda *_: pytest.fail("built again"))
    np.testing.assert_array_equal(first, model_tables.model_bigram(lm, 3, folder=tmp_path))


def test_tables_of_other_weights_are_refused(tmp_path) -> None:
    lm = small_transformer()
    other = dataclasses.replace(lm, params=jax.tree.map(lambda p: p * 1.5, lm.params))
    assert model_tables.fingerprint(lm) != model_tables.fingerprint(other)
    model_tables.model_bigram(lm, 3, folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    with pytest.raises(ValueError, match="built for other weights"):
        model_tables.load_table(path, model_tables.fingerprint(other))


def test_sizes_are_checked(tmp_path) -> None:
    for k in (0, 18):
        with pytest.raises(ValueError, match=f"k={k} is not between 1 and the vocabulary of 17"):
            model_tables.model_bigram(small_transformer(), k, folder=tmp_path)
