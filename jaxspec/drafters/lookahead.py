"""Drafts from a pool of n-grams that the target makes on the side, by Jacobi iteration.

Lookahead decoding (Fu et al., arXiv 2402.02057). Besides guesses, every block carries a window of levels: the target's
tokens after the last level become the next one, and a column read through the levels, with the token the target adds
now, is an n-gram the model might say. N-grams go to a pool by their first token, and those of the root are the
guesses.

The published mask lets level 0 attend causally, and every later level to the level 0 up to its own column and to
its own column's earlier levels. As a tree that is a trunk of level 0, its column 0 being the root, with one branch
a column, so the mask of ancestors is the published one exactly. Three things differ. All levels start with tokens of
the text, at the price of a few n-grams, instead of growing during the first steps; no n-gram with such a token
enters the pool. Nodes of the window may be accepted like any other. And where the block was cut, or shared with
other drafters, a column that was not verified stays as it is and adds nothing to the pool.

B lanes, W columns, G guesses, n tokens an n-gram, H buckets, N draft nodes.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.decode.hashing import ODD, scrambled
from jaxspec.decode.lanes import choose, on_every_lane
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.one_width import OneWidth
from jaxspec.drafters.paths import path_hash, said_after
from jaxspec.drafters.sizes import sizes

GUESS, WINDOW = 0, 1  # sources


class LookaheadState(NamedTuple):
    """Attributes:
    window: (B, n - 1, W) int32, level by level; column 0 of level 0 is unused, the root stands there.
    told: (B, n - 1, W) bool whether the target said the token, rather than it being there from the start.
    pool: (B, H, G, n) int32 n-grams with their first token, -1 for none.
    count: (B, H) int32 n-grams ever put into a bucket.
    """

    window: jax.Array
    told: jax.Array
    pool: jax.Array
    count: jax.Array


@dataclasses.dataclass(frozen=True)
class Lookahead(OneWidth):
    """Attributes:
    window: W.
    ngram: n.
    guesses: G.
    buckets: H.
    """

    window: int
    ngram: int
    guesses: int
    buckets: int

    sources = ("lookahead", "lookahead_window")

    @property
    def nodes(self) -> int:
        return (self.ngram - 1) * (self.window + self.guesses) - 1

    @property
    def depth(self) -> int:
        return max(self.window + self.ngram - 3, self.ngram - 1)

    def prepare(self, language_model: Any) -> tuple[()]:
        return ()

    def init(self, params: tuple[()], context: Context) -> LookaheadState:
        lanes = context.length.shape[0]
        levels = (lanes, self.ngram - 1, self.window)
        return LookaheadState(
            window=jnp.zeros(levels, jnp.int32),
            told=jnp.zeros(levels, bool),
            pool=jnp.full((lanes, self.buckets, self.guesses, self.ngram), -1, jnp.int32),
            count=jnp.zeros((lanes, self.buckets), jnp.int32),
        )

    def admit(self, params: tuple[()], state: LookaheadState, context: Context, fresh: jax.Array) -> LookaheadState:
        place = jnp.arange((self.ngram - 1) * self.window, dtype=jnp.uint32)
        drawn = _mixed(_mixed(context.seed[:, None]) + place)
        drawn %= jnp.maximum(context.length, 1).astype(jnp.uint32)[:, None]
        text = jnp.take_along_axis(context.tokens, drawn.astype(jnp.int32), axis=1)
        start = self.init(params, context)._replace(window=text.reshape(state.window.shape))
        return choose(fresh, start, state)

    def propose(self, params: tuple[()], state: LookaheadState, context: Context) -> tuple[Draft, LookaheadState]:
        lanes = context.length.shape[0]
        guesses, found = self._guesses(state, context.root)
        window = jnp.concatenate([state.window[:, 0, 1:], state.window[:, 1:].reshape(lanes, -1)], axis=1)
        shape = _topology(self.window, self.ngram, self.guesses)
        draft = Draft(
            ids=jnp.concatenate([guesses.reshape(lanes, -1), window], axis=1),
            parent=on_every_lane(shape.parent, lanes),
            depth=on_every_lane(shape.depth, lanes),
            source=on_every_lane(shape.source, lanes),
            valid=jnp.concatenate([jnp.repeat(found, self.ngram - 1, axis=1), jnp.ones_like(window, bool)], axis=1),
            evidence=on_every_lane(shape.evidence, lanes),
        )
        return draft, state

    def observe(
        self, params: tuple[()], state: LookaheadState, context: Context, draft: Draft, verdict: Verdict
    ) -> LookaheadState:
        new, verified = self._ends(params, state, context, draft, verdict)
        verified &= context.live[:, None]
        key = jnp.concatenate([context.root[:, None], state.window[:, 0, 1:]], axis=1)  # (B, W)
        grams = jnp.concatenate([key[:, None], state.window[:, 1:], new[:, None]], axis=1).swapaxes(1, 2)  # (B, W, n)
        is_told = jnp.all(state.told.at[:, 0, 0].set(True), axis=1)  # the root is
        pool, count = jax.vmap(_insert)(state.pool, state.count, grams, verified & is_told)

        def shift(levels: jax.Array, last: jax.Array) -> jax.Array:
            shifted = jnp.concatenate([levels[:, 1:], last[:, None]], axis=1)
            return jnp.where(verified[:, None], shifted, levels)

        return LookaheadState(shift(state.window, new), shift(state.told, verified), pool, count)

    def _guesses(self, state: LookaheadState, root: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, G, n - 1) what n-grams of `root` (B,) go on with, the newest first, and (B, G) bool which there are."""
        lane = jnp.arange(root.shape[0])[:, None]
        bucket = _bucket(root, self.buckets)[:, None]
        age = jnp.arange(self.guesses, dtype=jnp.int32)
        grams = state.pool[lane, bucket, (state.count[lane, bucket] - 1 - age) % self.guesses]
        return jnp.maximum(grams[:, :, 1:], 0), grams[:, :, 0] == root[:, None]

    def _ends(
        self, params: tuple[()], state: LookaheadState, context: Context, draft: Draft, verdict: Verdict
    ) -> tuple[jax.Array, jax.Array]:
        """(B, W) the target's token at the end of every column, and (B, W) bool whether the block held the column."""
        own, _ = self.propose(params, state, context)
        return said_after(path_hash(own, self.depth)[:, -self.window :], draft, verdict)


