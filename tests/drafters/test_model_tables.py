"""The model bigram is the model's own opinion of single tokens, and is kept for its weights alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import small_transformer
from toy_model import toy_model

import jaxspec
from jaxspec.drafters import model_tables
from jaxspec.drafters.model_ngram import model_bigram
from jaxspec.drafters.ngrammys import ngrammys
from jaxspec.models.cache import init_cache
from jaxspec.models.model_fn import chain_block


def logits_after(lm, ids: list[int]) -> np.ndarray:
    cache = init_cache(lm.config, 1, 128, np.float32)
    return np.asarray(lm.model(lm.params, chain_block(np.array([ids], np.int32)), cache).logits[0, -1])


@pytest.mark.parametrize("prefix", [(), (3,), (5, 2)])
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
    more = model_tables.model_bigram(lm, 9, folder=tmp_path)
    assert more.shape == (17, 9)
    np.testing.assert_array_equal(more[:, :3], first)


def test_jobs_read_their_table_once_and_compile_nothing_for_it(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))
    lm, drafter, read, load = toy_model(0), ngrammys(3, 2), [], np.load
    table = drafter.prepare(lm)  # of another process, as it were
    monkeypatch.setattr(np, "load", lambda path, **options: read.append(path) or load(path, **options))
    first = jaxspec.generate(lm, [[1, 2, 3]], drafter=drafter, max_new_tokens=4)
    assert len(read) == 1
    with jax.log_compiles():
        again = jaxspec.generate(lm, [[1, 2, 3]], drafter=drafter, max_new_tokens=4)
    assert len(read) == 1 and again.ids == first.ids
    assert not [message for message in caplog.messages if "Compiling" in message]
    jax.tree.map(np.testing.assert_array_equal, drafter.prepare(lm), table)


def test_a_wider_table_replaces_a_narrow_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(model_tables, "KEPT", 2)
    narrow = model_tables.model_bigram(small_transformer(), 2, folder=tmp_path)
    wide = model_tables.model_bigram(small_transformer(), 5, folder=tmp_path)
    np.testing.assert_array_equal(wide[:, :2], narrow)
    (path,) = tmp_path.glob("*")
    assert model_tables.load_table(path, small_transformer()).shape == (17, 5)


def test_other_weights_have_other_tables(tmp_path) -> None:
    lm = small_transformer()
    others = [
        dataclasses.replace(lm, params=jax.tree.map(lambda p: p * 1.5, lm.params)),
        dataclasses.replace(lm, config=dataclasses.replace(lm.config, window=10)),
        small_transformer("bfloat16"),
    ]
    prints = [model_tables.fingerprint(model) for model in (lm, *others)]
    assert len(set(prints)) == 4 and model_tables.fingerprint(dataclasses.replace(lm)) == prints[0]
    model_tables.model_bigram(lm, 3, folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    assert model_tables.load_table(path, lm).shape == (17, 17)
    for other in others:
        with pytest.raises(ValueError, match="built for other weights"):
            model_tables.load_table(path, other)


def test_a_kept_table_of_other_weights_is_refused_and_not_overwritten(tmp_path) -> None:
    lm = small_transformer()
    model_tables.model_bigram(lm, 3, folder=tmp_path)
    model_tables.model_bigram(lm, 3, folder=tmp_path)  # read, and in memory from now on
    (path,) = tmp_path.glob("*.npz")
    np.savez(path, table=np.zeros((17, 17), np.int32), weights=np.array("0" * 64))
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="built for other weights"):
        model_tables.model_bigram(lm, 3, folder=tmp_path)
    assert path.read_bytes() == kept


def test_a_hash_of_weights_leaves_no_copies_of_them() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    mesh = jax.make_mesh((4,), ("part",))
    spread = jax.device_put(values, jax.NamedSharding(mesh, jax.P("part")))
    models = [dataclasses.replace(small_transformer(), params={"kernel": kernel}) for kernel in (values, spread)]
    assert model_tables.fingerprint(models[0]) == model_tables.fingerprint(models[1])
    assert spread._npy_value is None  # where an array keeps what was read of it, and was not in one piece before


def test_a_place_that_cannot_be_written_costs_one_reading_of_the_model(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(model_tables, "_unwritten", {})
    lm, folder = small_transformer(), tmp_path / "file"
    folder.touch()
    assert not model_tables.is_kept(lm, folder=folder)
    first = model_tables.model_bigram(lm, 3, folder=folder)
    monkeypatch.setattr(model_tables, "_successors", lambda *_: pytest.fail("built again"))
    np.testing.assert_array_equal(first, model_tables.model_bigram(lm, 3, folder=folder))
    assert model_tables.is_kept(lm, folder=folder) and not model_tables.is_kept(lm, (3,), folder=folder)


def inside_out(kept: bytes) -> bytes:
    """With other bytes where the first array is compressed, the archive's lists of contents left whole."""
    middle = kept.index(b"table.npy") + 60
    return kept[:middle] + bytes(255 - byte for byte in kept[middle : middle + 20]) + kept[middle + 20 :]


