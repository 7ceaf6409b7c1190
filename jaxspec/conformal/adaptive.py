"""Calibration that corrects itself by the rate it has realised: adaptive conformal inference.

Gibbs and Candès (arXiv 2106.00170): the level a at which p-values are cut moves by gamma * (rate - escalated) at every
decision, so whatever the scores, the realised rate differs from the wanted one by at most
(max(a_1, 1 - a_1) + gamma) / (gamma * T) after T decisions. The level is not clipped: the bound needs what it
overshoots. A decaying step follows Angelopoulos, Barber and Bates (arXiv 2402.01139).

The level of a cell is kept as an integer, its deficit D = sum of w * (p - q * escalated) for the rate p / q and step
weights w, so nothing is lost to rounding however long the run.

B lanes, C cells.
"""

import dataclasses
import fractions
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.conformal.calibrator import checked_state
from jaxspec.conformal.lanes import Lanes, earlier_alike
from jaxspec.conformal.ranked import Ranked, RankState, draws, rank_settings
from jaxspec.conformal.rate import Rate, exact_rate
from jaxspec.conformal.standing import smoothed_p_value

DECAY_SCALE = 1024  # weight of the first step when steps decay; a constant step weighs 1
LARGEST_DEFICITS = 2**30  # sum over cells


class AdaptiveState(NamedTuple):
    """Attributes:
    ranks: bank, tally and draws.
    deficit: (C,) int32 escalations wanting, in units of 1 / (denominator * scale).
    """

    ranks: RankState
    deficit: jax.Array


