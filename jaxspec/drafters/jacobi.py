"""Drafts that are the target's own last guesses: Jacobi decoding inside the token loop.

Jacobi decoding (Song et al., arXiv 2002.03629; Santilli et al., arXiv 2305.10427; CLLM, Kou et al., arXiv 2403.00835)
looks for the y with y_i = f(y_<i) for all i, where f is what the target says next, by iterating y <- f(y). One pass
of the target over a chain is one iteration: `Verdict.chosen` is f after every node, beyond the accepted ones too.
Nodes that agree with it are right and are committed; the rest of it is the next chain. f is a deterministic map under
greedy and under coupled acceptance alike, so both have a fixed point, and that is what plain decoding says.

In block mode the answer is cut into blocks of n tokens: the chain ends with its block, shrinks as tokens are
committed, and every block begins with new initial tokens, so that it takes at most n passes. In rolling mode the
chain always has its full length, and initial tokens fill its end.

Two additions of Jacobi Forcing (arXiv 2512.14681, algorithm 1) are options. *Rejection recycling* keeps the discarded
tails of iterates, and what followed the last committed token in them is a further branch. *Multi-block decoding*
drafts the next block behind the current one once most of that is committed. Where the paper holds back what is right
in the second block until the first is complete, it is committed here at once, as both are one chain; and the second
block starts like any other, not as a copy of the first one's tail.

B lanes, n tokens a block, W tokens a row, R recycled rows, P tails in the pool, N = (R + 1) W nodes, V vocabulary.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxspec.decode.lanes import choose, on_every_lane
from jaxspec.decode.types import Context, Draft, Verdict
from jaxspec.decode.whole_number import integer
from jaxspec.drafters.initial_tokens import Initial, initial_tokens
from jaxspec.drafters.one_width import OneWidth
from jaxspec.drafters.paths import path_hash, said_after
from jaxspec.drafters.tail_pool import recycled, remember

Mode = Literal["block", "rolling"]


class JacobiState(NamedTuple):
    """Attributes:
    guess: (B, W) int32 for the positions behind the root.
    repeats: (B, W) int32 iterations in a row that made the guess; 0 where there is none yet.
    pool: (B, P, W + 1) int32 discarded tails, first the token that was committed in place of a wrong guess; -1
      behind a tail's end. A ring.
    count: (B,) int32 tails ever put into the pool.
    """

    guess: jax.Array
    repeats: jax.Array
    pool: jax.Array
    count: jax.Array


@dataclasses.dataclass(frozen=True)
class Jacobi(OneWidth):
    """Attributes:
    n: tokens of a block; in rolling mode of a window.
    mode: see `jacobi`.
    initial: what stands where there is no guess yet; see `jacobi`.
    recycle: R.
    pool: P.
    second_block_from: committed tokens of a block from which on the next one is drafted too; None for never.
    """

    n: int
    mode: Mode
    initial: Initial
    recycle: int
    pool: int
    second_block_from: int | None

    @property
    def depth(self) -> int:
        """W. The token after the last node needs no guess, so n tokens have n - 1."""
        return self.n - 1 if self.second_block_from is None else 2 * self.n - 1 - self.second_block_from

    @property
    def nodes(self) -> int:
        return self.depth * (self.recycle + 1)

    @property
    def sources(self) -> tuple[str, ...]:
        return ("jacobi", "jacobi_recycled") if self.recycle else ("jacobi",)

    @property
    def is_chain(self) -> bool:
        return self.recycle == 0

    def prepare(self, language_model: Any) -> jax.Array:
        """() int32 V.

        Raises:
          ValueError: a row is longer than the model's context.
        """
        context = language_model.config.context
        if self.depth >= context:
            raise ValueError(
                f"n={self.n} needs passes of {self.depth + 1} tokens, and the model's context holds {context}; "
                "choose a smaller n"
            )
        return jnp.asarray(language_model.config.vocabulary, jnp.int32)

    def init(self, params: jax.Array, context: Context) -> JacobiState:
        """No guesses.

        Raises:
          ValueError: a row is longer than the token buffers.
        """
        lanes, size = context.tokens.shape
        if self.depth >= size:
            raise ValueError(
                f"n={self.n} needs passes of {self.depth + 1} tokens, and a lane holds {size}; choose a smaller n or "
                "a larger cache"
            )
        return JacobiState(
            guess=jnp.zeros((lanes, self.depth), jnp.int32),
            repeats=jnp.zeros((lanes, self.depth), jnp.int32),
            pool=jnp.full((lanes, self.pool if self.recycle else 0, self.depth + 1), -1, jnp.int32),
            count=jnp.zeros((lanes,), jnp.int32),
        )

    def admit(self, params: jax.Array, state: JacobiState, context: Context, fresh: jax.Array) -> JacobiState:
        return choose(fresh, self.init(params, context), state)

    def propose(self, params: jax.Array, state: JacobiState, context: Context) -> tuple[Draft, JacobiState]:
        lanes, width = context.length.shape[0], self.depth
        step = jnp.arange(width, dtype=jnp.int32)
        reach = step < self._reach(context)[:, None]
        first = initial_tokens(self.initial, context, context.length[:, None] + step, params)
        own = jnp.where(state.repeats > 0, state.guess, first)
        ids, found = own[:, None], jnp.ones((lanes, 1), bool)
        if self.recycle:
            more, matched = recycled(state.pool, state.count, context.root, own, reach, self.recycle)
            ids, found = jnp.concatenate([ids, more], axis=1), jnp.concatenate([found, matched], axis=1)
        row, place = jnp.divmod(jnp.arange(self.nodes, dtype=jnp.int32), width)
        # How long a guess has stood says how good it is; of recycled rows the newest are best.
        stood = jnp.pad(state.repeats, ((0, 0), (0, self.nodes - width)))
        return Draft(
            ids=ids.reshape(lanes, -1),
            parent=on_every_lane(jnp.where(place > 0, row * width + place, 0), lanes),
            depth=on_every_lane(place + 1, lanes),
            source=on_every_lane(jnp.minimum(row, 1), lanes),
            valid=(found[:, :, None] & reach[:, None]).reshape(lanes, -1),
            evidence=jnp.where(row == 0, stood, row - 1),
        ), state

    def observe(
        self, params: jax.Array, state: JacobiState, context: Context, draft: Draft, verdict: Verdict
    ) -> JacobiState:
        width, accepted = self.depth, verdict.accepted[:, None]
        own, _ = self.propose(params, state, context)
        rows, said, told = self._iterates(params, own, draft, verdict)
        # The next iterate is that of the row whose prefix came true furthest, the own row before others.
        true = (rows == verdict.ids[:, None, :width]) & (jnp.arange(width) < accepted)[:, None]
        best = jnp.argmax(jnp.sum(jnp.cumprod(true, axis=2, dtype=jnp.int32), axis=2), axis=1)[:, None]
        shown, said, told = (jnp.take_along_axis(x, best[:, :, None], axis=1)[:, 0] for x in (rows, said, told))

        def with_last(x: jax.Array, value: int) -> jax.Array:
            return jnp.pad(x, ((0, 0), (0, 1)), constant_values=value)

        # What the block did not hold keeps its old guess.
        guess = jnp.where(told, said, with_last(state.guess, 0))
        before = with_last(state.repeats, 0)
        stayed = (said == with_last(shown, -1)) & (best == 0)
        repeats = jnp.where(told, jnp.where(stayed, before + 1, 1), before)
        later = accepted + 1 + jnp.arange(width, dtype=jnp.int32)  # what is accepted + 1 tokens on becomes the next
        inside, later = later <= width, jnp.minimum(later, width)
        new = state._replace(
            guess=jnp.take_along_axis(guess, later, axis=1),
            repeats=jnp.where(inside, jnp.take_along_axis(repeats, later, axis=1), 0),
        )
        if self.recycle:
            pool, count = remember(state.pool, state.count, said, told, verdict)
            new = new._replace(pool=pool, count=count)
        return choose(context.live, new, state)

    def _reach(self, context: Context) -> jax.Array:
        """(B,) int32 how many nodes of a row are drafted."""
        if self.mode == "rolling":
            return jnp.full_like(context.length, self.depth)
        done = (context.length - context.prompt_length) % self.n
        reach = self.n - 1 - done
        if self.second_block_from is None:
            return reach
        return jnp.where(done >= self.second_block_from, reach + self.n, reach)

    def _iterates(
        self, params: jax.Array, own: Draft, draft: Draft, verdict: Verdict
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rows as they were proposed (B, R + 1, W), the target's token after the root and every node of them
        (B, R + 1, W + 1), and (B, R + 1, W + 1) bool where there is one."""
        lanes, rows = own.ids.shape[0], self.recycle + 1
        said, held = said_after(path_hash(own, self.depth), draft, verdict)
        told = held & own.valid & (said < params)  # V stands for logits that are no numbers

        def below_root(root: jax.Array, nodes: jax.Array) -> jax.Array:
            nodes = nodes.reshape(lanes, rows, -1)
            return jnp.concatenate([jnp.broadcast_to(root, (lanes, rows, 1)), nodes], axis=2)

        first = verdict.chosen[:, :1, None]
        return own.ids.reshape(lanes, rows, -1), below_root(first, said), below_root(jnp.bool_(True), told)


