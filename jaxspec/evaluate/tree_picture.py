"""One draft as a picture: the tree a drafter proposes after a text, and the path the model accepts.

N draft nodes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxspec.decode.types import Context, Drafter
from jaxspec.engine.generate import generate
from jaxspec.models.language_model import LanguageModel

COLOURS = ("tab:blue", "tab:orange", "tab:purple", "tab:brown")  # of sources


class DraftedTree(NamedTuple):
    """Valid nodes of one draft, parents before children.

    Attributes:
      ids: (N,) token ids.
      parent: (N,) index of the node above, -1 below the root.
      depth: (N,) 1 below the root.
      source: (N,) names of who proposed each.
      accepted: (N,) bool whether the model says the node's whole path.
    """

    ids: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    source: tuple[str, ...]
    accepted: np.ndarray


def drafted_tree(lm: LanguageModel, drafter: Drafter, text: str | Sequence[int]) -> DraftedTree:
    """What `drafter`, fresh, proposes after `text`, against the model's own greedy continuation.

    Raises:
      ValueError: the text is empty, or has no tokenizer to read it.
    """
    truth = generate(lm, text if isinstance(text, str) else [list(text)], max_new_tokens=drafter.depth, ignore_eos=True)
    ids = _ids(lm, text)
    tokens = jnp.asarray(ids, jnp.int32)[None]
    length = jnp.asarray([len(ids)], jnp.int32)
    live = jnp.ones((1,), bool)
    context = Context(tokens, length, length, jnp.zeros((1,), jnp.uint32), live)
    params = drafter.prepare(lm)
    state = drafter.admit(params, drafter.init(params, context), context, live)
    draft, _ = drafter.propose(params, state, context)
    valid = np.asarray(draft.valid[0])
    place = np.cumsum(valid) - 1  # of a node among the valid ones
    above = np.asarray(draft.parent[0])
    node_ids = np.asarray(draft.ids[0])
    said = dict(enumerate(truth.ids[0], start=1))  # by depth
    accepted = np.zeros(valid.shape, bool)
    for node in np.flatnonzero(valid):
        on_path = above[node] == 0 or accepted[above[node] - 1]
        accepted[node] = on_path and said.get(int(draft.depth[0, node])) == node_ids[node]
    parent = np.where(above == 0, -1, place[np.maximum(above - 1, 0)])
    return DraftedTree(
        ids=node_ids[valid],
        parent=parent[valid],
        depth=np.asarray(draft.depth[0])[valid],
        source=tuple(drafter.sources[int(s)] for s in np.asarray(draft.source[0])[valid]),
        accepted=accepted[valid],
    )


def plot_tree(tree: DraftedTree, tokenizer: Any, axes: Any, root: str = "root") -> None:
    """Draws the tree from left to right: tokens coloured by source, the accepted path framed and joined in green."""
    height = _heights(tree)
    middle = float(np.mean(height[tree.parent == -1])) if len(tree.ids) else 0.0
    for node, parent in enumerate(tree.parent):
        begin = (0.0, middle) if parent < 0 else (float(tree.depth[parent]), height[parent])
        style = {"color": "tab:green", "linewidth": 2.5} if tree.accepted[node] else {"color": "0.8", "linewidth": 1.0}
        axes.plot([begin[0], tree.depth[node]], [begin[1], height[node]], zorder=1, **style)
    sources = list(dict.fromkeys(tree.source))
    box = {"boxstyle": "round,pad=0.25", "facecolor": "white"}
    axes.text(0, middle, root, ha="center", va="center", fontsize=8, bbox=box | {"edgecolor": "black"})
    for node, index in enumerate(tree.ids):
        text = str(int(index)) if tokenizer is None else repr(tokenizer.decode([int(index)]))[1:-1]
        colour = COLOURS[sources.index(tree.source[node]) % len(COLOURS)]
        edge = {"edgecolor": "tab:green", "linewidth": 2.0} if tree.accepted[node] else {"edgecolor": "0.8"}
        where = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
        axes.text(tree.depth[node], height[node], text, bbox=box | edge, parse_math=False, **where)
    for place, name in enumerate(sources):
        axes.plot([], [], "s", color=COLOURS[place % len(COLOURS)], label=name)
    axes.legend(loc="upper left", fontsize=8)
    axes.set_xlabel("depth")
    axes.set_yticks([])
    axes.margins(0.08)


def _heights(tree: DraftedTree) -> np.ndarray:
    """(N,) leaves in order from the top, every other node amid its children."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parent):
        children.setdefault(int(parent), []).append(node)
    height = np.zeros(len(tree.ids))
    leaves = 0
    below_root = children.get(-1, [])
    order = list(reversed(below_root))
    visited: list[int] = []
    while order:
        node = order.pop()
        visited.append(node)
        if node not in children:
            height[node] = -leaves
            leaves += 1
        order += reversed(children.get(node, []))
    for node in reversed(visited):
        if node in children:
            height[node] = float(np.mean(height[children[node]]))
    return height


def _ids(lm: LanguageModel, text: str | Sequence[int]) -> list[int]:
    if not isinstance(text, str):
        return [int(i) for i in text]
    assert lm.tokenizer is not None, "checked by generate"
    return list(lm.tokenizer.encode(text))
