"""Our transformer against Hugging Face transformers in float32: committed arrays always, live ones with `-m parity`."""

import functools
import importlib.util
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec
from jaxspec.models import cache as kv_cache
from jaxspec.models.from_huggingface import config_from_huggingface
from jaxspec.models.model_fn import Block, chain_block
from jaxspec.models.transformer import LinenModelFn, Transformer
from jaxspec.weights.parameters import assemble, entries

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(path.stem for path in GOLDEN.glob("*.npz"))
SLOTS, CHUNK, TOLERANCE = 48, 16, 1e-4


class Arrays:
    """Published tensors held in memory."""

    def __init__(self, arrays) -> None:
        prefix = "weight/"
        self.arrays = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}

    def names(self):
        return self.arrays

    def shape(self, name: str):
        return self.arrays[name].shape

    def read(self, name: str):
        return self.arrays[name].astype(np.float32)


@functools.lru_cache(maxsize=2)
def golden(name: str):
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    return build(arrays), arrays["prompts"], arrays["logits"]


def build(arrays):
    config = config_from_huggingface(json.loads(str(arrays["config"])))
    params = assemble(Arrays(arrays), config, dtype=jnp.float32)
    return LinenModelFn(Transformer(config, jnp.float32, CHUNK)), params


@functools.partial(jax.jit, static_argnames="fn")
def run(fn, params, block, cache):
    output = fn(params, block, cache)
    return output.logits, kv_cache.KVCache(output.keys, output.values, cache.length)


def empty(fn, lanes):
    return kv_cache.init_cache(fn.module.config, lanes, SLOTS, jnp.float32)


def test_every_family_is_covered() -> None:
    families = {name.split("_")[0] for name in FILES}
    assert families == {"llama", "mistral", "qwen2", "qwen3", "gemma3"} and len(FILES) >= 20


@pytest.mark.parametrize("name", FILES)
def test_a_whole_prompt_in_one_block(name: str) -> None:
    (fn, params), prompts, expected = golden(name)
    logits, _ = run(fn, params, chain_block(jnp.asarray(prompts)), empty(fn, len(prompts)))
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", FILES)
def test_token_by_token_through_the_cache(name: str) -> None:
    (fn, params), prompts, expected = golden(name)

    @jax.jit
    def decode(params, cache, ids):
        def step(cache, column):
            output = fn(params, chain_block(column[:, None]), cache)
            one = jnp.ones((len(prompts),), jnp.int32)
            cache = kv_cache.commit(cache, output.keys, output.values, jnp.zeros_like(one)[:, None], one)
            return cache, output.logits[:, 0]

        return jax.lax.scan(step, cache, ids.T)[1]

    logits = decode(params, empty(fn, len(prompts)), jnp.asarray(prompts))
    np.testing.assert_allclose(np.swapaxes(logits, 0, 1), expected, atol=TOLERANCE)


def random_tree(random: np.random.Generator, own: np.ndarray, extra: int) -> tuple[np.ndarray, ...]:
    """Ids, depths, ancestors and the nodes of the chain `own`, among `extra` random nodes hung anywhere before them."""
    nodes = len(own) + extra
    spine = np.concatenate([[0], 1 + np.sort(random.choice(nodes - 1, len(own) - 1, replace=False))])
    ids, depth = random.integers(0, 97, nodes), np.zeros(nodes, int)
    ids[spine] = own
    ancestors = np.eye(nodes, dtype=bool)
    for node in range(1, nodes):
        before = spine[spine < node]
        parent = before[-1] if node in spine else random.integers(0, node)
        depth[node] = depth[parent] + 1
        ancestors[node] |= ancestors[parent]
    return ids, depth, ancestors, spine


@pytest.mark.parametrize("name", FILES)
def test_as_paths_of_random_trees(name: str) -> None:
    """Each lane: a prefix of its own length in the cache, the rest of its prompt as one path of a tree of noise."""
    (fn, params), prompts, expected = golden(name)
    random = np.random.default_rng(sum(name.encode()))
    starts = np.array([20, 9])  # in the second and in the first chunk of the cache
    prefix = chain_block(jnp.asarray(prompts[:, : starts.max()]))
    cache = empty(fn, 2)
    _, new = run(fn, params, prefix, cache)
    cache = kv_cache.commit(cache, new.keys, new.values, prefix.depth, jnp.asarray(starts, jnp.int32))
    trees = [random_tree(random, prompts[lane, start : start + 14], 10) for lane, start in enumerate(starts)]
    ids, depth, ancestors, spines = (np.stack(part) for part in zip(*trees, strict=True))
    block = Block(jnp.asarray(ids, jnp.int32), jnp.asarray(depth, jnp.int32), jnp.asarray(ancestors), jnp.int32(0))
    logits, _ = run(fn, params, block, cache)
    for lane, start in enumerate(starts):
        np.testing.assert_allclose(logits[lane, spines[lane]], expected[lane, start : start + 14], atol=TOLERANCE)


@pytest.mark.parity
@pytest.mark.parametrize("name", FILES)
def test_live_logits_equal_the_committed_ones_and_ours(name: str) -> None:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("regenerate", GOLDEN / "regenerate.py")
    regenerate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(regenerate)
    case, seed = name.rsplit("_", 1)
    arrays = regenerate.make(case, int(seed))
    committed = np.load(GOLDEN / f"{name}.npz")
    np.testing.assert_allclose(arrays["logits"], committed["logits"], atol=1e-5)
    fn, params = build(arrays)
    logits, _ = run(fn, params, chain_block(jnp.asarray(arrays["prompts"])), empty(fn, len(arrays["prompts"])))
    np.testing.assert_allclose(logits, arrays["logits"], atol=TOLERANCE)


def real_smollm2() -> Path | None:
    places = [os.environ.get("JAXSPEC_SMOLLM2"), Path(__file__).parents[2] / "checkpoints" / "smollm2-135m.gguf"]
    return next((Path(place) for place in places if place and Path(place).exists()), None)


@pytest.mark.parity
@pytest.mark.slow
def test_greedy_ids_of_the_real_smollm2() -> None:
    path = real_smollm2()
    if path is None:
        pytest.skip("no SmolLM2: run `jaxspec pull smollm2-135m`, or set JAXSPEC_SMOLLM2 to the file")
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    lm = jaxspec.load(path, dtype="float32")
    config = lm.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.query_heads,
            num_key_value_heads=config.key_heads,
            max_position_embeddings=config.context,
            rms_norm_eps=config.norm_epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=True,
        )
    ).eval()
    weights = {}
    for entry in entries(config):
        leaf = lm.params
        for part in entry.path:
            leaf = leaf[part]
        rows = np.split(np.asarray(leaf).T, np.cumsum([shape[0] for shape in entry.shapes])[:-1])
        weights |= {name: torch.from_numpy(np.array(row)) for name, row in zip(entry.names, rows, strict=True)}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    theirs.generation_config.eos_token_id = None
    texts = ["The capital of France is", "def fibonacci(n):", "Once upon a time there was a"]
    for drafter in (None, jaxspec.drafters.context_ngram(width=7)):
        ours = jaxspec.generate(lm, texts, drafter=drafter, max_new_tokens=64, ignore_eos=True)
        for text, ids in zip(texts, ours.ids, strict=True):
            prompt = torch.tensor([lm.tokenizer.encode(text)])
            with torch.inference_mode():
                mask = torch.ones_like(prompt)
                said = theirs.generate(prompt, attention_mask=mask, max_new_tokens=64, do_sample=False, pad_token_id=0)
            assert ids == said[0, prompt.shape[1] :].tolist()
