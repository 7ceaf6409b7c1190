"""Published tensors land where the transformer looks for them, and every misfit is named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import chain_block
from jaxspec.models.transformer import transformer_fn
from jaxspec.weights.parameters import assemble, entries, parameter_shapes, partition

LLAMA = ModelConfig("llama", 24, 16, 32, 2, 4, 2, 8)
CONFIGS = {
    "llama": LLAMA,
    "tied": dataclasses.replace(LLAMA, tied=True),
    "biases": dataclasses.replace(LLAMA, qkv_bias=True, output_bias=True, mlp_bias=True),
    "qwen2": dataclasses.replace(LLAMA, family="qwen2", qkv_bias=True),
    "qwen3": dataclasses.replace(LLAMA, family="qwen3", query_key_norm=True, head_width=6),
    "gemma3": dataclasses.replace(
        LLAMA, family="gemma3", query_key_norm=True, sandwich_norm=True, norm_offset=True, tied=True
    ),
}


class Tensors(dict):
    """A dictionary as a source."""

    def names(self):
        return self

    def shape(self, name):
        return self[name].shape

    def read(self, name):
        return self[name]


def published(config: ModelConfig) -> Tensors:
    random = np.random.default_rng(0)
    return Tensors(
        {
            name: random.normal(size=shape).astype(np.float32)
            for entry in entries(config)
            for name, shape in zip(entry.names, entry.shapes, strict=True)
        }
    )


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_tree_is_the_one_the_transformer_makes(name: str) -> None:
    config = CONFIGS[name]
    cache = kv_cache.init_cache(config, 1, 16, jnp.float32)
    block = chain_block(jnp.zeros((1, 1), jnp.int32))
    made = jax.eval_shape(transformer_fn(config).module.init, jax.random.key(0), block, cache)["params"]
    assert shapes(parameter_shapes(config, jnp.float32)) == shapes(made)
    assert shapes(assemble(published(config), config, dtype=jnp.float32)) == shapes(made)


def test_where_tensors_go() -> None:
    config = CONFIGS["biases"]
    source = published(config)
    params = assemble(source, config, dtype=jnp.float32)
    layer, theirs = params["layer_1"], "model.layers.1"
    np.testing.assert_array_equal(params["embedding"]["kernel"], source["model.embed_tokens.weight"].T)
    np.testing.assert_array_equal(params["head"]["kernel"], source["lm_head.weight"].T)
    np.testing.assert_array_equal(params["final_norm"]["scale"], source["model.norm.weight"])
    qkv, bias = layer["attention"]["qkv"]["kernel"], layer["attention"]["qkv"]["bias"]
    for part, columns in (("q", slice(0, 32)), ("k", slice(32, 48)), ("v", slice(48, 64))):
        np.testing.assert_array_equal(qkv[:, columns], source[f"{theirs}.self_attn.{part}_proj.weight"].T)
        np.testing.assert_array_equal(bias[columns], source[f"{theirs}.self_attn.{part}_proj.bias"])
    gate_up = layer["mlp"]["gate_up"]
    np.testing.assert_array_equal(gate_up["kernel"][:, :32], source[f"{theirs}.mlp.gate_proj.weight"].T)
    np.testing.assert_array_equal(gate_up["kernel"][:, 32:], source[f"{theirs}.mlp.up_proj.weight"].T)
    np.testing.assert_array_equal(gate_up["bias"][32:], source[f"{theirs}.mlp.up_proj.bias"])
    np.testing.assert_array_equal(layer["mlp"]["down"]["kernel"], source[f"{theirs}.mlp.down_proj.weight"].T)
    np.testing.assert_array_equal(layer["mlp_norm"]["scale"], source[f"{theirs}.post_attention_layernorm.weight"])
    np.testing.assert_array_equal(layer["attention_norm"]["scale"], source[f"{theirs}.input_layernorm.weight"])


def test_gemma_has_four_norms_of_its_own_names() -> None:
    source = published(CONFIGS["gemma3"])
    layer = assemble(source, CONFIGS["gemma3"], dtype=jnp.float32)["layer_0"]
    for ours, theirs in {
        "attention_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "post_mlp_norm": "post_feedforward_layernorm",
    }.items():
        np.testing.assert_array_equal(layer[ours]["scale"], source[f"model.layers.0.{theirs}.weight"])


def test_every_misfit_is_reported_at_once() -> None:
    source = published(LLAMA)
    del source["model.norm.weight"], source["model.layers.1.mlp.up_proj.weight"]
    source["model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.float32)
    source["lm_head.weight"] = np.zeros((25, 16), np.float32)
    with pytest.raises(ValueError) as caught:
        assemble(source, LLAMA, dtype=jnp.float32)
    message = str(caught.value)
    assert "missing model.norm.weight" in message and "missing model.layers.1.mlp.up_proj.weight" in message
    assert "unexpected model.layers.0.self_attn.q_proj.bias" in message
    assert "lm_head.weight has shape (25, 16), not (24, 16)" in message and "\n" not in message


def test_long_lists_of_misfits_are_cut() -> None:
    with pytest.raises(ValueError, match="and 13 more"):
        assemble(Tensors(), LLAMA, dtype=jnp.float32)


def test_copies_of_a_tied_embedding_and_rotary_tables_are_passed_over() -> None:
    config = CONFIGS["tied"]
    source = published(config)
    plain = assemble(source, config, dtype=jnp.float32)
    source["lm_head.weight"] = source["model.embed_tokens.weight"]
    source["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    jax.tree.map(np.testing.assert_array_equal, assemble(source, config, dtype=jnp.float32), plain)


def test_integers_are_no_weights() -> None:
    source = published(LLAMA)
    source["model.norm.weight"] = np.ones(16, np.int8)
    with pytest.raises(ValueError, match="model.norm.weight has type int8"):
        assemble(source, LLAMA, dtype=jnp.float32)


def test_parameters_do_not_share_memory_with_their_source() -> None:
    source = published(LLAMA)
    params = assemble(source, LLAMA, dtype=jnp.float32)
    before = jax.tree.map(np.array, params)
    for tensor in source.values():
        tensor[...] = np.nan
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_other_types() -> None:
    source = published(LLAMA)
    narrow = assemble(source, LLAMA, dtype=jnp.bfloat16)
    wide = assemble(source, LLAMA, dtype=jnp.float32)
    jax.tree.map(lambda n, w: np.testing.assert_array_equal(n, w.astype(jnp.bfloat16)), narrow, wide)


def test_onto_a_mesh() -> None:
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    source = published(CONFIGS["biases"])
    params = assemble(source, CONFIGS["biases"], dtype=jnp.float32, sharding=partition(mesh))
    layer = params["layer_0"]
    assert layer["attention"]["qkv"]["kernel"].sharding.spec == PartitionSpec(None, "model")
    assert layer["attention"]["output"]["kernel"].sharding.spec == PartitionSpec("model", None)
    assert layer["mlp"]["gate_up"]["kernel"].sharding.spec == PartitionSpec(None, "model")
    assert layer["mlp"]["down"]["kernel"].sharding.spec == PartitionSpec("model", None)
    assert params["embedding"]["kernel"].sharding.spec == PartitionSpec(None, "model")
    assert layer["mlp_norm"]["scale"].sharding.is_fully_replicated
    assert layer["mlp"]["down"]["kernel"].addressable_shards[0].data.shape == (8, 16)
    whole = assemble(source, CONFIGS["biases"], dtype=jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, params, whole)


def test_what_an_axis_does_not_divide_is_replicated() -> None:
    mesh = jax.make_mesh((7,), ("model",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:7])
    params = assemble(published(LLAMA), LLAMA, dtype=jnp.float32, sharding=partition(mesh))
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params))