@pytest.mark.parametrize(
    "damage", [lambda kept: kept[: len(kept) // 2], lambda kept: b"", lambda kept: b"text" * 9, inside_out]
)
def test_a_damaged_table_is_refused(tmp_path, damage) -> None:
    model_tables.model_bigram(small_transformer(), 3, folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="is not a readable table"):
        model_tables.model_bigram(small_transformer(), 3, folder=tmp_path)


def test_the_cache_folder_is_a_setting(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))
    model_tables.model_bigram(small_transformer(), 3)
    model_tables.model_bigram(small_transformer(), 3, (2,))
    assert len(list((tmp_path / "tables").glob("bigram-*.npz"))) == 2


def test_sizes_are_checked(tmp_path) -> None:
    for k in (0, 18):
        with pytest.raises(ValueError, match=f"k={k} is not between 1 and the vocabulary of 17"):
            model_tables.model_bigram(small_transformer(), k, folder=tmp_path)
    with pytest.raises(ValueError, match="prefix holds id 17, which is not in the vocabulary of 17"):
        model_tables.model_bigram(small_transformer(), 3, (17,), folder=tmp_path)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_extended_bigram_equals_rows_followed_one_by_one(width: int) -> None:
    vocabulary, k = 11, 4
    rng = np.random.default_rng(width)
    bigram = np.stack([rng.permutation(vocabulary)[:k] for _ in range(vocabulary)]).astype(np.int32)
    table = model_tables.extended_bigram(jnp.asarray(bigram), width)
    assert table.first.shape == (vocabulary, k) and table.chain.shape == (vocabulary, width)
    naive = np.zeros((vocabulary, k, width), np.int32)
    for token in range(vocabulary):
        for rank in range(k):
            naive[token, rank, 0] = bigram[token, rank]
            for step in range(1, width):
                naive[token, rank, step] = bigram[naive[token, rank, step - 1], 0]
    rows = table.rows(jnp.arange(vocabulary, dtype=jnp.int32))
    np.testing.assert_array_equal(rows, naive)
    np.testing.assert_array_equal(table.chain, naive[:, 0])


def test_what_begins_every_text_is_the_usual_prefix() -> None:
    class Tokenizer:
        bos_id = 2

        def encode(self, text: str, add_special: bool = True) -> list[int]:
            return [2, 5] if add_special else [5]

    lm = dataclasses.replace(small_transformer(), tokenizer=Tokenizer())
    assert model_tables.prefix_ids(lm, "auto") == (2,)
    assert ngrammys().prefix == model_bigram().prefix == "auto"


def test_a_line_break_is_a_prefix_for_models_with_a_tokenizer(tiny_model_folder) -> None:
    lm = jaxspec.load(tiny_model_folder)
    assert lm.tokenizer is not None
    assert model_tables.prefix_ids(lm, "newline") == tuple(lm.tokenizer.encode("\n", add_special=False)) != ()
    assert model_tables.prefix_ids(lm, "none") == ()
    assert model_tables.prefix_ids(lm, "auto") == model_tables.prefix_ids(lm, "newline")  # it begins texts with nothing
    assert model_tables.prefix_ids(small_transformer(), "auto") == ()
    with pytest.raises(ValueError, match='prefix="newline" needs a tokenizer, which small lacks'):
        model_tables.prefix_ids(small_transformer(), "newline")
    with pytest.raises(ValueError, match="prefix='tab' is not one of auto, none, bos, newline"):
        model_tables.prefix_ids(lm, "tab")
