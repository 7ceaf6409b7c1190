"""Drafts from the model's own weights, the same whatever the text: successors of single tokens, or ordinary tokens.

The model half of N-Grammys (arXiv 2411.03786, section 4.1), each a drafter of its own. Tables are built once.

B lanes, V vocabulary, K rows, W width.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxspec.decode.types import Context, Draft
from jaxspec.drafters import model_tables
from jaxspec.drafters.model_tables import ExtendedBigram
from jaxspec.drafters.rows import Rows, draft_rows
from jaxspec.drafters.sizes import sizes
from jaxspec.drafters.stateless import Stateless
from jaxspec.drafters.unigram_ranking import VARIANTS, unigram_ranking
from jaxspec.models.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class ModelBigram(Rows, Stateless):
    """The `rows` likeliest successors of the last token, each followed greedily to `width` tokens."""

    rows: int
    width: int
    prefix: str

    sources = ("model_bigram",)

    def prepare(self, language_model: LanguageModel) -> ExtendedBigram:
        return bigram_rows_of(language_model, self.rows, self.width, self.prefix)

    def propose(self, params: ExtendedBigram, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        ids = params.rows(context.root)
        rank = jnp.broadcast_to(jnp.arange(self.rows, dtype=jnp.int32), ids.shape[:2])
        return draft_rows(ids, jnp.full_like(rank, self.width), jnp.zeros_like(rank), rank), state


@dataclasses.dataclass(frozen=True)
class ModelUnigram(Rows, Stateless):
    """The `rows` most ordinary tokens, whatever came before."""

    rows: int
    variant: str

    width = 1
    sources = ("model_unigram",)

    def prepare(self, language_model: LanguageModel) -> jax.Array:
        """(K,) int32 the tokens proposed."""
        vocabulary = language_model.config.vocabulary
        if self.rows > vocabulary:
            raise ValueError(f"k={self.rows} is above the model's vocabulary of {vocabulary} ids; lower it")
        return jnp.asarray(unigram_ranking(language_model, self.variant)[: self.rows])

    def propose(self, params: jax.Array, state: tuple[()], context: Context) -> tuple[Draft, tuple[()]]:
        ids = jnp.broadcast_to(params, (context.length.shape[0], self.rows))
        rank = jnp.broadcast_to(jnp.arange(self.rows, dtype=jnp.int32), ids.shape)
        return draft_rows(ids[:, :, None], jnp.ones_like(rank), jnp.zeros_like(rank), rank), state


def bigram_rows_of(language_model: LanguageModel, k: int, w: int, prefix: str) -> ExtendedBigram:
    """The extended bigram of a model, with `prefix` before each token."""
    before = model_tables.prefix_ids(language_model, prefix)
    return model_tables.extended_bigram(model_tables.model_bigram(language_model, k, before), w)


def model_bigram(k: int = 10, w: int = 3, *, prefix: str = "auto") -> ModelBigram:
    """Drafts from what the model says after the last token alone.

    Args:
      k: rows, one a successor.
      w: tokens a row.
      prefix: `none` for the single token, `bos` to put the id that begins every text before it, `newline` to put a
        line break there: models that say nothing sensible after a single token, as Qwen's do, need one. `auto` takes
        the beginning of every text where the tokenizer has one, else a line break.

    Raises:
      ValueError: `k` or `w` is no integer or below 1, or an unknown prefix.
    """
    k, w = sizes("model_bigram", k=k, w=w)
    model_tables.check_prefix(prefix)
    return ModelBigram(k, w, prefix)


def model_unigram(k: int = 10, *, variant: str = "text") -> ModelUnigram:
    """Drafts of one token that do not look at the text.

    Args:
      k: tokens proposed.
      variant: of the ranking, `text` or `appendix`; see `unigram_ranking`.

    Raises:
      ValueError: `k` is no integer or below 1, or an unknown variant.
    """
    (k,) = sizes("model_unigram", k=k)
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} is not one of {', '.join(VARIANTS)}")
    return ModelUnigram(k, variant)
