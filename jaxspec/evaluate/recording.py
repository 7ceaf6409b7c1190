"""What a model says to some prompts, with all that a replay of greedy decoding needs: no drafter can change it.

R texts, L tokens, K most probable tokens, V vocabulary.
"""

import dataclasses
import functools
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.sampling import top_ids
from jaxspec.decode.types import Drafter
from jaxspec.engine.generate import Prompt, generate
from jaxspec.engine.request import encode_prompts
from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import ModelFn, Params, chain_block

CHUNK = 64  # tokens of a teacher-forced pass
SLOTS = 128  # caches are multiples of
UNKNOWN = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """Texts on the host. The target's next token after each position of an answer is the text itself.

    Attributes:
      tokens: (R, L) int32 prompt, answer, and what the model would have said after its end; 0 beyond `known`.
      prompt_length: (R,) int32.
      end: (R,) int32 tokens of prompt and answer.
      known: (R,) int32 tokens of prompt, answer and the tail after it.
      top: (R, L, K) int32 the most probable tokens after each position, best first; -1 inside the prompt, where
        decoding does not look, and beyond `known`.
      disagreements: answer positions where the teacher-forced pass, in wide blocks, prefers another token than plain
        decoding said: near ties in the model's precision.
      vocabulary: V.
      model: name of the model.
    """

    tokens: np.ndarray
    prompt_length: np.ndarray
    end: np.ndarray
    known: np.ndarray
    top: np.ndarray
    disagreements: int
    vocabulary: int
    model: str

    @property
    def texts(self) -> int:
        """R."""
        return len(self.end)

    @property
    def tail(self) -> int:
        """Tokens known after the end of every answer."""
        return int(np.min(self.known - self.end))

    def first(self, texts: int) -> "Recording":
        """The first `texts` texts."""
        fields = ("tokens", "prompt_length", "end", "known", "top")
        return dataclasses.replace(self, **{name: getattr(self, name)[:texts] for name in fields})

    def repeated(self, times: int) -> "Recording":
        """Every text `times` times, one after the other."""
        fields = ("tokens", "prompt_length", "end", "known", "top")
        return dataclasses.replace(self, **{name: np.repeat(getattr(self, name), times, axis=0) for name in fields})

    def beginning(self, tokens: int) -> "Recording":
        """The first `tokens` tokens of every answer, and what follows as its tail."""
        return dataclasses.replace(self, end=np.minimum(self.end, self.prompt_length + tokens).astype(self.end.dtype))

    def prompts(self) -> list[list[int]]:
        """Token ids of every prompt."""
        return [row[:length].tolist() for row, length in zip(self.tokens, self.prompt_length, strict=True)]

    def answers(self) -> list[list[int]]:
        """Token ids of every answer."""
        spans = zip(self.tokens, self.prompt_length, self.end, strict=True)
        return [row[begin:end].tolist() for row, begin, end in spans]

    def save(self, path: Path) -> None:
        """Writes an .npz file."""
        with path.open("wb") as file:  # given a name, NumPy would change its ending
            np.savez_compressed(file, **dataclasses.asdict(self))

    @staticmethod
    def load(path: Path) -> "Recording":
        """Reads what `save` wrote.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it holds no recording.
        """
        if not path.exists():
            raise FileNotFoundError(f"recording {path} does not exist")
        try:
            with np.load(path, allow_pickle=False) as kept:
                arrays = {field.name: kept[field.name] for field in dataclasses.fields(Recording)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a readable recording ({error}); record it again") from error
        scalars = {"disagreements": int, "vocabulary": int, "model": str}
        return Recording(**arrays | {name: kind(arrays[name]) for name, kind in scalars.items()})


def record(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    max_new_tokens: int = 128,
    *,
    top: int = 8,
    tail: int = 32,
    chat: bool = False,
    stop: Sequence[str] = (),
    stop_ids: Sequence[int] = (),
    ignore_eos: bool = False,
    drafter: Drafter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Greedy answers to `prompts`, and the model's opinions along them from one teacher-forced pass.

    Args:
      lm: the target.
      prompts: texts or token ids, at least one.
      max_new_tokens: at most so many tokens an answer.
      top: K, the most probable tokens kept, for drafters that learn from them; 0 saves the pass.
      tail: tokens recorded after the end of every answer, because the last block of a request may reach beyond it
        and drafters that remember other requests learn from all of it. The model's context may leave room for fewer.
      chat, stop, stop_ids, ignore_eos: as in `jaxspec.generate`.
      drafter: to decode faster; answers are plain decoding's, up to near ties in the model's precision.
      progress: called as `progress(finished, all)` while answers are decoded.

    Raises:
      ValueError: no prompt, `max_new_tokens` below 1, a negative `top` or `tail`, `top` above the vocabulary, logits
        that are not finite, or what `jaxspec.generate` raises.
    """
    if not prompts:
        raise ValueError("prompts is empty; a recording needs at least one")
    for name, value, least in (("max_new_tokens", max_new_tokens, 1), ("top", top, 0), ("tail", tail, 0)):
        if value < least:
            raise ValueError(f"{name}={value} is below {least}")
    if top > lm.config.vocabulary:
        raise ValueError(f"top={top} is above the model's vocabulary of {lm.config.vocabulary} ids; lower it")
    encoded = encode_prompts(lm, prompts, chat=chat)
    out = generate(
        lm,
        encoded,
        drafter=drafter,
        max_new_tokens=max_new_tokens,
        stop=stop,
        stop_ids=stop_ids,
        ignore_eos=ignore_eos,
        progress=progress,
    )
    for index, finish in enumerate(out.finish):
        if finish == "numerical":
            raise ValueError(f"the model's logits after prompt {index} are not finite; there is no text to replay")
    texts = [[*prompt, *answer] for prompt, answer in zip(encoded, out.ids, strict=True)]
    end = np.array([len(text) for text in texts], np.int32)
    open_texts = [index for index, text in enumerate(texts) if len(text) < lm.config.context]
    if tail and open_texts:
        more = generate(lm, [texts[i] for i in open_texts], drafter=drafter, max_new_tokens=tail, ignore_eos=True)
        for index, ids in zip(open_texts, more.ids, strict=True):
            texts[index] += ids
    known = np.array([len(text) for text in texts], np.int32)
    prompt_length = np.array([len(prompt) for prompt in encoded], np.int32)
    tokens = np.zeros((len(texts), -(-int(known.max()) // CHUNK) * CHUNK), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    best, disagreements = _opinions(lm, tokens, prompt_length, end, known, top)
    return Recording(tokens, prompt_length, end, known, best, disagreements, lm.config.vocabulary, lm.name)


def _opinions(
    lm: LanguageModel, tokens: np.ndarray, prompt_length: np.ndarray, end: np.ndarray, known: np.ndarray, top: int
) -> tuple[np.ndarray, int]:
    """(R, L, K) `Recording.top`, and how often its best is not what was said."""
    if top == 0:
        return np.zeros((*tokens.shape, 0), np.int32), 0
    best = np.array(
        _teacher_forced(
            lm.model, lm.config, np.dtype(lm.cache_dtype), top, lm.params, jnp.asarray(tokens), jnp.asarray(known)
        )
    )
    position = np.arange(tokens.shape[1])
    looked_at = (position >= prompt_length[:, None] - 1) & (position < known[:, None])
    best[~looked_at] = UNKNOWN
    following = np.roll(tokens, -1, axis=1)
    said = looked_at & (position < end[:, None] - 1)
    return best, int(np.sum(said & (best[:, :, 0] != following)))


@functools.partial(jax.jit, static_argnames=("model", "config", "dtype", "count"))
def _teacher_forced(
    model: ModelFn,
    config: ModelConfig,
    dtype: np.dtype,
    count: int,
    params: Params,
    tokens: jax.Array,
    known: jax.Array,
) -> jax.Array:
    """(R, L, K) int32 the `count` most probable tokens after each of `tokens` (R, L), one text after another.

    L is a multiple of the chunk; positions at and beyond `known` (R,) are undefined.
    """

    def one_text(text: tuple[jax.Array, jax.Array]) -> jax.Array:
        ids, length = text

        def read(carry: tuple[kv_cache.KVCache, jax.Array]) -> tuple[kv_cache.KVCache, jax.Array]:
            cache, best = carry
            start = cache.length[0]
            block = chain_block(jax.lax.dynamic_slice(ids, (start,), (CHUNK,))[None])
            output = model(params, block, cache)
            assert output.logits is not None
            best = jax.lax.dynamic_update_slice(best, top_ids(output.logits[0], count), (start, jnp.int32(0)))
            return kv_cache.append(cache, output.keys, output.values, jnp.full((1,), CHUNK, jnp.int32)), best

        empty = kv_cache.init_cache(config, 1, -(-ids.shape[0] // SLOTS) * SLOTS, dtype)
        nothing = jnp.full((ids.shape[0], count), UNKNOWN, jnp.int32)
        return jax.lax.while_loop(lambda carry: carry[0].length[0] < length, read, (empty, nothing))[1]

    return jax.lax.map(one_text, (tokens, known))
