"""What calibrators by rank share: a bank of scores, cells, draws, and the checks of their settings.

B lanes, C cells, G groups, Q questions.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxspec.conformal.bank import Bank, PooledBank
from jaxspec.conformal.calibrator import checked_state
from jaxspec.conformal.checked import Checked
from jaxspec.conformal.cluster_bank import ClusterBank, ClusterBankState
from jaxspec.conformal.lanes import Lanes, lane_values
from jaxspec.conformal.rate import exact_rate
from jaxspec.conformal.standing import Standing, p_value
from jaxspec.conformal.tally import Tally, count, empty_tally

MODES = ("marginal", "conditional")
LARGEST_SUM = 2**31 - 1  # ranks are int32


class RankState(NamedTuple):
    """Attributes:
    bank: scores to compare with.
    tally: what was decided.
    key: (2,) uint32 of the random draws.
    tick: () int32 observations, each of a batch of lanes.
    """

    bank: Bank | ClusterBankState
    tally: Tally
    key: jax.Array
    tick: jax.Array


class Drawing(Protocol):
    """A state that holds a key and counts ticks, see `RankState`."""

    @property
    def key(self) -> jax.Array: ...

    @property
    def tick(self) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Ranked(Checked):
    """Settings of a calibrator that ranks a score among earlier ones.

    Attributes:
      reject_rate: share of drafts to hand to the target.
      groups: G.
      questions: Q when scores are compared within a question, 0 when all questions are pooled.
      size: entries of a cell, questions where the bank is by question.
      cluster_size: entries of a question in a bank by question, 0 for a bank that does not tell questions apart.
      ring: whether a full cell forgets the oldest entry or takes no more.
      seed: of the draws.
    """

    reject_rate: float
    groups: int
    questions: int
    size: int
    cluster_size: int
    ring: bool
    seed: int

    @property
    def cells(self) -> int:
        return self.groups * max(self.questions, 1)

    @property
    def bank(self) -> PooledBank | ClusterBank:
        if self.cluster_size:
            return ClusterBank(self.size, self.cluster_size, self.ring)
        return PooledBank(self.size, self.ring)

    def p_values(
        self,
        state: Any,
        score: jax.Array,
        group: jax.Array,
        question: jax.Array | None = None,
        uniform: jax.Array | None = None,
        tail: str = "better",
    ) -> jax.Array:
        """(B,) float32 p-values of scores in their cells; arguments as those of `jaxspec.conformal.p_values`.

        Raises:
          ValueError: a state of another calibrator, a wrong shape, another tail.
        """
        state = checked_state(self, state)
        lanes = self._lanes(score, group, None, question)
        draw = None if uniform is None else draws(rank_state(state), lanes.score.shape[0], uniform)
        return p_value(self._standing(rank_state(state), lanes), tail, draw)

    def _first_state(self) -> RankState:
        return RankState(
            bank=self.bank.init(self.cells),
            tally=empty_tally(self.cells),
            key=first_key(self.seed),
            tick=jnp.zeros((), jnp.int32),
        )

    def _lanes(self, score: jax.Array, group: jax.Array, live: jax.Array | None, question: jax.Array | None) -> Lanes:
        lanes = super()._lanes(score, group, live, question)
        if not (self.questions or self.cluster_size):
            return lanes
        if question is None:
            raise ValueError("this calibrator tells questions apart; pass question, (B,) integers")
        asked = lane_values("question", question, lanes.score.shape[0], jnp.integer).astype(jnp.int32)
        if not self.questions:
            return lanes._replace(question=asked)
        cell = jnp.clip(asked, 0, self.questions - 1) * self.groups + lanes.cell
        return lanes._replace(question=asked, cell=cell)

    def _standing(self, state: RankState, lanes: Lanes) -> Standing:
        bank: Any = state.bank
        return self.bank.compare(bank, lanes.cell, lanes.score, lanes.question)

    def _renewed_ranks(self, state: RankState, questions_as_groups: bool) -> RankState:
        """The ranks to go on from: those of a bank by question stay as ranks among earlier questions, and where every
        question has cells of its own, nothing stays but the draws.
        """
        if self.questions or questions_as_groups:
            fresh = self._first_state()
            return state._replace(bank=fresh.bank, tally=fresh.tally)
        bank: Any = state.bank
        return state._replace(bank=self.bank.earlier(bank)) if isinstance(self.bank, ClusterBank) else state

    def _insert(self, state: RankState, lanes: Lanes) -> RankState:
        bank: Any = state.bank
        bank = self.bank.insert(bank, lanes.cell, lanes.score, lanes.question, lanes.live)
        return state._replace(bank=bank)

    def _count(self, state: RankState, lanes: Lanes, escalate: jax.Array) -> RankState:
        return state._replace(tally=count(state.tally, lanes, escalate), tick=state.tick + 1)


def first_key(seed: int) -> jax.Array:
    """(2,) uint32 key data that draws begin with."""
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def rank_state(state: Any) -> RankState:
    """The part of a calibrator's state that holds its bank."""
    return state if isinstance(state, RankState) else state.ranks


def draws(state: Drawing, lanes: int, uniform: jax.Array | None) -> jax.Array:
    """(B,) float32 in [0, 1): the caller's, or those of this tick."""
    if uniform is not None:
        return lane_values("uniform", uniform, lanes, jnp.floating).astype(jnp.float32)
    key = jax.random.wrap_key_data(state.key, impl="threefry2x32")
    return jax.random.uniform(jax.random.fold_in(key, state.tick), (lanes,), jnp.float32)


def rank_settings(
    *,
    reject_rate: float,
    groups: int,
    mode: str,
    questions: int | None,
    size: int,
    cluster_size: int | None,
    bank: str,
    seed: int,
) -> dict[str, Any]:
    """Fields of `Ranked` from the arguments of the factories.

    Raises:
      ValueError: see the messages.
    """
    exact_rate(reject_rate)
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is not one of {MODES}: 'marginal' pools questions, 'conditional' does not")
    if bank not in ("ring", "growing"):
        raise ValueError(f"bank={bank!r} is neither 'ring' (forgets the oldest) nor 'growing' (keeps the first)")
    if mode == "conditional" and questions is None:
        raise ValueError("mode='conditional' compares within a question; say how many there are with questions=")
    if mode == "marginal" and questions is not None:
        raise ValueError(f"questions={questions} is for mode='conditional'; mode='marginal' takes any number")
    if mode == "conditional" and cluster_size is not None:
        raise ValueError(f"cluster_size={cluster_size} weighs questions alike; mode='conditional' has one at a time")
    sizes = {"groups": groups, "size": size, "questions": questions, "cluster_size": cluster_size}
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} is below 1")
    largest = ClusterBank(size, cluster_size, True).unit if cluster_size else 1
    if largest * (size + 1) > LARGEST_SUM:
        raise ValueError(
            f"cluster_size={cluster_size} and size={size} give weights up to {largest * (size + 1)}, above 32 bits; "
            f"take cluster_size up to 16, and then size up to 2900"
        )
    return {
        "reject_rate": float(reject_rate),
        "groups": groups,
        "questions": questions or 0,
        "size": size,
        "cluster_size": cluster_size or 0,
        "ring": bank == "ring",
        "seed": seed,
    }
