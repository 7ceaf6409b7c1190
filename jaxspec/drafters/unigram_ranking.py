"""The model unigram of N-Grammys (arXiv 2411.03786, section 4.1): tokens by how close their output embedding is to
the mean one, read from the weights alone.

V vocabulary, W residual width.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.models.language_model import LanguageModel

VARIANTS = ("text", "appendix")


def unigram_ranking(lm: LanguageModel, variant: str = "text") -> np.ndarray:
    """(V,) int32 ids, the most ordinary first; of equals the lower id.

    Args:
      lm: a model whose parameters hold an `embedding` and, unless tied, a `head`, each with a `kernel` (W, V).
      variant: `text` for the distance in the paper's text, `appendix` for the inner product in the paper's listing,
        which ranks quite otherwise.

    Raises:
      ValueError: an unknown variant, or a model without such parameters.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} is not one of {', '.join(VARIANTS)}")
    try:
        embedding = lm.params["embedding"]["kernel"]
        head = embedding if lm.config.tied else lm.params["head"]["kernel"]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the parameters of {lm.name} hold no embedding and head kernels, which the unigram is read from"
        ) from error
    scores = unigram_scores(embedding, head, variant)
    return np.argsort(np.asarray(scores), kind="stable").astype(np.int32)


@functools.partial(jax.jit, static_argnames=("variant",))
def unigram_scores(embedding: jax.Array, head: jax.Array, variant: str = "text") -> jax.Array:
    """(V,) float32, the smallest for the most ordinary token.

    With input embeddings v_y, output embeddings u_x and their mean m, the paper's inner product <a, b> is the sum over
    all tokens y of (a . v_y) (b . v_y). The text scores x by <u_x - m, u_x - m>, the appendix by <m, u_x>; the sums
    collapse into one (W, W) matrix.

    Args:
      embedding: (W, V) columns v_y.
      head: (W, V) columns u_x.
      variant: see `unigram_ranking`.
    """
    inputs, outputs = embedding.astype(jnp.float32), head.astype(jnp.float32)
    with jax.default_matmul_precision("highest"):
        metric = inputs @ inputs.T
        mean = jnp.mean(outputs, axis=1, keepdims=True)
        if variant == "appendix":
            return (mean.T @ metric @ outputs)[0]
        away = outputs - mean
        return jnp.sum(away * (metric @ away), axis=0)
