"""The mix we recommend where nothing was trained: copies of the context, and what the target last thought."""

from jaxspec.drafters.mix import Mix, mix
from jaxspec.drafters.suffix import suffix
from jaxspec.drafters.token_recycling import token_recycling

WIDTHS = (0, 3, 7, 15, 31, 63)
SIZES = (8, 16, 32, 64)  # trees of token recycling


def best(budget: int = 31, start: str = "empty") -> Mix:
    """Longest repeats of the context and token recycling in one tree, as wide as pays step by step.

    Args:
      budget: most draft nodes a block. The loop takes 0, 3, 7, 15, 31 or 63 of them, whichever it expects to give
        the most tokens a second; what a width costs is measured once for a device and model, and kept.
      start: of token recycling, see there: `empty`, or `bigram` or `newline`, which first read the whole model once.

    Raises:
      ValueError: the budget is not one of 3, 7, 15, 31 and 63.
    """
    if budget not in WIDTHS[1:]:
        raise ValueError(f"budget={budget} is not one of {', '.join(map(str, WIDTHS[1:]))}")
    tree = next((size for size in SIZES if size >= budget), SIZES[-1])
    widths = tuple(width for width in WIDTHS if width <= budget)
    return mix(suffix(width=10, rows=2), token_recycling(nodes=tree, start=start), budget=budget, widths=widths)
