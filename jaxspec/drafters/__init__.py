"""Drafters: where proposals come from. One a file; every instance is a frozen dataclass."""

from jaxspec.drafters.autoregressive import autoregressive
from jaxspec.drafters.context_ngram import context_ngram
from jaxspec.drafters.mix import mix

__all__ = ["autoregressive", "context_ngram", "mix"]
