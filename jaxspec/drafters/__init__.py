"""Drafters: where proposals come from. One a file; every instance is a frozen dataclass."""

from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.context_ngram import context_ngram

__all__ = ["autoregressive", "context_ngram"]
