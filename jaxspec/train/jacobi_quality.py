"""How many tokens a model guesses right per forward pass, and whether its answers are still right.

Measured by decoding: plainly, and by Jacobi iteration on blocks and on a rolling window, whose texts must be the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxspec.drafters.initial_tokens import Initial
from jaxspec.drafters.jacobi import jacobi
from jaxspec.engine.generate import generate
from jaxspec.models.language_model import LanguageModel


class JacobiQuality(NamedTuple):
    """One way of decoding over all prompts.

    Attributes:
      mode: `plain`, `block` or `rolling`.
      n: tokens iterated on at once.
      tokens_per_forward: over all answers, prefill apart.
      exact_match: share of answers that are right.
      identical: whether all ids equal plain decoding's.
    """

    mode: str
    n: int
    tokens_per_forward: float
    exact_match: float
    identical: bool


def jacobi_quality(
    lm: LanguageModel,
    prompts: Sequence[str | Sequence[int]],
    is_right: Callable[[int, str], bool],
    *,
    sizes: Sequence[int] = (16,),
    modes: Sequence[str] = ("block", "rolling"),
    initial: Initial = "prompt",
    max_new_tokens: int = 128,
    lanes: int | None = None,
) -> list[JacobiQuality]:
    """Plain decoding first, then every mode at every size.

    Args:
      lm: the model.
      prompts: texts or token ids, at least one.
      is_right: from a prompt's index and a text to whether it answers it.
      sizes: n, tokens iterated on at once.
      modes: of `drafters.jacobi`.
      initial: its `init`.
      max_new_tokens: of every answer.
      lanes: answers at once; None chooses.

    Raises:
      ValueError: a size or mode is unknown, or a prompt cannot be decoded.
    """
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "lanes": lanes}
    plain = generate(lm, list(prompts), **settings)
    right = _share_right(is_right, plain.texts)
    found = [JacobiQuality("plain", 1, plain.statistics.tokens_per_call, right, True)]
    for n in sizes:
        for mode in modes:
            out = generate(lm, list(prompts), drafter=jacobi(n, mode, initial), **settings)  # type: ignore[arg-type]
            identical = out.ids == plain.ids
            share = right if identical else _share_right(is_right, out.texts)
            found.append(JacobiQuality(mode, n, out.statistics.tokens_per_call, share, identical))
    return found


def _share_right(is_right: Callable[[int, str], bool], texts: Sequence[str]) -> float:
    return sum(is_right(index, text) for index, text in enumerate(texts)) / len(texts)