@dataclasses.dataclass(frozen=True)
class AdaptiveConformal(Ranked):
    """Cuts smoothed p-values at a level that follows the realised rate.

    Attributes:
      gamma: step by which the level of a cell follows the cell's own rate.
      shared_gamma: step by which it follows the rate of all cells together, where its own leaves room.
      decay: the step at a cell's t-th decision is gamma * t ** -decay.
    """

    gamma: float
    shared_gamma: float
    decay: float

    @property
    def scale(self) -> int:
        return DECAY_SCALE if self.decay else 1

    @property
    def rate(self) -> Rate:
        return fitting_rate(self.reject_rate, self.gamma, self.scale, self.cells)

    def init(self) -> AdaptiveState:
        """Level at the rate; without scores to compare with, p-values are drawn, so the first escalate at the rate."""
        return AdaptiveState(self._first_state(), jnp.zeros((self.cells,), jnp.int32))

    def _escalates(self, state: AdaptiveState, lanes: Lanes, uniform: jax.Array | None) -> jax.Array:
        """Lanes decide in order, each at the level the ones before it leave, all against the same bank."""
        draw = draws(state.ranks, lanes.score.shape[0], uniform)
        p_value = smoothed_p_value(self._standing(state.ranks, lanes), draw)
        rate = self.rate
        never, always = self._extremes(rate)

        def one(deficit: jax.Array, lane: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            cell, p_value, weight, live = lane
            own = deficit[cell]
            level = self._level(rate, own, jnp.sum(deficit))
            escalate = live & (((p_value < level) & (own > never)) | (own >= always))
            step = weight * (rate.numerator - rate.denominator * escalate.astype(jnp.int32))
            return deficit.at[cell].add(jnp.where(live, step, 0)), escalate

        lane = (lanes.cell, p_value, self._weights(state, lanes), lanes.live)
        return jax.lax.scan(one, state.deficit, lane)[1]

    def _learned(self, state: AdaptiveState, lanes: Lanes, escalate: jax.Array) -> AdaptiveState:
        rate = self.rate
        step = self._weights(state, lanes) * (rate.numerator - rate.denominator * escalate.astype(jnp.int32))
        deficit = state.deficit.at[lanes.cell].add(jnp.where(lanes.live, step, 0))
        # As far as decisions that are done can take it; what is overruled for long is not made up for at length.
        never, always = self._extremes(rate)
        beyond = rate.denominator * self.scale
        ranks = self._insert(self._count(state.ranks, lanes, escalate), lanes)
        return AdaptiveState(ranks, jnp.clip(deficit, never - beyond, always + beyond))

    def _renewed(self, state: AdaptiveState, questions_as_groups: bool) -> AdaptiveState:
        by_question = bool(self.questions) or questions_as_groups
        deficit = jnp.zeros_like(state.deficit) if by_question else state.deficit
        return AdaptiveState(self._renewed_ranks(state.ranks, questions_as_groups), deficit)

    def levels(self, state: AdaptiveState) -> jax.Array:
        """(C,) float32 at which p-values are cut: at or below 0 nothing escalates, at or above 1 everything."""
        state = checked_state(self, state)
        return self._level(self.rate, state.deficit, jnp.sum(state.deficit))

    def deviation_bound(self, decisions: int) -> float:
        """Largest difference between the realised rate and `reject_rate` after so many decisions of one cell.

        Holds for any scores in any order if what `decide` says is done.

        Raises:
          ValueError: no decision.
        """
        if decisions < 1:
            raise ValueError(f"decisions={decisions} is below 1; before the first there is no rate")
        numerator, denominator = self.rate
        start = numerator / denominator
        if not self.decay:
            return (max(start, 1.0 - start) + self.gamma) / (self.gamma * decisions)
        # The level stays within an interval of length 1 + gamma; summing by parts leaves that over the last step.
        last = max(1, math.floor(self.scale * decisions**-self.decay) - 1) / self.scale
        return (1.0 + self.gamma) / (self.gamma * last * decisions)

    def _extremes(self, rate: Rate) -> tuple[int, int]:
        """Deficits at and below which the level is 0 or less, and at and above which it is 1 or more."""
        unit = self.scale / fractions.Fraction(str(self.gamma))
        never = math.floor(-rate.numerator * unit)
        return never, math.ceil((rate.denominator - rate.numerator) * unit)

    def _level(self, rate: Rate, own: jax.Array, everywhere: jax.Array) -> jax.Array:
        unit = rate.denominator * self.scale
        level = rate.numerator / rate.denominator + (self.gamma / unit) * own.astype(jnp.float32)
        return level + (self.shared_gamma / unit) * everywhere.astype(jnp.float32)

    def _weights(self, state: AdaptiveState, lanes: Lanes) -> jax.Array:
        """(B,) int32 weight of every lane's step, by how many decisions its cell has had."""
        if not self.decay:
            return jnp.ones_like(lanes.cell)
        order = earlier_alike(lanes.cell[:, None] == lanes.cell[None, :], lanes.live)
        number = (state.ranks.tally.decisions[lanes.cell] + order + 1).astype(jnp.float32)
        weight = jnp.floor(self.scale * number ** jnp.float32(-self.decay)).astype(jnp.int32)
        return jnp.maximum(weight, 1)


def fitting_rate(reject_rate: float, gamma: float, scale: int, cells: int) -> Rate:
    """The rate as a fraction whose deficits fit 32 bits.

    Raises:
      ValueError: the rate is outside [0, 1], or no fraction within 0.0001 of it fits.
    """
    exact_rate(reject_rate)
    room = LARGEST_DEFICITS / cells / (scale * (1.0 / gamma + 2.0))
    rate = exact_rate(reject_rate, max(1, min(32768, int(room))))
    if abs(rate.numerator / rate.denominator - float(reject_rate)) > 1e-4:
        raise ValueError(
            f"reject_rate={reject_rate} with gamma={gamma} and {cells} cells needs deficits beyond 32 bits; take a "
            "larger gamma, fewer groups or questions, or a rate of fewer digits"
        )
    return rate


def adaptive_conformal(
    reject_rate: float = 0.4,
    gamma: float = 0.05,
    groups: int = 1,
    bank: str = "ring",
    size: int = 1024,
    shared_gamma: float | None = None,
    decay: float = 0.0,
    mode: str = "marginal",
    questions: int | None = None,
    cluster_size: int | None = None,
    seed: int = 0,
) -> AdaptiveConformal:
    """Adaptive conformal inference: the rate holds on any stream, exchangeable or not.

    Args:
      reject_rate: share of drafts handed over, in [0, 1].
      gamma: step of the level, above 0; larger follows faster, with a tighter bound and a less steady level.
      groups: groups with their own bank and level, such as turns; the bound holds in each of them.
      bank: "ring" forgets the oldest score of a full group, "growing" keeps the first ones and takes no more.
      size: most scores of a group; questions where `cluster_size` is given.
      shared_gamma: with several groups, how far the rate of all together moves the level of each, so that hard
        stretches that come in all groups at once do not fill the target. None for `gamma`, 0 for separate groups.
        The bound of each group holds whatever it is.
      decay: steps shrink as t ** -decay; 0 for a constant step, 0.5 or more for a level that settles.
      mode: "marginal" pools questions; "conditional" compares within a question.
      questions: how many there are, for mode "conditional".
      cluster_size: keep up to so many scores a question, weigh questions alike and leave out the draft's own; None
        to weigh scores alike.
      seed: of the draws.

    Raises:
      ValueError: a rate outside [0, 1], a step that is not positive, a decay outside [0, 1), another bank or mode, a
        size below 1, or sizes that do not go together.
    """
    if not 0.0 < gamma < math.inf:
        raise ValueError(f"gamma={gamma} is not a positive number; 0.02 to 0.05 suit a thousand decisions")
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay={decay} is outside [0, 1); steps t ** -decay must not sum to less than the level")
    shared = gamma if shared_gamma is None else shared_gamma
    if not 0.0 <= shared < math.inf:
        raise ValueError(f"shared_gamma={shared_gamma} is not a number of 0 or more")
    settings = rank_settings(
        reject_rate=reject_rate,
        groups=groups,
        mode=mode,
        questions=questions,
        size=size,
        cluster_size=cluster_size,
        bank=bank,
        seed=seed,
    )
    alone = groups * (questions or 1) == 1
    calibrator = AdaptiveConformal(
        **settings, gamma=float(gamma), shared_gamma=0.0 if alone else float(shared), decay=float(decay)
    )
    fitting_rate(reject_rate, calibrator.gamma, calibrator.scale, calibrator.cells)
    return calibrator
