"""A threshold in the state decides as one in the calibrator does."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.conformal import fixed
from jaxspec.conformal.line import line, line_state

SCORES = jnp.array([0.2, 0.5, 0.7, jnp.nan, jnp.inf], jnp.float32)
GROUP = jnp.zeros(5, jnp.int32)


def test_it_decides_as_a_fixed_threshold_in_one_program() -> None:
    decide = jax.jit(line().decide)
    for threshold in (-math.inf, 0.2, 0.5, 0.6, math.inf):
        wanted = fixed(threshold).decide(fixed(threshold).init(), SCORES, GROUP)
        np.testing.assert_array_equal(decide(line_state(threshold), SCORES, GROUP), wanted)
    assert decide._cache_size() == 1
    live = jnp.array([True, False, True, True, True])
    assert decide(line_state(1.0), SCORES, GROUP, live).tolist() == [True, False, True, True, True]


def test_nothing_is_handed_over_before_it_is_told_a_threshold() -> None:
    assert not line().decide(line().init(), SCORES, GROUP).any()
    with pytest.raises(ValueError, match="threshold=nan"):
        line_state(math.nan)
