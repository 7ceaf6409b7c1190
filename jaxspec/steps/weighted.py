"""Steps that stay at random, more likely the better they are: RSD's acceptance (arXiv 2501.19324, Algorithm 2).

B lanes.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.checked import Checked
from jaxspec.conformal.lanes import Lanes
from jaxspec.conformal.ranked import draws, first_key
from jaxspec.conformal.tally import Tally, count, empty_tally
from jaxspec.steps.weights import Weight, keep


class WeightedState(NamedTuple):
    """Attributes:
    weight: the weight function, its parameters leaves.
    tally: what was decided, every leaf (1,).
    key: (2,) uint32 of the random draws.
    tick: () int32 observations, each of a batch of lanes.
    """

    weight: Any
    tally: Tally
    key: jax.Array
    tick: jax.Array


@dataclasses.dataclass(frozen=True)
class Weighted(Checked):
    """A calibrator that keeps a step with the probability its weight function gives to the score.

    Attributes:
      kind: of the weight function.
      weight: that `init` and `renew` put into the state, where decisions read it: equal for `jit` are all of a kind.
      seed: of the draws, where the caller has none.
    """

    kind: type
    weight: Weight = dataclasses.field(compare=False)
    seed: int = 0
    groups = 1

    def init(self) -> WeightedState:
        return WeightedState(self._own_weight(), empty_tally(1), first_key(self.seed), jnp.zeros((), jnp.int32))

    def _escalates(self, state: WeightedState, lanes: Lanes, uniform: jax.Array | None) -> jax.Array:
        return ~keep(state.weight(lanes.score), draws(state, lanes.score.shape[0], uniform))

    def _learned(self, state: WeightedState, lanes: Lanes, escalate: jax.Array) -> WeightedState:
        return state._replace(tally=count(state.tally, lanes, escalate), tick=state.tick + 1)

    def _renewed(self, state: WeightedState, questions_as_groups: bool) -> WeightedState:
        return state._replace(weight=self._own_weight())

    def _own_weight(self) -> Any:
        # Copies, because the step loop donates its state.
        return jax.tree.map(jnp.copy, self.weight)


def weighted(weight: Weight) -> Weighted:
    """The calibrator of a weight function from `jaxspec.steps.weights`."""
    return Weighted(type(weight), weight)
