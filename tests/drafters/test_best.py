"""The recommended mix begins with what is known of the model already."""

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_model

from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.binding import Binding, bind
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.types import Context
from jaxspec.drafters import model_tables
from jaxspec.drafters.best import WIDTHS, best, measured
from jaxspec.drafters.token_recycling import token_recycling

LM = toy_model(0, vocabulary=9)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JAXSPEC_CACHE", str(tmp_path))


def context_of(lanes: int) -> Context:
    ones = jnp.ones((lanes,), jnp.int32)
    return Context(jnp.zeros((lanes, 8), jnp.int32), ones, ones, ones.astype(jnp.uint32), ones.astype(bool))


def start_of(drafter, by_request: bool = False) -> np.ndarray:
    """The table that token recycling begins with in a job."""
    recycling = drafter.drafters[1]
    binding = Binding(9, SamplingFlags(), Drawing.BEST, 64, by_request=by_request)
    bound, params = bind(recycling, binding), recycling.prepare(LM)
    state = bound.init(params, context_of(2))
    admitted = bound.admit(params, state, context_of(2), jnp.asarray([True, True]))
    np.testing.assert_array_equal(admitted, state)
    return np.asarray(state)


def test_it_starts_from_a_kept_table_and_builds_none(monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(model_tables, "_build", lambda *_: pytest.fail("read the model"))
        patched.setattr(model_tables, "fingerprint", lambda lm: pytest.fail("hashed all weights for nothing"))
        assert (start_of(best()) == -1).all()
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
    np.testing.assert_allclose(rates, np.array(measured())[:, :, : rates.shape[2]], rtol=1e-5)
    suffix, recycling = rates[:, :, 0]
    assert suffix[6] > suffix[3] > suffix[0]  # longer matches
    assert recycling[0] > recycling[1] > recycling[3] > recycling[7]  # higher ranks
    for budget in WIDTHS[1:]:
        assert best(budget).nodes == budget and best(budget).prior == measured()


def test_settings() -> None:
    assert best() == best(31, "auto") and hash(best()) == hash(best()) and best() != best(start="empty")
    assert best(start="empty").drafters[1] == token_recycling(nodes=32, start="empty")
    with pytest.raises(ValueError, match="budget=8 is not one of 3, 7, 15, 31, 63"):
        best(8)
    with pytest.raises(ValueError, match="start='full' is not one of auto, bigram, newline, empty"):
        best(start="full")
