"""Cheaper versions of a model: what they compute, and what they share with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformer import CONFIG, small_transformer
from toy_model import toy_model

import jaxspec
from jaxspec.models import cache as kv_cache
from jaxspec.models.model_fn import chain_block
from jaxspec.models.quantized_kernel import QuantizedKernel
from jaxspec.models.self_draft import first_layers, self_draft
from jaxspec.weights.quantize import quantize


def logits(lm: jaxspec.LanguageModel) -> np.ndarray:
    ids = jnp.asarray(np.random.default_rng(0).integers(0, lm.config.vocabulary, (2, 9)), jnp.int32)
    cache = kv_cache.init_cache(lm.config, 2, 128, lm.cache_dtype)
    return np.asarray(jax.jit(lm.model)(lm.params, chain_block(ids), cache).logits)


def silenced(lm: jaxspec.LanguageModel, layer: str) -> jaxspec.LanguageModel:
    """`lm` with a layer that adds nothing to the residual stream."""
    nothing = jax.tree.map(jnp.zeros_like, lm.params[layer])
    return dataclasses.replace(lm, params=dict(lm.params) | {layer: nothing})


def test_the_first_layers_are_the_model_whose_others_add_nothing() -> None:
    lm = small_transformer()
    draft = self_draft(lm, "layers=1")
    np.testing.assert_allclose(logits(draft), logits(silenced(lm, "layer_1")), atol=1e-5)
    assert np.abs(logits(draft) - logits(lm)).max() > 0.1


def test_the_first_layers_share_their_weights() -> None:
    lm = small_transformer()
    draft = first_layers(lm, 1)
    assert set(draft.params) == set(lm.params) - {"layer_1"}
    theirs = {id(leaf) for leaf in jax.tree.leaves(lm.params)}
    assert all(id(leaf) in theirs for leaf in jax.tree.leaves(draft.params))
    assert draft.config == dataclasses.replace(CONFIG, layers=1, sliding=(True,))
    assert len(kv_cache.init_cache(draft.config, 1, 128, draft.cache_dtype).keys) == 1
    assert draft.name == "small layers=1"


def test_equal_drafts_share_a_program() -> None:
    lm = small_transformer()
    assert self_draft(lm, "layers=1").model == self_draft(lm, "layers=1").model
    assert self_draft(lm, "int4").model == lm.model


@pytest.mark.parametrize("how", ["int8", "int4", "int4:group=8"])
def test_a_quantised_copy(how: str) -> None:
    lm = small_transformer()
    draft, expected = self_draft(lm, how), quantize(lm, how)
    for ours, theirs in zip(jax.tree.leaves(draft.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert draft.name == f"small {how}"


def test_the_first_layers_of_a_quantised_model() -> None:
    draft = self_draft(quantize(small_transformer(), "int8"), "layers=1")
    assert isinstance(draft.params["layer_0"]["mlp"]["down"]["kernel"], QuantizedKernel)
    assert np.isfinite(logits(draft)).all()


def test_a_draft_decodes() -> None:
    out = jaxspec.generate(self_draft(small_transformer(), "layers=1"), [1, 2, 3], max_new_tokens=8)
    assert len(out.ids[0]) == 8


@pytest.mark.parametrize("how", ["", "half", "layers", "layers=", "layers=x", "layers=-1", "layer=1", "fp8"])
def test_other_texts_are_refused(how: str) -> None:
    with pytest.raises(ValueError, match="is none of int3, int4, int8, int4:group=64 and layers=12"):
        self_draft(small_transformer(), how)


@pytest.mark.parametrize("layers", [0, 2, 12])
def test_numbers_of_layers_that_save_nothing_are_refused(layers: int) -> None:
    with pytest.raises(ValueError, match=f"layers={layers} is not between 1 and 1: small has 2 layers"):
        self_draft(small_transformer(), f"layers={layers}")


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="toy is not a model over transformer_fn, so its layers"):
        self_draft(toy_model(), "layers=1")
    with pytest.raises(ValueError, match="quantize='int4:group=x': 'group=x' is not of the form"):
        self_draft(small_transformer(), "int4:group=x")
