"""The columns of a device-side queue that new requests fill, on the host; the same for tokens and for steps.

R rows, L tokens a row.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxspec.decode.sampling import Sampling
from jaxspec.decode.state import NO_LIMIT, Status
from jaxspec.engine.request import Request


class FreshRows(NamedTuple):
    """Attributes:
    replace: (R,) bool rows that take a new request; all other rows of the columns are zero.
    tokens: (R, L) int32 prompts.
    prompt_length, limit: (R,) int32 tokens of the prompt, and at most in all.
    max_draft: (R,) int32 tokens drafted in a row at most.
    ticket, status: (R,) int32 order of service, and a `Status`.
    sampling: every leaf (R,).
    """

    replace: np.ndarray
    tokens: np.ndarray
    prompt_length: np.ndarray
    limit: np.ndarray
    max_draft: np.ndarray
    ticket: np.ndarray
    status: np.ndarray
    sampling: Sampling


def fresh_rows(length: int, requests: Sequence[Request], owner: np.ndarray, free: np.ndarray) -> FreshRows:
    """Columns for the rows `free`. Limits too large for a column are the largest it holds, which nothing reaches.

    Args:
      length: L.
      requests: of the whole job.
      owner: (R,) int index of every row's request, -1 for none.
      free: rows that take the request of their owner.
    """
    rows = len(owner)
    replace = np.zeros((rows,), bool)
    replace[free] = True
    fresh = {int(row): requests[int(owner[row])] for row in free}

    def column(dtype: Any, value: Callable[[Request], Any]) -> np.ndarray:
        return np.array([value(fresh[row]) if row in fresh else 0 for row in range(rows)], dtype)

    tokens = np.zeros((rows, length), np.int32)
    for row, request in fresh.items():
        tokens[row, : len(request.ids)] = request.ids
    return FreshRows(
        replace=replace,
        tokens=tokens,
        prompt_length=column(np.int32, lambda r: len(r.ids)),
        limit=column(np.int32, lambda r: min(len(r.ids) + r.max_new_tokens, NO_LIMIT)),
        max_draft=column(np.int32, lambda r: NO_LIMIT if r.max_draft is None else min(r.max_draft, NO_LIMIT)),
        ticket=np.where(replace, owner, 0).astype(np.int32),
        status=np.where(replace, int(Status.WAITING), 0).astype(np.int32),
        sampling=Sampling(
            temperature=column(np.float32, lambda r: r.temperature),
            top_k=column(np.int32, lambda r: min(r.top_k, NO_LIMIT)),
            top_p=column(np.float32, lambda r: r.top_p),
            min_p=column(np.float32, lambda r: r.min_p),
            repetition_penalty=column(np.float32, lambda r: r.repetition_penalty),
            seed=column(np.uint32, lambda r: r.seed),
        ),
    )
