"""The recommended mix begins with what is known of the model already."""

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

import jaxspec
from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding, bind
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.types import Context
from jaxspec.drafters import model_tables
from jaxspec.drafters.best import PAIRS, WIDTHS, best, measured
from jaxspec.drafters.token_recycling import token_recycling

LM = toy_model(0, vocabulary=9)
EVERY_OTHER = [
    pytest.param("bigram", 3, 1.2, marks=pytest.mark.slow),
    pytest.param("empty", 1, 0.0, marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))


def context_of(lanes: int) -> Context:
    ones = jnp.ones((lanes,), jnp.int32)
    return Context(jnp.zeros((lanes, 8), jnp.int32), ones, ones, ones.astype(jnp.uint32), ones.astype(bool))


def binding_of(by_request: bool) -> Binding:
    return Binding(9, SamplingFlags(), Drawing.BEST, 64, by_request=by_request)


def start_of(drafter, by_request: bool = False) -> np.ndarray:
    """The table that token recycling begins with in a job."""
    recycling = drafter.drafters[1]
    bound, params = bind(recycling, binding_of(by_request)), recycling.prepare(LM)
    state = bound.init(params, context_of(2))
    admitted = bound.admit(params, state, context_of(2), jnp.asarray([True, True]))
    np.testing.assert_array_equal(admitted.single, state.single)
    return np.asarray(state.single)


def drafted_by(part, by_request: bool = False) -> bool:
    """Whether a part of the mix proposes anything for lanes whose text repeats what an earlier request said."""
    bound, params = bind(part, binding_of(by_request)), part.prepare(LM)
    context = context_of(2)._replace(tokens=jnp.tile(jnp.arange(8), (2, 1)), length=jnp.full((2,), 6, jnp.int32))
    state = bound.admit(params, bound.init(params, context), context, jnp.asarray([True, True]))
    earlier = context._replace(length=jnp.full((2,), 4, jnp.int32))
    return bool(jnp.any(bound.propose(params, state, earlier)[0].valid))


def test_other_requests_and_the_disk_are_left_out_where_texts_depend_on_drafts() -> None:
    corpus, tree = best().drafters[2:]
    assert drafted_by(corpus) and not drafted_by(corpus, by_request=True)
    assert not drafted_by(tree)  # there is no table yet
    token_recycling(start="bigram").prepare(LM)
    assert drafted_by(tree) and not drafted_by(tree, by_request=True)
    assert drafted_by(best(start="bigram").drafters[3], by_request=True)


def test_it_starts_from_a_kept_table_and_builds_none(monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(model_tables, "_build", lambda *_: pytest.fail("read the model"))
        patched.setattr(model_tables, "fingerprint", lambda lm: pytest.fail("hashed all weights for nothing"))
        assert (start_of(best()) == -1).all() and (np.asarray(best().drafters[3].prepare(LM)) == -1).all()
    bigram = token_recycling(start="bigram").prepare(LM)
    np.testing.assert_array_equal(start_of(best()), bigram)
    monkeypatch.setattr(model_tables, "fingerprint", lambda lm: "f" * 64)  # a model without a table
    assert (start_of(best()) == -1).all()


def test_texts_that_depend_on_drafts_do_not_depend_on_the_disk() -> None:
    token_recycling(start="bigram").prepare(LM)
    assert (start_of(best(), by_request=True) == -1).all()
    assert (start_of(best(start="bigram"), by_request=True) >= 0).all()


def test_it_begins_with_measured_rates() -> None:
    mix = best(63)
    rates = np.asarray(mix.init_rates(1).mean)[0]
    np.testing.assert_allclose(rates, np.array(measured())[..., : rates.shape[3]], rtol=1e-5)
    suffix, recycling, corpus, tree = rates[:, :, :, 0]
    assert suffix[2, 6] > suffix[2, 3] > suffix[2, 0]  # longer matches
    assert corpus[2, 6] > corpus[2, 1]
    for ranks in (recycling[1, :8], tree[1, :8]):
        assert ranks[0] > ranks[1] > ranks[7]  # higher ranks
    assert (recycling[1:, 8] > recycling[1:, 0]).all()  # what followed the pair
    for source, kind in ((suffix, 0), (suffix, 3), (recycling, 0), (recycling, 8), (corpus, 1), (tree, 0)):
        assert source[2, kind] > source[1, kind] > source[0, kind]  # what several propose
    for budget in WIDTHS[1:]:
        assert best(budget).nodes == budget and best(budget).prior == measured()
    assert best(start="empty").prior == measured()[:3]


@pytest.mark.parametrize(("start", "lanes", "temperature"), [("bigram", 3, 0.0), ("empty", 1, 1.2), *EVERY_OTHER])
def test_ids_equal_plain_ids(start: str, lanes: int, temperature: float) -> None:
    rng = np.random.default_rng(lanes)
    prompts = [rng.integers(0, 9, rng.integers(1, 40)).tolist() for _ in range(4)]
    settings = dict(max_new_tokens=24, temperature=temperature, seed=[5, 6, 7, 8], cache=128)
    out = jaxspec.generate(LM, prompts, drafter=best(7, start), lanes=lanes, **settings)
    assert out.ids == jaxspec.generate(LM, prompts, **settings).ids
    assert out.statistics.tokens_per_call > 1


def test_settings() -> None:
    assert best() == best(31, "auto") and hash(best()) == hash(best()) and best() != best(start="empty")
    assert best(start="empty").drafters[1] == token_recycling(nodes=32, start="empty", pairs=PAIRS)
    assert best(15).widths == (0, 3, 7, 15) and best(15, adaptive=False).widths == (15,)
    assert len(best(start="empty").drafters) == 3 and len(best(start="newline").drafters) == 4
    with pytest.raises(ValueError, match="budget=8 is not one of 3, 7, 15, 31, 63"):
        best(8)
    with pytest.raises(ValueError, match="start='full' is not one of auto, bigram, newline, empty"):
        best(start="full")
