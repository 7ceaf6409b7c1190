"""What a model says after single tokens: the model bigram of N-Grammys (arXiv 2411.03786, section 4.1), kept on disk.

V vocabulary, K successors.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.sampling import top_ids
from jaxspec.models.cache import init_cache
from jaxspec.models.config import ModelConfig
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.model_fn import ModelFn, Params, chain_block

CHUNK = 64  # tokens a pass


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
    holds a hash of the weights.

    Args:
      lm: the model.
      k: successors a token.
      prefix: ids before it, such as the one that begins every text.
      folder: where tables are kept; None for `JAXSPEC_CACHE`, or `~/.cache/jaxspec`.
      progress: called with tokens done and tokens in all.

    Raises:
      ValueError: `k` is not between 1 and V, or a kept table belongs to other weights.
    """
    vocabulary = lm.config.vocabulary
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k={k} is not between 1 and the vocabulary of {vocabulary} ids")
    digest = fingerprint(lm)
    home = Path(os.environ.get("JAXSPEC_CACHE") or Path.home() / ".cache" / "jaxspec")
    suffix = "".join(f"-{index}" for index in prefix)
    path = (folder or home / "tables") / f"bigram-{digest[:24]}-{k}{suffix}.npz"
    if path.exists():
        return jnp.asarray(load_table(path, digest))
    rows = []
    for start in range(0, vocabulary, CHUNK):
        ids = np.minimum(np.arange(start, start + CHUNK), vocabulary - 1)
        text = np.concatenate([np.tile(np.asarray(prefix, np.int64), (CHUNK, 1)), ids[:, None]], axis=1)
        rows.append(np.asarray(_successors(lm.model, lm.config, k, lm.params, jnp.asarray(text, jnp.int32))))
        progress(min(start + CHUNK, vocabulary), vocabulary)
    table = np.concatenate(rows)[:vocabulary]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez_compressed(partial, table=table, weights=np.array(digest))
    os.replace(partial, path)
    return jnp.asarray(table)


def load_table(path: Path, digest: str) -> np.ndarray:
    """The table kept in `path`, which must belong to the weights with fingerprint `digest`.

    Raises:
      ValueError: it belongs to others.
    """
    with np.load(path, allow_pickle=False) as kept:
        if str(kept["weights"]) != digest:
            raise ValueError(f"{path} was built for other weights ({str(kept['weights'])[:12]}...); remove it")
        return kept["table"]


def fingerprint(lm: LanguageModel) -> str:
    """SHA-256 over description and every weight of a model."""
    digest = hashlib.sha256(repr((lm.config, str(lm.dtype))).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(lm.params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf)).data)
    return digest.hexdigest()


@functools.partial(jax.jit, static_argnames=("model", "config", "k"))
def _successors(model: ModelFn, config: ModelConfig, k: int, params: Params, ids: jax.Array) -> jax.Array:
    cache = init_cache(config, ids.shape[0], 1, jnp.float32)  # nothing is committed: the block is the whole text
    output = model(params, chain_block(ids), cache)
    assert output.logits is not None
    return top_ids(output.logits[:, -1], k)
