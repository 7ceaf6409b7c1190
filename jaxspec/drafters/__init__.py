"""Drafters: where proposals come from. One a file, or a folder; every instance is a frozen dataclass."""

from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.best import best
from jaxspec.drafters.context_ngram import context_ngram
from jaxspec.drafters.corpus import corpus
from jaxspec.drafters.draft_model import draft_model
from jaxspec.drafters.jacobi import jacobi
from jaxspec.drafters.lookahead import lookahead
from jaxspec.drafters.mix import mix
from jaxspec.drafters.model_ngram import model_bigram, model_unigram
from jaxspec.drafters.ngrammys import ngrammys
from jaxspec.drafters.reference_text import reference_text
from jaxspec.drafters.suffix import suffix
from jaxspec.drafters.token_recycling import token_recycling

__all__ = [
    "autoregressive",
    "best",
    "context_ngram",
    "corpus",
    "draft_model",
    "jacobi",
    "lookahead",
    "mix",
    "model_bigram",
    "model_unigram",
    "ngrammys",
    "reference_text",
    "suffix",
    "token_recycling",
]