class Topology(NamedTuple):
    """Of the nodes, each (N,) int32: as in `Draft`."""

    parent: np.ndarray
    depth: np.ndarray
    source: np.ndarray
    evidence: np.ndarray


@functools.cache
def _topology(window: int, ngram: int, guesses: int) -> Topology:
    """Guesses as chains below the root, then the trunk, then the window's levels from 1 on, a column a branch."""
    nodes: list[tuple[int, int, int, int]] = []
    for guess in range(guesses):
        for step in range(ngram - 1):
            nodes.append((len(nodes) if step else 0, step + 1, GUESS, guess))
    above = [0]  # block node that ends every column so far
    for column in range(1, window):
        nodes.append((above[-1], column, WINDOW, 0))
        above.append(len(nodes))
    for level in range(1, ngram - 1):
        for column in range(window):
            nodes.append((above[column], column + level, WINDOW, level))
            above[column] = len(nodes)
    return Topology(*(np.array(field, np.int32) for field in zip(*nodes, strict=True)))


def _insert(pool: jax.Array, count: jax.Array, grams: jax.Array, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One lane's pool with new n-grams.

    Args:
      pool: (H, G, n) int32.
      count: (H,) int32.
      grams: (W, n) int32.
      wanted: (W,) bool; what the pool already holds is not put in twice.

    Returns:
      `pool` and `count`; of a full bucket the oldest n-gram makes room.
    """
    bucket = _bucket(grams[:, 0], pool.shape[0])
    held = jnp.any(jnp.all(pool[bucket] == grams[:, None], axis=2), axis=1)
    place = jnp.arange(grams.shape[0], dtype=jnp.int32)
    earlier = place[:, None] > place[None, :]
    twin = jnp.any(jnp.all(grams[:, None] == grams[None, :], axis=2) & earlier & wanted[None, :], axis=1)
    fresh = wanted & ~held & ~twin
    rank = jnp.sum((bucket[:, None] == bucket[None, :]) & earlier & fresh[None, :], axis=1, dtype=jnp.int32)
    fresh &= rank < pool.shape[1]  # no slot is written twice, so that order cannot matter
    slot = (count[bucket] + rank) % pool.shape[1]
    bucket = jnp.where(fresh, bucket, pool.shape[0])
    return pool.at[bucket, slot].set(grams, mode="drop"), count.at[bucket].add(1, mode="drop")


def _bucket(ids: jax.Array, buckets: int) -> jax.Array:
    return (_mixed(ids.astype(jnp.uint32)) % jnp.uint32(buckets)).astype(jnp.int32)


def _mixed(x: jax.Array) -> jax.Array:
    return scrambled((x + jnp.uint32(1)) * jnp.uint32(ODD))


def lookahead(window: int = 7, ngram: int = 5, guesses: int = 7, buckets: int = 1024) -> Lookahead:
    """Drafts n-grams that the target made on the side in a window of the same block.

    A block holds `(ngram - 1) * (window + guesses)` tokens with its root.

    Args:
      window: columns, each making one n-gram a step.
      ngram: tokens an n-gram; as many less one are guessed.
      guesses: n-grams kept for every first token, and verified at once.
      buckets: first tokens told apart; those that share a bucket push each other out.

    Raises:
      ValueError: a size is no integer, `window`, `guesses` or `buckets` is below 1, or `ngram` below 3.
    """
    window, guesses, buckets = sizes("lookahead", window=window, guesses=guesses, buckets=buckets)
    ngram = integer("ngram", ngram)
    if ngram < 3:
        raise ValueError(f"ngram={ngram} is below 3; an n-gram has its first token, a level between and a last")
    return Lookahead(window, ngram, guesses, buckets)
