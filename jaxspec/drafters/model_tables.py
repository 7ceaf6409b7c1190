"""What a model says after single tokens: the model bigram of N-Grammys (arXiv 2411.03786, section 4.1), kept on disk.

V vocabulary, K successors, W width.
"""

import functools
import hashlib
import os
import weakref
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.sampling import top_ids
from jaxspec.models import cache as kv_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.kept import kept_folder
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import ModelFn, Params, chain_block
from jaxspec.models.weights_hash import add_weights

CHUNK = 64  # tokens a pass
PREFIXES = ("auto", "none", "bos", "newline")
KEPT = 32  # successors kept on disk: a pass costs as much for one, and smaller tables are the first columns
READ = 4  # tables kept in memory once they were read: one of a large vocabulary takes 20 MB

_unwritten: dict[Path, np.ndarray] = {}  # tables of this process that the folder could not take


class ExtendedBigram(NamedTuple):
    """Rows of a bigram followed greedily, compact: row j after x is `first[x, j]`, then `chain[first[x, j]]`.

    Attributes:
      first: (V, K) int32 successors, best first.
      chain: (V, W) int32 the best successor, its best successor, and so on.
    """

    first: jax.Array
    chain: jax.Array

    def rows(self, root: jax.Array) -> jax.Array:
        """(B, K, W) int32 continuations of `root` (B,), by rank of their first token."""
        begin = self.first[root]
        rest = self.chain[begin][..., : self.chain.shape[1] - 1]
        return jnp.concatenate([begin[..., None], rest], axis=-1)


