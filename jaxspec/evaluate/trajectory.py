"""Jacobi trajectories: every iterate of every block of an answer, recorded on the device.

Whole blocks are iterated on, as for the counts published with CLLM (arXiv 2403.00835): y^(j+1)_i is what the model
says after y^(j)_<i, for i from 1 to n, and only when nothing changes any more does the block enter the cache. Iterates
and passes are those of `jaxspec.drafters.jacobi` in block mode, which commits a block bit by bit.

B lanes, K blocks a lane, n tokens a block, L tokens, S slots, V vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode import sampling
from jaxspec.decode.sampling import Sampling, SamplingFlags
from jaxspec.decode.types import Context
from jaxspec.drafters.initial_tokens import Initial, initial_tokens
from jaxspec.engine.request import encode_prompts
from jaxspec.models import cache as kv_cache
from jaxspec.models.cache import KVCache, init_cache
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import ModelFn, Params, chain_block

PREFILL_WIDTH = 64


class Trajectories(NamedTuple):
    """Attributes:
    iterates: (B, K, n + 1, n) int32 y^(0) to y^(n) of every block, the fixed point repeated from where it stands;
      zeros where there is no block.
    passes: (B, K) int32 target passes of every block, that which finds nothing to change included, from 1 to n;
      0 where there is no block.
    ids: what every lane says, cut at the first id that ends a text and at `max_new_tokens`.
    """

    iterates: np.ndarray
    passes: np.ndarray
    ids: list[list[int]]


class _Progress(NamedTuple):
    """Attributes:
    block: () int32 blocks done.
    tokens: (B, L) int32 text.
    length: (B,) int32 tokens of it.
    cache: of all tokens but the last.
    live: (B,) bool lanes that have not ended.
    iterates, passes: as in `Trajectories`.
    """

    block: jax.Array
    tokens: jax.Array
    length: jax.Array
    cache: KVCache
    live: jax.Array
    iterates: jax.Array
    passes: jax.Array


class _Iteration(NamedTuple):
    """Attributes:
    index: () int32 j.
    state: (B, n) int32 y^(j).
    settled: (B,) bool whether a pass found nothing to change in what it read.
    passes: (B,) int32.
    iterates: (B, n + 1, n) int32.
    keys, values: per layer, (B, heads, n, width) of the last pass.
    """

    index: jax.Array
    state: jax.Array
    settled: jax.Array
    passes: jax.Array
    iterates: jax.Array
    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


def record(
    lm: LanguageModel,
    prompts: str | Sequence[int] | Sequence[str | Sequence[int]],
    n: int = 16,
    max_new_tokens: int = 128,
    *,
    init: Initial = "prompt",
    temperature: float = 0.0,
    seed: int | Sequence[int] = 0,
    stop_ids: Sequence[int] = (),
    ignore_eos: bool = False,
    chat: bool = False,
) -> Trajectories:
    """Answers every prompt by Jacobi decoding in blocks, and returns all iterates.

    All prompts are worked on at once, block by block. A lane goes on until its block holds an id that ends a text,
    or until `max_new_tokens` are said; blocks are always whole.

    Args:
      lm: from `jaxspec.load`.
      prompts: texts, or sequences of token ids; a single one is a batch of one.
      n: tokens a block.
      max_new_tokens: at most so many tokens a prompt, up to a multiple of n.
      init: tokens of y^(0); see `jaxspec.drafters.jacobi`.
      temperature: 0 takes the most probable token; otherwise tokens are drawn, with the noise `jaxspec.generate`
        has for the same seed.
      seed: of the draws and of the initial tokens; one for all prompts, or one each.
      stop_ids: ids that end a text, besides the tokenizer's own.
      ignore_eos: go on past end-of-sequence ids.
      chat: put every text through the model's chat template, as one user turn.

    Raises:
      ValueError: a setting or a prompt cannot be honoured; nothing has been compiled or run then.
      FloatingPointError: the model's logits were not finite.
    """
    if n < 2:
        raise ValueError(f"n={n} is below 2; a block of one token has nothing to iterate on")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} is below 1; ask for at least one token")
    if init not in get_args(Initial):
        raise ValueError(f"init={init!r} is unknown; choose one of {', '.join(get_args(Initial))}")
    single = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int | np.integer))
    batch: Any = [prompts] if single else prompts
    texts = encode_prompts(lm, batch, chat=chat)
    if not texts:
        raise ValueError("there are no prompts; give at least one")
    seeds = [seed] * len(texts) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(texts):
        raise ValueError(f"seed has {len(seeds)} values for {len(texts)} prompts; give one, or one each")
    for value in seeds:
        sampling.validate(temperature=temperature, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=value)
    vocabulary = lm.config.vocabulary
    for value in stop_ids:
        if not 0 <= value < vocabulary:
            raise ValueError(f"stop_ids holds {value}, outside the vocabulary of {vocabulary} ids")
    blocks = -(-max_new_tokens // n)
    longest = max(map(len, texts))
    if longest + blocks * n > lm.config.context:
        raise ValueError(
            f"a prompt of {longest} tokens and {blocks} blocks of n={n} tokens do not fit in the model's context of "
            f"{lm.config.context}; choose a smaller n, fewer new tokens or a shorter prompt"
        )
    ends = {*stop_ids, *(lm.tokenizer.eos_ids if lm.tokenizer is not None and not ignore_eos else ())}
    lanes, size = len(texts), -(-(longest + blocks * n) // PREFILL_WIDTH) * PREFILL_WIDTH
    tokens = np.zeros((lanes, size), np.int32)
    for lane, text in enumerate(texts):
        tokens[lane, : len(text)] = text
    iterates, passes = _run(
        lm.model,
        SamplingFlags(stochastic=temperature > 0),
        init,
        n,
        blocks,
        lm.params,
        init_cache(lm.config, lanes, size, lm.cache_dtype),
        jnp.asarray(tokens),
        jnp.asarray([len(text) for text in texts], jnp.int32),
        _settings(temperature, seeds),
        jnp.asarray(sorted(ends) or [-1], jnp.int32),
        jnp.asarray(vocabulary, jnp.int32),
    )
    iterates, passes = np.asarray(iterates), np.asarray(passes)
    if np.any(iterates == vocabulary):
        raise FloatingPointError(f"the logits of {lm.name} were not finite; check its weights and its dtype")
    said = [lane[count > 0, -1].reshape(-1).tolist() for lane, count in zip(iterates, passes, strict=True)]
    return Trajectories(iterates, passes, [_cut(ids[:max_new_tokens], ends) for ids in said])


def _settings(temperature: float, seeds: Sequence[int]) -> Sampling:
    def full(value: float, dtype: Any) -> jax.Array:
        return jnp.full((len(seeds),), value, dtype)

    return Sampling(
        temperature=full(temperature, jnp.float32),
        top_k=full(0, jnp.int32),
        top_p=full(1.0, jnp.float32),
        min_p=full(0.0, jnp.float32),
        repetition_penalty=full(1.0, jnp.float32),
        seed=jnp.asarray(np.asarray(seeds, np.uint32)),
    )


def _cut(ids: list[int], ends: set[int]) -> list[int]:
    return ids[: next((at + 1 for at, token in enumerate(ids) if token in ends), len(ids))]


@functools.partial(jax.jit, static_argnames=("model", "flags", "initial", "n", "blocks"))
def _run(
    model: ModelFn,
    flags: SamplingFlags,
    initial: Initial,
    n: int,
    blocks: int,
    params: Params,
    cache: KVCache,
    tokens: jax.Array,
    prompt_length: jax.Array,
    settings: Sampling,
    stop_ids: jax.Array,
    vocabulary: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`iterates` (B, K, n + 1, n) and `passes` (B, K) of all lanes."""
    lanes = tokens.shape[0]
    lane = jnp.arange(lanes)[:, None]

    def iterate(cache: KVCache, length: jax.Array, live: jax.Array, root: jax.Array, first: jax.Array) -> _Iteration:
        position = length[:, None] + jnp.arange(n, dtype=jnp.int32)

        def step(now: _Iteration) -> _Iteration:
            read = jnp.concatenate([root[:, None], now.state[:, :-1]], axis=1)
            # V stands for logits that are no numbers, and is no id to look up.
            output = model(params, chain_block(jnp.minimum(read, vocabulary - 1)), cache)
            assert output.logits is not None
            said = sampling.process(output.logits, settings, flags)
            if flags.stochastic:
                said = sampling.draw(said, settings, sampling.gumbel(settings.seed, position, said.shape[-1]))
            else:
                said, _ = sampling.argmax(said)
            return _Iteration(
                index=now.index + 1,
                state=said,
                settled=now.settled | jnp.all(said[:, :-1] == now.state[:, :-1], axis=1),
                passes=now.passes + (live & ~now.settled).astype(jnp.int32),
                iterates=now.iterates.at[:, now.index + 1].set(said),
                keys=output.keys,
                values=output.values,
            )

        shapes = jax.eval_shape(lambda: model(params, chain_block(first), cache))
        start = _Iteration(
            index=jnp.int32(0),
            state=first,
            settled=jnp.zeros((lanes,), bool),
            passes=jnp.zeros((lanes,), jnp.int32),
            iterates=jnp.zeros((lanes, n + 1, n), jnp.int32).at[:, 0].set(first),
            keys=jax.tree.map(lambda entry: jnp.zeros(entry.shape, entry.dtype), shapes.keys),
            values=jax.tree.map(lambda entry: jnp.zeros(entry.shape, entry.dtype), shapes.values),
        )
        return jax.lax.while_loop(lambda now: (now.index < n) & jnp.any(live & ~now.settled), step, start)

    def block(now: _Progress) -> _Progress:
        context = Context(now.tokens, now.length, prompt_length, settings.seed, now.live)
        position = now.length[:, None] + jnp.arange(n, dtype=jnp.int32)
        first = initial_tokens(initial, context, position, vocabulary)
        end = iterate(now.cache, now.length, now.live, context.root, first)
        # Lanes that settled early went on repeating their fixed point; all do so beyond the last pass.
        beyond = jnp.arange(n + 1)[:, None] > end.index
        iterates = jnp.where(beyond, end.state[:, None], end.iterates)
        over = jnp.any(end.state[:, :, None] == stop_ids, axis=(1, 2))
        count = jnp.where(now.live, n, 0).astype(jnp.int32)
        return _Progress(
            block=now.block + 1,
            tokens=now.tokens.at[lane, jnp.where(now.live[:, None], position, now.tokens.shape[1])].set(
                end.state, mode="drop"
            ),
            length=now.length + count,
            cache=kv_cache.append(now.cache, end.keys, end.values, count),
            live=now.live & ~over,
            iterates=now.iterates.at[:, now.block].set(jnp.where(now.live[:, None, None], iterates, 0)),
            passes=now.passes.at[:, now.block].set(end.passes),
        )

    begin = _Progress(
        block=jnp.int32(0),
        tokens=tokens,
        length=prompt_length,
        cache=_prefill(model, params, cache, tokens, prompt_length),
        live=jnp.ones((lanes,), bool),
        iterates=jnp.zeros((lanes, blocks, n + 1, n), jnp.int32),
        passes=jnp.zeros((lanes, blocks), jnp.int32),
    )
    done = jax.lax.while_loop(lambda now: (now.block < blocks) & jnp.any(now.live), block, begin)
    return done.iterates, done.passes


def _prefill(model: ModelFn, params: Params, cache: KVCache, tokens: jax.Array, prompt_length: jax.Array) -> KVCache:
    """`cache` with all prompt tokens but the last, which is the first block's root."""
    unread = prompt_length - 1
    chunks = -(-jnp.max(unread) // PREFILL_WIDTH)

    def read(chunk: jax.Array, cache: KVCache) -> KVCache:
        start = chunk * PREFILL_WIDTH
        ids = jax.lax.dynamic_slice(tokens, (0, start), (tokens.shape[0], PREFILL_WIDTH))
        output = model(params, chain_block(ids), cache, with_logits=False)
        return kv_cache.append(cache, output.keys, output.values, jnp.clip(unread - start, 0, PREFILL_WIDTH))

    return jax.lax.fori_loop(0, chunks, read, cache)
