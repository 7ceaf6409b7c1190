"""The picture's tree is the draft, and its accepted path what the model says."""

import matplotlib.pyplot as plt
import numpy as np
from toy_model import greedy_continuation, toy_model

import jaxspec
from jaxspec.evaluate.tree_picture import drafted_tree, plot_tree

PROMPT = np.random.default_rng(0).integers(0, 7, 40).tolist()


def test_the_accepted_path_is_the_models_own() -> None:
    lm, drafter = toy_model(0), jaxspec.drafters.ngrammys(k=6, w=4)
    text = PROMPT + greedy_continuation(lm, PROMPT, 30)
    tree = drafted_tree(lm, drafter, text)
    said = greedy_continuation(lm, text, 4)
    path = np.flatnonzero(tree.accepted)
    assert 1 <= len(path) and tree.ids[path].tolist() == said[: len(path)]
    assert tree.depth[path].tolist() == list(range(1, len(path) + 1))
    out = jaxspec.generate(lm, [text], drafter=drafter, max_new_tokens=5)
    assert out.statistics.histogram[len(path)] >= 1
    assert all(tree.depth[p] + 1 == d for p, d in zip(tree.parent, tree.depth, strict=True) if p >= 0)


def test_every_node_is_drawn_once() -> None:
    lm = toy_model(0)
    tree = drafted_tree(lm, jaxspec.drafters.ngrammys(k=4, w=3), PROMPT)
    figure, axes = plt.subplots()
    plot_tree(tree, lm.tokenizer, axes, root="so")
    drawn = [text.get_text() for text in axes.texts]
    assert sorted(drawn) == sorted(["so", *(chr(97 + i) for i in tree.ids)])
    places = [text.get_position() for text in axes.texts]
    assert len(set(places)) == len(places)
    plt.close(figure)
