"""How long a draft pays.

B lanes, D depth, R branches.
"""

import jax
import jax.numpy as jnp

from jaxspec.decode.acceptance import Drawing
from jaxspec.decode.types import Context
from jaxspec.drafters.draft_model.levels import Drafting


def longer_pays(
    widths: tuple[int, ...], drawing: Drawing, ahead: jax.Array, context: Context, drafting: Drafting
) -> jax.Array:
    """() bool whether a longer draft than now promises more tokens a second.

    Args:
      widths: draft nodes a block may have.
      drawing: whether the draft model draws.
      ahead: (D, R) float32 `confidence.rate_ahead`.
      context: lanes, and what a step takes at every width.
      drafting: the draft so far.
    """
    assert context.step_seconds is not None
    live = context.live.astype(jnp.float32)
    depth = jnp.arange(ahead.shape[0], dtype=jnp.int32)
    # Own draws are counted on from the start: what they turned out to be must not decide whether they stay.
    own = drawing == Drawing.OWN
    step = jnp.int32(0) if own else drafting.step
    going = live if own else drafting.going.astype(jnp.float32)
    last = drafting.gain[:, jnp.maximum(step - 1, 0), 0]
    reach = jnp.sum(going * jnp.where(step == 0, 1.0, last))
    known = jnp.sum(live[:, None, None] * drafting.gain, axis=0)  # (D, R)
    hoped = reach * ahead[jnp.maximum(depth - step, 0)]
    worth = jnp.where((depth < step)[:, None], known, hoped).reshape(-1)
    nodes = jnp.asarray(widths, jnp.int32)
    tokens = jnp.sum(live) + jnp.concatenate([jnp.zeros((1,)), jnp.cumsum(worth)])[nodes]
    return nodes[jnp.argmax(tokens / context.step_seconds)] > drafting.step * ahead.shape[1]
