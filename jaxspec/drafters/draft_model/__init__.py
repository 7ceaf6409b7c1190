"""A small language model drafts for a large one, in the same loop, with a cache of its own.

Speculative decoding (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318). The draft model reads what
was committed and says what comes next, token by token; with `branches`, its runners-up at every step stand beside
the row as leaves. What it proposes are its most probable tokens, draws with the target's own noise, or draws of its
own, as the acceptance rule wants, always from the distribution the target's settings make of its logits.
"""

from jaxspec.drafters.draft_model.drafter import DraftModel
from jaxspec.drafters.draft_model.factory import AUTO, draft_model

__all__ = ["AUTO", "DraftModel", "draft_model"]
