"""Two toy models that write steps together, and a score of their steps."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from toy_model import toy_model

from jaxspec import steps
from jaxspec.conformal import fixed

NEW, CAP = 40, 6
CUT = steps.Segmentation.custom(["a", "cd"], CAP)
DRAFT, TARGET = toy_model(1), toy_model(2)
PROMPTS = [np.random.default_rng(seed).integers(0, 7, 3 + seed % 9).tolist() for seed in range(10)]


def weights_of_tokens(params, context) -> jnp.ndarray:
    """A score that depends on every token of the step and on where it starts."""
    place = jnp.arange(context.tokens.shape[1], dtype=jnp.int32)
    inside = (place >= context.start[:, None]) & (place < context.end[:, None])
    mixed = (context.tokens * 37 + place * 11) % 101
    return (jnp.sum(jnp.where(inside, mixed, 0), axis=1) % 97).astype(jnp.float32) / 97.0


SCORER = steps.TextScore(weights_of_tokens)

POLICIES = {
    "replace": lambda threshold: steps.rsd(threshold, SCORER),
    "continue": lambda threshold: dataclasses.replace(
        steps.a1(samples=1, turns=64, chunk=CAP, calibrator=fixed(threshold)), scorer=SCORER
    ),
    "compare": lambda threshold: steps.oracle(threshold, SCORER),
}