@functools.partial(jax.jit, static_argnames=("width",))
def extended_bigram(bigram: jax.Array, width: int) -> ExtendedBigram:
    """The rows of `width` tokens of a `bigram` (V, K): only the first token of a row is not the best after another.

    The "extended bigram" of N-Grammys, section 4.1, in K + W columns instead of K * W.
    """
    best = bigram[:, 0]

    def follow(token: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return best[token], best[token]

    everything = jnp.arange(bigram.shape[0], dtype=jnp.int32)
    _, chain = jax.lax.scan(follow, everything, None, length=width)
    return ExtendedBigram(bigram, chain.T)


def model_bigram(
    lm: LanguageModel,
    k: int,
    prefix: Sequence[int] = (),
    *,
    folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> jax.Array:
    """(V, K) int32 the `k` tokens the model finds likeliest after `prefix` and each single token, best first.

    One forward pass for every token of the vocabulary the first time; then read back from `folder`, under a name that
    holds a hash of the weights. A table kept with more successors than asked for serves as well.

    Args:
      lm: the model.
      k: successors a token.
      prefix: ids before it, such as the one that begins every text.
      folder: where tables are kept; None for `JAXSPEC_CACHE`, or `~/.cache/jaxspec`.
      progress: called with tokens done and tokens in all.

    Raises:
      ValueError: `k` is not between 1 and V, an id of `prefix` is outside the vocabulary, or a kept table cannot be
        read or belongs to other weights.
    """
    vocabulary = lm.config.vocabulary
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k={k} is not between 1 and the vocabulary of {vocabulary} ids")
    for index in prefix:
        if not 0 <= index < vocabulary:
            raise ValueError(f"prefix holds id {index}, which is not in the vocabulary of {vocabulary} ids")
    path = _path_of(lm, prefix, folder or tables_folder())
    table = load_table(path, lm) if path.exists() else _unwritten.get(path)
    if table is None or table.shape[1] < k:
        table = _build(lm, min(max(k, KEPT), vocabulary), prefix, progress)
        try:
            _write(path, table, fingerprint(lm))
        except OSError:
            _unwritten[path] = table
    return jnp.asarray(table[:, :k])


def is_kept(lm: LanguageModel, prefix: Sequence[int] = (), *, folder: Path | None = None) -> bool:
    """Whether `model_bigram` finds a table of `lm` with this `prefix` in `folder`, and need not read the model."""
    folder = folder or tables_folder()
    # Without any table of its kind there, the weights need not be hashed.
    kept = next(folder.glob(f"bigram-{_kind_of(lm)}-*.npz"), None)
    if kept is None and not _unwritten:
        return False
    path = _path_of(lm, prefix, folder)
    return path.exists() or path in _unwritten


def _write(path: Path, table: np.ndarray, weights: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez_compressed(partial, table=table, weights=np.array(weights))
    os.replace(partial, path)


def tables_folder() -> Path:
    """Where tables are kept: within `JAXSPEC_CACHE`, or `~/.cache/jaxspec`."""
    return kept_folder() / "tables"


def _path_of(lm: LanguageModel, prefix: Sequence[int], folder: Path) -> Path:
    suffix = "".join(f"-{index}" for index in prefix)
    return folder / f"bigram-{_kind_of(lm)}-{fingerprint(lm)[:24]}{suffix}.npz"


def _kind_of(lm: LanguageModel) -> str:
    """Tells models apart whose weights cannot be the same, without reading weights."""
    return hashlib.sha256(f"{lm.config} {jnp.dtype(lm.dtype)}".encode()).hexdigest()[:8]


def _build(lm: LanguageModel, k: int, prefix: Sequence[int], progress: Callable[[int, int], None]) -> np.ndarray:
    vocabulary, rows = lm.config.vocabulary, []
    cache = _cache_of(lm.model, lm.config, lm.params, tuple(prefix))
    for start in range(0, vocabulary, CHUNK):
        ids = np.minimum(np.arange(start, start + CHUNK), vocabulary - 1)
        rows.append(np.asarray(_successors(lm.model, k, lm.params, cache, jnp.asarray(ids, jnp.int32))))
        progress(min(start + CHUNK, vocabulary), vocabulary)
    return np.concatenate(rows)[:vocabulary]


@functools.partial(jax.jit, static_argnames=("model", "config", "prefix"))
def _cache_of(model: ModelFn, config: ModelConfig, params: Params, prefix: tuple[int, ...]) -> kv_cache.KVCache:
    """What every token of a chunk has before it."""
    cache = kv_cache.init_cache(config, CHUNK, max(len(prefix), 1), jnp.float32)
    if not prefix:
        return cache
    ids = jnp.broadcast_to(jnp.asarray(prefix, jnp.int32), (CHUNK, len(prefix)))
    output = model(params, chain_block(ids), cache, with_logits=False)
    return kv_cache.append(cache, output.keys, output.values, jnp.full((CHUNK,), len(prefix), jnp.int32))


@functools.partial(jax.jit, static_argnames=("model", "k"))
def _successors(model: ModelFn, k: int, params: Params, cache: kv_cache.KVCache, ids: jax.Array) -> jax.Array:
    """(CHUNK, k) the likeliest tokens after the cache and each of `ids` (CHUNK,)."""
    output = model(params, chain_block(ids[:, None]), cache)
    assert output.logits is not None
    return top_ids(output.logits[:, -1], k)


def check_prefix(prefix: str) -> None:
    """Refuses what `prefix_ids` knows for no model.

    Raises:
      ValueError: names the prefix.
    """
    if prefix not in PREFIXES:
        raise ValueError(f"prefix={prefix!r} is not one of {', '.join(PREFIXES)}")


def prefix_ids(lm: LanguageModel, prefix: str) -> tuple[int, ...]:
    """What stands before each token when its successors are asked for.

    Args:
      lm: the model.
      prefix: `none`, `bos` for the id that begins every text, `newline` for a line break; `auto` for the former where
        the tokenizer begins texts with it, else for the latter, and for nothing where there is neither.

    Raises:
      ValueError: an unknown prefix, or one that needs what the model's tokenizer lacks.
    """
    check_prefix(prefix)
    if prefix == "auto":
        prefix = _usual_prefix(lm)
    if prefix == "none":
        return ()
    if prefix == "newline":
        if lm.tokenizer is None:
            raise ValueError(f'prefix="newline" needs a tokenizer, which {lm.name} lacks')
        return tuple(lm.tokenizer.encode("\n", add_special=False))
    bos_id = getattr(lm.tokenizer, "bos_id", None)
    if bos_id is None:
        raise ValueError(f'prefix="bos" needs a tokenizer with a bos_id, which {lm.name} lacks')
    return (bos_id,)


def _usual_prefix(lm: LanguageModel) -> str:
    """`bos`, `newline` or `none`: tokens are rarely the first of a text, and their successors there are worth less.

    With Qwen2.5-Coder-0.5B on HumanEval, `ngrammys(10, 10)` says 1.83 tokens a call with `none`, 2.33 with `newline`.
    """
    if lm.tokenizer is None:
        return "none"
    bos_id = getattr(lm.tokenizer, "bos_id", None)
    if bos_id is not None and lm.tokenizer.encode("a")[:1] == [bos_id]:
        return "bos"
    line_break = lm.tokenizer.encode("\n", add_special=False)
    return "newline" if line_break and all(0 <= index < lm.config.vocabulary for index in line_break) else "none"


def load_table(path: Path, lm: LanguageModel) -> np.ndarray:
    """(V, K) int32 the table kept in `path`, which must belong to the weights of `lm`.

    Raises:
      ValueError: it belongs to other weights, or is not a whole table.
    """
    try:
        file = path.stat()
        weights, table = _read(path, (file.st_mtime_ns, file.st_size, file.st_ino))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable table ({error}); remove it, and it will be built again") from error
    if weights != fingerprint(lm):
        raise ValueError(f"{path} was built for other weights ({weights[:12]}...); remove it, or load its own model")
    return table


@functools.lru_cache(maxsize=READ)
def _read(path: Path, version: tuple[int, ...]) -> tuple[str, np.ndarray]:
    """A hash of the weights that the table in `path` was built for, and the table.

    Every job asks for its table, and to unpack that of a large vocabulary takes as long as a short answer does. A file
    of another `version` is read anew.
    """
    with np.load(path, allow_pickle=False) as kept:
        weights, table = str(kept["weights"]), kept["table"]
    table.flags.writeable = False
    return weights, table


_fingerprints: weakref.WeakKeyDictionary[LanguageModel, str] = weakref.WeakKeyDictionary()


def fingerprint(lm: LanguageModel) -> str:
    """SHA-256 over description and every weight of a model."""
    if lm not in _fingerprints:
        digest = hashlib.sha256(repr((lm.config, str(jnp.dtype(lm.dtype)))).encode())
        add_weights(digest, lm.params)
        _fingerprints[lm] = digest.hexdigest()
    return _fingerprints[lm]
