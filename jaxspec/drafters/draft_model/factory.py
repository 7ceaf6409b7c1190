"""The draft model drafter from its settings."""

import dataclasses
from pathlib import Path

from jaxspec.decode.types import Drafter
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.chain import OneChain
from jaxspec.drafters.draft_model.drafter import DraftModel
from jaxspec.drafters.stateless import Stateless
from jaxspec.models.language_model import LanguageModel
from jaxspec.models.self_draft import SELF

AUTO = (0, 1, 2, 4, 8)  # lengths the loop chooses among


def draft_model(
    lm: LanguageModel | str | Path,
    length: str | int = 4,
    *,
    stop_below: float = 0.0,
    branches: int = 1,
    branch_below: float = 1.0,
    vocabulary: str = "same",
    drafter: Drafter | None = None,
) -> DraftModel:
    """Drafts with a smaller language model.

    Args:
      lm: the draft model, or what `jaxspec.load` takes; or `self:int8`, `self:int4`, `self:int3` or
        `self:int4:group=64` for a quantised copy of the target, `self:layers=12` for its first twelve layers.
      length: tokens a draft, or `auto`: 0, 1, 2, 4 or 8, whichever the acceptance seen so far and the measured cost
        of a step, drafting included, make the fastest; always 8 under rules whose texts depend on drafts.
      stop_below: end a draft where its most probable next token has less than this probability; 0 never.
      branches: tokens proposed at every step, the draft going on below the first.
      branch_below: propose them only where the most probable token has less than this probability; 1 everywhere.
      vocabulary: `same` wants models that agree on every id both have a token for; `shared` lets them differ, and
        drafts in the tokens both know.
      drafter: drafts for the draft model, which then needs a pass for several tokens where it agrees: one that keeps
        nothing in mind and proposes a row, such as `context_ngram`. The draft stays the same. For a fixed length of
        one branch.

    Raises:
      ValueError: `lm` is no model, a setting is out of range, `drafter` is not of that kind or not with those settings,
        or, once the target is known, the vocabularies differ.
    """
    if not isinstance(lm, LanguageModel | str | Path):
        raise ValueError(f"lm={lm!r} is neither a language model nor what jaxspec.load takes; give one of these")
    lengths = _lengths(length)
    if not 0 <= stop_below < 1:
        raise ValueError(f"stop_below={stop_below} is not from 0 (never) to below 1; it is a probability")
    branches = integer("branches", branches)
    if branches < 1:
        raise ValueError(f"branches={branches} is below 1; every step proposes at least one token")
    if not 0 < branch_below <= 1:
        raise ValueError(f"branch_below={branch_below} is not above 0 and at most 1 (everywhere); it is a probability")
    if vocabulary not in ("same", "shared"):
        raise ValueError(f"vocabulary={vocabulary!r} is neither same nor shared")
    if drafter is not None:
        if not (isinstance(drafter, Stateless) and isinstance(drafter, OneChain)):
            raise ValueError(
                f"drafter={drafter} keeps a state or proposes more than a row, and a draft model takes its text back "
                "where the target disagrees; use context_ngram"
            )
        if len(lengths) > 1 or stop_below > 0 or branches > 1:
            raise ValueError(
                f"drafter={drafter} drafts several tokens a pass, which leaves nothing to length={length!r}, "
                f"stop_below={stop_below} and branches={branches}; use a fixed length of one branch"
            )
    model = DraftModel(
        config=None,
        model=None,
        cache_dtype=None,
        lengths=lengths,
        stop_below=float(stop_below),
        branches=branches,
        branch_below=float(branch_below),
        shared_vocabulary=vocabulary == "shared",
        inner=drafter,
    )
    if isinstance(lm, str) and lm.startswith(SELF):
        return dataclasses.replace(model, of_itself=lm.removeprefix(SELF))
    if not isinstance(lm, LanguageModel):
        from jaxspec.engine.load import load  # models and file formats, which other drafters do not need

        lm = load(lm)
    return model.of_model(lm)


def _lengths(length: str | int) -> tuple[int, ...]:
    """What lengths a draft may have, ascending."""
    if length == "auto":
        return AUTO
    try:
        tokens = int(length) if isinstance(length, str) else integer("length", length)
    except ValueError:
        raise ValueError(f"length={length!r} is neither a whole number of tokens nor auto") from None
    if tokens < 1:
        raise ValueError(f"length={length} is below 1; a draft has at least one token")
    return (tokens,)
