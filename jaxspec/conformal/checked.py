"""What calibrators share: state and lanes are checked before they decide.

B lanes.
"""

import abc
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.conformal.calibrator import checked_state
from jaxspec.conformal.lanes import Lanes, lane_values, lanes_of


class Checked(abc.ABC):
    """Base of calibrators, see `Calibrator`; they say what follows from checked arguments.

    Attributes:
      groups: calibrated or counted apart.
    """

    groups: int

    def decide(
        self,
        state: Any,
        score: jax.Array,
        group: jax.Array,
        live: jax.Array | None = None,
        question: jax.Array | None = None,
        uniform: jax.Array | None = None,
    ) -> jax.Array:
        """(B,) bool which drafts are handed to the target.

        Raises:
          ValueError: a state of another calibrator, wrong shapes or dtypes, or a question is needed.
        """
        state = checked_state(self, state)
        lanes = self._lanes(score, group, live, question)
        return self._escalates(state, lanes, uniform) & lanes.live

    def observe(
        self,
        state: Any,
        score: jax.Array,
        group: jax.Array,
        escalate: jax.Array,
        live: jax.Array | None = None,
        question: jax.Array | None = None,
    ) -> Any:
        """The state after what was done, `escalate` (B,) bool.

        Raises:
          ValueError: as `decide`.
        """
        state = checked_state(self, state)
        lanes = self._lanes(score, group, live, question)
        return self._learned(state, lanes, lane_values("escalate", escalate, lanes.score.shape[0], jnp.bool_))

    def renew(self, state: Any, questions_as_groups: bool = False) -> Any:
        """The state to go on from with other questions, see `Calibrator`.

        Raises:
          ValueError: a state of another calibrator.
        """
        return self._renewed(checked_state(self, state), questions_as_groups)

    def _lanes(self, score: jax.Array, group: jax.Array, live: jax.Array | None, question: jax.Array | None) -> Lanes:
        return lanes_of(score, group, live, self.groups)

    @abc.abstractmethod
    def _escalates(self, state: Any, lanes: Lanes, uniform: jax.Array | None) -> jax.Array:
        """(B,) bool which lanes, if live, are handed to the target; `uniform` as in `Calibrator.decide`."""

    @abc.abstractmethod
    def _learned(self, state: Any, lanes: Lanes, escalate: jax.Array) -> Any:
        """The state after what was done with live lanes."""

    @abc.abstractmethod
    def _renewed(self, state: Any, questions_as_groups: bool) -> Any:
        """The state without what holds for the questions so far alone."""
