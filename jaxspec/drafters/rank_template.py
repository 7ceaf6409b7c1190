"""Fixed trees of ranks, to be filled with each token's likely successors: of rank 0, 1 and so on.

N draft nodes.
"""

import functools
import heapq
import math
from collections.abc import Iterable

import numpy as np

from jaxspec.decode.whole_number import integer

Template = tuple[tuple[int, ...], ...]  # paths of ranks from the root, one a node, by depth
FIRST_COST, OTHER_COST = 9, 24  # of an edge of rank 0, and of rank 1: -10 log of how often they are right


@functools.cache
def likeliest_template(nodes: int, branches: int) -> Template:
    """The `nodes` likeliest paths of ranks below `branches`.

    The best successor is taken to be right two times in five, and that of rank r, 0.09 / r of the time: what a small
    model's chat and code answers show, and, unlike a geometric law, wide at the root and deep along rank 0. Costs
    are integers, so that ties are exact; of equals the shallower come first, then the lower ranks.
    """
    costs = [FIRST_COST, *(OTHER_COST + round(10 * math.log(rank)) for rank in range(1, branches))]
    heap: list[tuple[int, int, tuple[int, ...]]] = [(cost, 1, (rank,)) for rank, cost in enumerate(costs)]
    heapq.heapify(heap)
    chosen: list[tuple[int, ...]] = []
    while len(chosen) < nodes:
        total, depth, path = heapq.heappop(heap)
        chosen.append(path)
        for rank, cost in enumerate(costs):
            heapq.heappush(heap, (total + cost, depth + 1, (*path, rank)))
    return _by_depth(chosen)


def _by_depth(paths: Iterable[tuple[int, ...]]) -> Template:
    return tuple(sorted(paths, key=lambda path: (len(path), path)))


@functools.cache
def template_arrays(template: Template) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) parent as a block node, rank and depth of every node."""
    place = {(): 0} | {path: index for index, path in enumerate(template, start=1)}
    parent = np.array([place[path[:-1]] for path in template], np.int32)
    rank = np.array([path[-1] for path in template], np.int32)
    return parent, rank, np.array([len(path) for path in template], np.int32)


def checked_template(template: Iterable[Iterable[int]], branches: int) -> Template:
    """The paths of a template in any order, by depth.

    Raises:
      ValueError: there are none, one stands twice or lacks the path above it, or a rank is no integer from 0 to
        `branches` - 1.
    """
    paths = _by_depth(tuple(integer("rank of a template", rank) for rank in path) for path in template)
    known: set[tuple[int, ...]] = {()}
    for path in paths:
        if any(not 0 <= rank < branches for rank in path):
            raise ValueError(f"template path {path} has a rank outside 0 to {branches - 1}; raise branches or drop it")
        if path in known:
            raise ValueError(f"template path {path} stands twice, or is the root; give every node once")
        if path[:-1] not in known:
            raise ValueError(f"template path {path} has no parent {path[:-1]}; add it")
        known.add(path)
    if not paths:
        raise ValueError("template is empty; it needs at least one path, such as (0,)")
    return paths
