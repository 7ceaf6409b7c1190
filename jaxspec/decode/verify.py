"""Verify and accept: the target's one pass over drafted trees, as wide as pays, and what it makes of them.

B lanes, N draft nodes, D depth, V vocabulary.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxspec.decode.acceptance import Acceptance
from jaxspec.decode.sampling import SamplingFlags
from jaxspec.decode.tree import tree_of
from jaxspec.decode.types import Context, Draft, Drafter, Verdict
from jaxspec.models.cache import KVCache
from jaxspec.models.model_fn import Block, ModelFn, Params


@dataclasses.dataclass(frozen=True)
class Verifier:
    """The static part of a pass.

    Attributes:
      model_fn: the target.
      drafter: whose drafts it verifies.
      acceptance: decides.
      flags: which sampling transforms are compiled in.
      logprobs: whether log-probabilities are wanted.
    """

    model_fn: ModelFn
    drafter: Drafter
    acceptance: Acceptance
    flags: SamplingFlags
    logprobs: bool = False


class Verified(NamedTuple):
    """A draft's verdict with the cache entries of its accepted path.

    Attributes:
      verdict: see there.
      keys, values: per layer, (B, K, D + 1, H), in order of depth; undefined beyond the path.
      width: () int32 draft nodes the pass took.
      logprobs: (B, D + 1) float32 of `verdict.ids`, by the target's logits as they are, before any transform; None
        if they were not wanted.
    """

    verdict: Verdict
    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    width: jax.Array
    logprobs: jax.Array | None


def verify(
    verifier: Verifier, params: Params, cache: KVCache, lane: jax.Array, context: Context, draft: Draft
) -> Verified:
    """One pass over the drafts, in whichever of the drafter's widths promises the most tokens a second.

    Args:
      verifier: see there.
      params: of the target.
      cache: of all lanes.
      lane: of the rows; see `model_fn.Block`.
      context: of the rows, with sampling settings, bans and the seconds of every width.
      draft: of the rows.
    """
    widths = verifier.drafter.widths
    passes = [functools.partial(_verify, verifier, params, cache, lane, context, draft, width) for width in widths]
    if len(passes) == 1:
        return passes[0]()
    assert context.step_seconds is not None
    return jax.lax.switch(choose_width(draft, context, widths, context.step_seconds), passes)


def _verify(
    verifier: Verifier, params: Params, cache: KVCache, lane: jax.Array, context: Context, draft: Draft, nodes: int
) -> Verified:
    """The pass over the first `nodes` nodes of every row's draft."""
    drafter = verifier.drafter
    tree = tree_of(context.root, draft.first(nodes), drafter.depth)
    output = verifier.model_fn(params, Block(tree.ids, tree.depth, tree.ancestors, lane), cache)
    assert output.logits is not None and context.sampling is not None and context.banned is not None
    verdict = verifier.acceptance.accept(
        output.logits,
        tree,
        drafter.depth,
        context,
        context.sampling,
        verifier.flags,
        context.banned,
        drafter.top,
    )
    missing = ((0, 0), (0, drafter.nodes - nodes))
    verdict = verdict._replace(
        chosen=jnp.pad(verdict.chosen, missing, constant_values=-1),
        top=jnp.pad(verdict.top, (*missing, (0, 0)), constant_values=-1),
    )

    def along_path(entries: jax.Array) -> jax.Array:
        if drafter.is_chain:  # the path is the block's beginning
            return jnp.pad(entries, ((0, 0), (0, 0), (0, drafter.depth - nodes), (0, 0)))
        return jnp.take_along_axis(entries, verdict.path[:, None, :, None], axis=2)

    keys, values = tuple(map(along_path, output.keys)), tuple(map(along_path, output.values))
    logprobs = path_logprobs(output.logits, verdict) if verifier.logprobs else None
    return Verified(verdict, keys, values, jnp.int32(nodes), logprobs)


def path_logprobs(logits: jax.Array, verdict: Verdict) -> jax.Array:
    """(B, D + 1) float32 log-probability of each id of the path, from `logits` (B, N + 1, V) of all block nodes."""
    on_path = jnp.take_along_axis(logits, verdict.path[:, :, None], axis=1).astype(jnp.float32)
    ids = jnp.minimum(verdict.ids, logits.shape[-1] - 1)
    said = jnp.take_along_axis(on_path, ids[:, :, None], axis=2)[:, :, 0]
    return said - jax.nn.logsumexp(on_path, axis=2)


def choose_width(draft: Draft, context: Context, widths: tuple[int, ...], step_seconds: jax.Array) -> jax.Array:
    """Index () of the width with the most expected tokens a second, all live lanes together.

    Whether a node is valid is the drafter's to put into its gain, because what is drawn must not always show there.
    """
    assert draft.gain is not None, "a drafter with several widths must say what its nodes are worth"
    gain = jnp.sum(jnp.where(context.live[:, None], draft.gain, 0.0), axis=0)
    upto = jnp.concatenate([jnp.zeros((1,)), jnp.cumsum(gain)])
    tokens = jnp.sum(context.live.astype(jnp.float32)) + upto[jnp.asarray(widths)]
    return jnp.argmax(tokens / step_seconds)
