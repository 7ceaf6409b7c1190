"""Tokenizers of small synthetic tasks: a fixed list of characters and words, each one token.

A text is cut at its longest listed symbols from the left. Ids follow the list; the special tokens come first. The
result is an ordinary `Tokenizer`: `save` writes a folder that `tokenizer_from_folder` reads.
"""

import re
from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from jaxspec.weights.tokenizer import Tokenizer

UNKNOWN = "<unk>"
END = "<eos>"


def symbol_tokenizer(symbols: Sequence[str]) -> Tokenizer:
    """A tokenizer of `symbols`: id 0 stands for text outside of them, id 1 ends a text, ids from 2 on are they.

    Raises:
      ValueError: a symbol is empty, listed twice, or the name of a special token.
    """
    if any(not symbol for symbol in symbols):
        raise ValueError("a symbol is empty; remove it")
    names = [UNKNOWN, END, *symbols]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"symbol {repeated!r} is listed twice or names a special token; remove it")
    backend = tokenizers.Tokenizer(
        models.WordLevel(vocab={name: index for index, name in enumerate(names)}, unk_token=UNKNOWN)
    )
    longest_first = sorted(symbols, key=lambda symbol: -len(symbol))
    pattern = "|".join(re.escape(symbol) for symbol in longest_first)
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([UNKNOWN, END])
    return Tokenizer(backend, eos_id=names.index(END))
