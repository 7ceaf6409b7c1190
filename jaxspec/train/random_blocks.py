"""Fresh random tokens in the place of an answer's blocks, on the host.

Shapes: B answers, L tokens, T blocks, n tokens a block.
"""

import numpy as np

from jaxspec.train.packing import FILL


def random_blocks(
    tokens: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    blocks: int,
    block: int,
    *,
    vocabulary: int,
    source: str,
    random: np.random.Generator,
    known_first: bool = False,
) -> np.ndarray:
    """(B, T, n) int32 random tokens, `FILL` behind the end of an answer.

    Args:
      tokens: (B, L) int prompt and answer.
      start, length: (B,) int, where the first block begins, and of prompt and answer. Without `known_first` the first
        block has a token before it.
      blocks, block: T and n.
      vocabulary: ids.
      source: `prompt` draws from the text before the block, `vocabulary` from all ids, `repeat` repeats the token
        before the block.
      random: source of the draws.
      known_first: blocks begin with the right token, as in decoding, which knows it from the pass before; that is
        then the token to `repeat`.
    """
    tokens, length = np.asarray(tokens, np.int32), np.asarray(length)
    begin = np.asarray(start)[:, None] + np.arange(blocks) * block
    begin = np.minimum(begin, length[:, None])[..., None]  # (B, T, 1)
    lane = np.arange(len(tokens))[:, None, None]
    uniform = random.random((len(tokens), blocks, block))
    if source == "vocabulary":
        drawn = np.floor(uniform * vocabulary).astype(np.int32)
    elif source == "repeat":
        last = np.minimum(begin, tokens.shape[1] - 1) if known_first else begin - 1
        drawn = np.broadcast_to(tokens[lane, last], uniform.shape).copy()
    else:
        drawn = tokens[lane, np.floor(uniform * begin).astype(np.int64)]
    if known_first:
        drawn[:, :, :1] = tokens[lane, np.minimum(begin, tokens.shape[1] - 1)]
    inside = begin + np.arange(block) < length[:, None, None]
    return np.where(inside, drawn, FILL)
