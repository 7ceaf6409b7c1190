"""Sizes are whole numbers, of NumPy too; nothing is built or compiled for others."""

import inspect
import re

import numpy as np
import pytest

from jaxspec import drafters

SIZES = {
    drafters.best: ("budget",),
    drafters.context_ngram: ("width", "query"),
    drafters.corpus: ("width", "slots"),
    drafters.jacobi: ("n", "recycle", "pool", "blocks"),
    drafters.lookahead: ("window", "ngram", "guesses", "buckets"),
    drafters.model_bigram: ("k", "w"),
    drafters.model_unigram: ("k",),
    drafters.ngrammys: ("k", "w", "q", "window"),
    drafters.suffix: ("width", "rows", "longest", "shortest", "window", "distinct"),
    drafters.token_recycling: ("branches", "nodes", "pairs"),
}


@pytest.mark.parametrize(("build", "name"), [(build, name) for build, names in SIZES.items() for name in names])
def test_a_size_is_a_whole_number(build, name: str) -> None:
    usual = inspect.signature(build).parameters[name].default
    for whole in (np.int64(usual), np.array(usual, np.uint32)):
        built = build(**{name: whole})
        assert built == build() and hash(built) == hash(build()) and repr(built) == repr(build())
    for other in (float(usual), usual + 0.5, str(usual), None):
        with pytest.raises(ValueError, match=re.escape(f"{name}={other!r} is not an integer; give a whole number")):
            build(**{name: other})


def test_so_are_the_sizes_of_a_mix() -> None:
    parts = drafters.context_ngram(3), drafters.suffix(4)
    mixed = drafters.mix(*parts, budget=np.int64(6), widths=np.array([2, 6]))
    assert repr(mixed) == repr(drafters.mix(*parts, budget=6, widths=(2, 6)))
    with pytest.raises(ValueError, match=re.escape("budget=6.0 is not an integer")):
        drafters.mix(*parts, budget=6.0)
    with pytest.raises(ValueError, match=re.escape("an entry of widths=2.5 is not an integer")):
        drafters.mix(*parts, budget=6, widths=(2.5, 6))


def test_and_the_ranks_of_a_template() -> None:
    made = drafters.token_recycling(template=np.array([[0], [1]]), start="empty")
    assert repr(made) == repr(drafters.token_recycling(template=((0,), (1,)), start="empty"))
    with pytest.raises(ValueError, match=re.escape("rank of a template=0.5 is not an integer")):
        drafters.token_recycling(template=((0.5,),))
