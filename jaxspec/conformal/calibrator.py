"""The protocol of calibrators: which drafts are handed to the target.

B lanes.
"""

import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

State = Any


@runtime_checkable
class Calibrator(Protocol):
    """Frozen, hashable and without arrays, so a static argument of jit; what it learns is in its state.

    `score` (B,) is higher for better drafts; non-finite ones are worst. `group` (B,) integer says what is calibrated
    apart, such as the turn; below 0 it counts as 0, beyond the last group as the last. Lanes with `live` (B,) False
    decide False and change nothing. `question` (B,) integer is needed by calibrators that tell questions apart.
    """

    def init(self) -> State:
        """The state before the first decision."""
        ...

    def decide(
        self,
        state: State,
        score: jax.Array,
        group: jax.Array,
        live: jax.Array | None = None,
        question: jax.Array | None = None,
        uniform: jax.Array | None = None,
    ) -> jax.Array:
        """(B,) bool which drafts are handed to the target.

        Args:
          uniform: (B,) float32 in [0, 1), the draws of calibrators that break ties at random. Draws made from
            request and turn make decisions the same on any lane at any tick; None draws from the state.
        """
        ...

    def observe(
        self,
        state: State,
        score: jax.Array,
        group: jax.Array,
        escalate: jax.Array,
        live: jax.Array | None = None,
        question: jax.Array | None = None,
    ) -> State:
        """The state after what was done, `escalate` (B,) bool, which need not be what `decide` said."""
        ...

    def renew(self, state: State, questions_as_groups: bool = False) -> State:
        """The state to go on from with a job of other questions, whose numbers start at 0 again.

        Args:
          questions_as_groups: whether groups are questions, so that what was learned of one holds for none of those
            to come.
        """
        ...


@functools.lru_cache(maxsize=256)
def _expected(calibrator: Any) -> Any:
    return jax.eval_shape(calibrator.init)


def checked_state(calibrator: Any, state: State) -> State:
    """`state` of a `Calibrator` with its leaves as JAX arrays.

    Raises:
      ValueError: it is not of the structure, shapes and dtypes of `calibrator.init()`.
    """
    expected = _expected(calibrator)
    if jax.tree.structure(state) != jax.tree.structure(expected):
        raise ValueError(
            f"the calibration state is {type(state).__name__} with {len(jax.tree.leaves(state))} leaves, "
            f"{type(calibrator).__name__} needs {type(expected).__name__} with {len(jax.tree.leaves(expected))}; "
            "start with init() of this calibrator"
        )
    for (path, wanted), found in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(state), strict=True):
        if jnp.shape(found) != wanted.shape or jnp.result_type(found) != wanted.dtype:
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} is {jnp.result_type(found)}{list(jnp.shape(found))}, "
                f"{type(calibrator).__name__} needs {wanted.dtype}{list(wanted.shape)}; the state was made with "
                "other groups, questions or sizes: use the calibrator it came from, or start with init()"
            )
    return jax.tree.map(jnp.asarray, state)
