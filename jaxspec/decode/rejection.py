"""Speculative sampling by rejection: texts with the law of plain sampling, though not the same text.

A node drawn from q stays with probability min(1, p / q); else what is left of the target's law is (p - q)+,
normalised (Leviathan et al., arXiv 2211.17192, Sec. 2.3; Chen et al., arXiv 2302.01318, Alg. 2). With several
children the rule applies again and again, each child being judged by what the ones before it left (Miao et al.,
SpecInfer, arXiv 2305.09781), q being the law of a child given the siblings before it. A proposal that was
not drawn is one from a law with all its mass in one place. The token at the path's end is drawn from what is left.

B lanes, N draft nodes, M = N + 1 block nodes, D depth, V vocabulary.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode import sampling
from jaxspec.decode.acceptance import Drawing, process_block, verdict_of
from jaxspec.decode.tree import Tree
from jaxspec.decode.types import Context, Verdict


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Accept a drawn token with probability min(1, p / q), and draw from the residual where none is left.

    The law of a text is that of plain sampling; which text a seed gives depends on the drafter.
    """

    stochastic = True
    lossless = True
    drawing = Drawing.OWN
    follows_draft = True

    def accept(self, logits, tree, depth, context, settings, flags, banned, top) -> Verdict:
        processed = process_block(logits, tree, context, settings, flags, banned)
        uniform = _uniform(settings.seed, context, tree.ids.shape[1] - 1)
        walk = walk_down(sampling.probabilities(processed, settings), tree, uniform, depth)
        end = context.length + walk.accepted
        noise = sampling.gumbel(settings.seed, end[:, None], logits.shape[-1], sampling.RESIDUAL)
        own, _ = sampling.argmax(jnp.log(walk.residual)[:, None] + noise)
        # What a drafter learns of nodes must not tell it how later proposals will be judged: no draws but `own`.
        chosen, _ = sampling.argmax(processed)
        return verdict_of(logits, tree, walk.accepted, walk.path, own, chosen, top)


class Walk(NamedTuple):
    """Where rejection leads.

    Attributes:
      accepted: (B,) int32 nodes of the path.
      path: (B, D + 1) int32 block nodes, the root first, 0 beyond `accepted`.
      residual: (B, V) float32 law of the token that follows the path.
      chance: (B, N) float32 probability with which each node was accepted when its turn came; -1 where it never did.
    """

    accepted: jax.Array
    path: jax.Array
    residual: jax.Array
    chance: jax.Array


def walk_down(law: jax.Array, tree: Tree, uniform: jax.Array, depth: int) -> Walk:
    """Walks from the root to the first accepted child, and on, until every child is rejected or there is none.

    Args:
      law: (B, M, V) float32 the target's probabilities after every node.
      tree: the block.
      uniform: (B, N) float32 in [0, 1), a draw for every node: it is accepted iff that is below its chance.
      depth: D.
    """
    lanes, nodes = uniform.shape
    lane = jnp.arange(lanes)
    tokens = jnp.arange(law.shape[-1], dtype=jnp.int32)

    def judge(index: jax.Array, carry: tuple[jax.Array, Walk]) -> tuple[jax.Array, Walk]:
        current, walk = carry
        node = index + 1
        token = tree.ids[:, node]
        turn = tree.valid[:, node] & (tree.parent[:, node] == current)
        in_one_place = (tokens == token[:, None]).astype(jnp.float32)
        proposed = in_one_place if tree.log_q is None else jnp.exp(tree.log_q[:, index])
        chance = _at(walk.residual, token) / _at(proposed, token)
        chance = jnp.where(_at(proposed, token) > 0, jnp.minimum(chance, 1.0), 0.0)
        accepted = turn & (uniform[:, index] < chance)
        rejected = turn & ~accepted
        residual = jnp.where(rejected[:, None], _left(walk.residual, proposed), walk.residual)
        residual = jnp.where(accepted[:, None], law[:, node], residual)
        count = walk.accepted + accepted.astype(jnp.int32)
        place = jnp.where(accepted, count, depth + 1)
        walk = Walk(
            accepted=count,
            path=walk.path.at[lane, place].set(node, mode="drop"),
            residual=residual,
            chance=walk.chance.at[:, index].set(jnp.where(turn, chance, -1.0)),
        )
        return jnp.where(accepted, node, current), walk

    start = Walk(
        accepted=jnp.zeros((lanes,), jnp.int32),
        path=jnp.zeros((lanes, depth + 1), jnp.int32),
        residual=law[:, 0],
        chance=jnp.full((lanes, nodes), -1.0, jnp.float32),
    )
    if nodes == 0:
        return start
    # Parents precede their children, so one pass in order of the nodes meets every node after its parent.
    _, walk = jax.lax.fori_loop(0, nodes, judge, (jnp.zeros((lanes,), jnp.int32), start))
    return walk


def _left(law: jax.Array, proposed: jax.Array) -> jax.Array:
    """(B, V) what a rejection leaves of `law`; where rounding leaves nothing, the law itself."""
    left = jnp.maximum(law - proposed, 0.0)
    mass = jnp.sum(left, axis=-1, keepdims=True)
    return jnp.where(mass > 0, left / jnp.where(mass > 0, mass, 1.0), law)


def _at(values: jax.Array, token: jax.Array) -> jax.Array:
    """(B,) entry `token` (B,) of `values` (B, V)."""
    return jnp.take_along_axis(values, token[:, None], axis=1)[:, 0]


def _uniform(seed: jax.Array, context: Context, nodes: int) -> jax.Array:
    """(B, N) float32 in [0, 1), new for every block: no two blocks of a request begin at one length."""

    def one_lane(seed: jax.Array, length: jax.Array) -> jax.Array:
        return jax.random.uniform(sampling.key_of(seed, sampling.ACCEPT, length), (nodes,), jnp.float32)

    return jax.vmap(one_lane)(seed, context.length)
