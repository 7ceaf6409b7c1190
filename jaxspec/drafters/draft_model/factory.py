"""The draft model drafter from its settings."""

import dataclasses

from jaxspec.drafters.draft_model.drafter import DraftModel
from jaxspec.models.language_model import LanguageModel

AUTO = (0, 1, 2, 4, 8)  # lengths the loop chooses among
SELF = "self:"


def draft_model(
    lm: LanguageModel | str,
    length: str | int = 4,
    *,
    stop_below: float = 0.0,
    branches: int = 1,
    vocabulary: str = "same",
) -> DraftModel:
    """Drafts with a smaller language model.

    Args:
      lm: the draft model, or what `jaxspec.load` takes; or `self:int8`, `self:int4`, `self:int4:group=64` for a
        quantised copy of the target, `self:layers=12` for its first twelve layers.
      length: tokens a draft, or `auto`: 0, 1, 2, 4 or 8, whichever the acceptance seen so far and the measured cost
        of a step, drafting included, make the fastest.
      stop_below: end a draft where its most probable next token has less than this probability; 0 never.
      branches: tokens proposed at every step, the draft going on below the first.
      vocabulary: `same` wants models that agree on every id both have a token for; `shared` lets them differ, and
        drafts in the tokens both know.

    Raises:
      ValueError: a setting is out of range, or, once the target is known, the vocabularies differ.
    """
    if length == "auto":
        lengths = AUTO
    else:
        try:
            lengths = (int(length),)
        except ValueError:
            raise ValueError(f"length={length!r} is neither a number of tokens nor auto") from None
    if lengths[-1] < 1:
        raise ValueError(f"length={length} is below 1; a draft has at least one token")
    if not 0 <= stop_below < 1:
        raise ValueError(f"stop_below={stop_below} is not from 0 (never) to below 1; it is a probability")
    if branches < 1:
        raise ValueError(f"branches={branches} is below 1; every step proposes at least one token")
    if vocabulary not in ("same", "shared"):
        raise ValueError(f"vocabulary={vocabulary!r} is neither same nor shared")
    drafter = DraftModel(
        config=None,
        model=None,
        cache_dtype=None,
        lengths=lengths,
        stop_below=float(stop_below),
        branches=branches,
        shared_vocabulary=vocabulary == "shared",
    )
    if isinstance(lm, str) and lm.startswith(SELF):
        return dataclasses.replace(drafter, of_itself=lm.removeprefix(SELF))
    if isinstance(lm, str):
        from jaxspec.engine.load import load  # models and file formats, which other drafters do not need

        lm = load(lm)
    return drafter.of_model(lm)
