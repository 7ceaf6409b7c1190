"""A language model with exact arithmetic, small enough to enumerate: the oracle of losslessness tests.

What it says next is a table look-up by the last `order` tokens, read through the cache and the ancestor mask like
attention would read them, so that a wrong commit, mask or position shows in the ids. Logits are small integers.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxspec.models.cache import KVCache
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import Block, BlockOutput, rows_of


@dataclasses.dataclass(frozen=True)
class ToyModelFn:
    """Logits are row `sum_j token_j * base ** age_j` of a table, over the last `order` tokens."""

    vocabulary: int
    order: int

    def __call__(self, params, block: Block, cache: KVCache, *, with_logits: bool = True) -> BlockOutput:
        rows, nodes = block.ids.shape
        slots = cache.keys[0].shape[2]
        length = rows_of(cache.length, block.lane, rows)
        position = length[:, None] + block.depth
        committed = rows_of(cache.keys[0], block.lane, rows)[:, 0, :, 0]
        slot = jnp.arange(slots)
        in_prefix = slot < length[:, None]
        code = jnp.zeros((rows, nodes), jnp.int32)
        for age in range(self.order):
            wanted = position - age
            from_prefix = (slot == wanted[:, :, None]) & in_prefix[:, None, :]
            # `where` and not a product: an undefined slot may hold NaN.
            prefix = jnp.sum(jnp.where(from_prefix, committed[:, None, :], 0.0), axis=2)
            from_block = block.ancestors & (position[:, None, :] == wanted[:, :, None])
            own = jnp.sum(jnp.where(from_block, block.ids[:, None, :], 0), axis=2)
            code += (prefix.astype(jnp.int32) + own) * self.vocabulary**age
        entries = jnp.stack([block.ids, position], axis=-1).astype(jnp.float32)[:, None]
        logits = params["table"][code] if with_logits else None
        return BlockOutput(logits, (entries,), (entries,))


@dataclasses.dataclass(frozen=True)
class ToyTokenizer:
    """One byte an id: id i is letter chr(97 + i)."""

    vocabulary: int
    eos_ids: tuple[int, ...] = ()
    has_chat_template: bool = False

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        return [ord(letter) - 97 for letter in text]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return "".join(chr(97 + int(i)) for i in ids if i not in self.eos_ids)

    def token_bytes(self) -> list[bytes]:
        return [b"" if i in self.eos_ids else bytes([97 + i]) for i in range(self.vocabulary)]


def toy_model(
    seed: int = 0, vocabulary: int = 7, order: int = 2, context: int = 128, eos_ids: tuple[int, ...] = ()
) -> LanguageModel:
    """A random table; with seven tokens and order two, texts soon repeat themselves, and copying pays."""
    table = np.random.default_rng(seed).integers(0, 20, (vocabulary**order, vocabulary)).astype(np.float32)
    config = ModelConfig("toy", vocabulary, 2, 2, 1, 1, 1, 2, context=context)
    return LanguageModel(
        config=config,
        model=ToyModelFn(vocabulary, order),
        params={"table": jnp.asarray(table)},
        tokenizer=ToyTokenizer(vocabulary, eos_ids),
        dtype=jnp.float32,
        cache_dtype=jnp.float32,
        name="toy",
    )


def greedy_continuation(lm: LanguageModel, prompt: Sequence[int], count: int) -> list[int]:
    """Plain greedy decoding in NumPy."""
    table, order = np.asarray(lm.params["table"]), lm.model.order
    text = list(prompt)
    for _ in range(count):
        last = text[-order:][::-1]
        text.append(int(np.argmax(table[sum(token * lm.config.vocabulary**age for age, token in enumerate(last))])))
    return text[len(prompt) :]
