"""N-Grammys (Stewart et al., arXiv 2411.03786): rows copied from the context, and rows of the model's own bigram.

The mixed strategy of section 4.3: as many context rows as there are, in rank order, and bigram rows for the rest.

B lanes, K rows, W width, N = K * W draft nodes.
"""

import dataclasses

import jax.numpy as jnp

from jaxspec.decode.types import Context, Draft
from jaxspec.drafters.context_rows import context_rows
from jaxspec.drafters.model_ngram import bigram_rows_of
from jaxspec.drafters.model_tables import ExtendedBigram, check_prefix
from jaxspec.drafters.rows import Rows, draft_rows
from jaxspec.drafters.sizes import sizes
from jaxspec.drafters.stateless import Stateless
from jaxspec.models.language_model import LanguageModel

MODES = ("tree", "rows")
CONTEXT, BIGRAM = 0, 1  # sources


@dataclasses.dataclass(frozen=True)
class Ngrammys(Rows, Stateless):
    """Attributes:
    rows: K.
    width: W.
    query: last tokens looked up in the context.
    strict: context rows are whole.
    mode: `tree` merges shared beginnings.
    prefix: of the bigram.
    window: places in the context looked at.
    """

    rows: int
    width: int
    query: int
    strict: bool
    mode: str
    prefix: str
    window: int

    sources = ("context_ngram", "model_bigram")

    def prepare(self, language_model: LanguageModel) -> ExtendedBigram:
        return bigram_rows_of(language_model, self.rows, self.width, self.prefix)

    def propose(self, params: ExtendedBigram, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        copied = context_rows(
            context.tokens, context.length, self.query, self.width, self.rows, self.window, self.strict
        )
        found = copied.length > 0  # (B, K), the first few
        place = jnp.broadcast_to(jnp.arange(self.rows, dtype=jnp.int32), found.shape)
        rank = jnp.where(found, place, place - jnp.sum(found, axis=1, keepdims=True, dtype=jnp.int32))
        successors = jnp.take_along_axis(params.rows(context.root), rank[:, :, None], axis=1)
        draft = draft_rows(
            ids=jnp.where(found[:, :, None], copied.ids, successors),
            length=jnp.where(found, copied.length, self.width),
            source=jnp.where(found, CONTEXT, BIGRAM).astype(jnp.int32),
            evidence=rank,
            merge=self.mode == "tree",
        )
        return draft, state


def ngrammys(
    k: int = 10,
    w: int = 10,
    q: int = 1,
    *,
    strict: bool = True,
    mode: str = "tree",
    prefix: str = "auto",
    window: int = 64,
) -> Ngrammys:
    """Drafts of `k` rows of `w` tokens, from the context first and from the model's bigram for the rest.

    The bigram is built when a model first meets this drafter, one pass for every token of the vocabulary, and kept.

    Args:
      k: rows.
      w: tokens a row.
      q: last tokens looked up in the context.
      strict: copy only where `w` tokens follow, as published; otherwise shorter rows near the end of the text too.
      mode: `rows` verifies every row whole, as published; `tree` merges the beginnings rows share, which changes
        neither ids nor accepted lengths.
      prefix: what the bigram's tokens have before them: `none`, `bos`, `newline`, or `auto` for what suits the model;
        see `model_bigram`.
      window: how many of the latest places in the context are looked at; counts are exact if there are no more.

    Raises:
      ValueError: a size is no integer or below 1, `window` is below `k`, or an unknown mode or prefix.
    """
    k, w, q, window = sizes("ngrammys", k=k, w=w, q=q, window=window)
    check_prefix(prefix)
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is not one of {', '.join(MODES)}")
    if window < k:
        raise ValueError(f"window={window} is below k={k}; there are no more rows than places looked at, so raise it")
    return Ngrammys(k, w, q, strict, mode, prefix, window)