def jacobi(
    n: int = 16,
    mode: Mode = "block",
    init: Initial = "prompt",
    *,
    recycle: int = 0,
    pool: int = 8,
    blocks: int = 1,
    spawn: float = 0.85,
) -> Jacobi:
    """Drafts the target's own guesses of the next tokens, made in the passes before: Jacobi decoding.

    With a model trained for it (CLLM, Jacobi Forcing) several guesses a pass are right; with others few are.

    Args:
      n: tokens iterated on at once; a pass reads n tokens, the last committed one among them.
      mode: "block" works on n tokens until all are said, then on the next n; "rolling" always looks n ahead.
      init: what stands where the target has not guessed yet: tokens drawn from the prompt, tokens drawn from the
        vocabulary, or the last committed token repeated.
      recycle: further rows a pass, of what earlier iterates had behind the last committed token; a pass then reads
        `(recycle + 1) * (n - 1) + 1` tokens.
      pool: earlier iterates that are kept for it.
      blocks: 2 drafts the next block behind the current one, once most of it is committed. Passes are then wider by
        n - ceil(spawn * n) tokens a row.
      spawn: share of a block that must be committed before the next one joins.

    Raises:
      ValueError: a count is no integer, `n` is below 2, `mode` or `init` is unknown, `recycle` is below 0, `pool` is
        below `recycle` or 1, `blocks` is not 1 or 2, or 2 in rolling mode, or `spawn` is not from 0 to below 1.
    """
    n, recycle = integer("n", n), integer("recycle", recycle)
    pool, blocks = integer("pool", pool), integer("blocks", blocks)
    if n < 2:
        raise ValueError(f"n={n} is below 2; Jacobi decoding guesses at least one token, and n=1 is plain decoding")
    for name, value, known in (("mode", mode, get_args(Mode)), ("init", init, get_args(Initial))):
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(known)}")
    if recycle < 0:
        raise ValueError(f"recycle={recycle} is negative; 0 recycles nothing")
    if pool < max(recycle, 1):
        raise ValueError(f"pool={pool} is below {max(recycle, 1)}; it must hold at least as many tails as are recycled")
    if blocks not in (1, 2):
        raise ValueError(f"blocks={blocks} is not 1 or 2")
    if blocks == 2 and mode == "rolling":
        raise ValueError("blocks=2 is for mode='block'; a rolling window has no blocks, so give it a larger n")
    if not 0 <= spawn < 1:
        raise ValueError(f"spawn={spawn} is not from 0 to below 1; it is the share of a block that must be committed")
    second = math.ceil(spawn * n) if blocks == 2 else None
    return Jacobi(n, mode, init, recycle, pool if recycle else 0, second)
