"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): a kernel W becomes W + (alpha / r) A B.

Adapters are a tree of their own, the only one that is trained; `LoRA.combine` makes plain parameters of both, inside
the training step and, once, when training is over.

Shapes: a kernel is (in, out), A (in, r), B (r, out).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxspec.models.model_fn import Params

KERNELS = ("qkv", "output", "gate_up", "down")


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Which kernels get adapters, and of what size.

    Attributes:
      rank: r.
      alpha: the product is scaled by alpha / r.
      kernels: names of the projections that get adapters, of `qkv`, `output`, `gate_up`, `down`.
    """

    rank: int = 16
    alpha: float = 32.0
    kernels: tuple[str, ...] = KERNELS

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank} is below 1")
        if not self.alpha > 0:
            raise ValueError(f"alpha={self.alpha} must be above 0: it scales what the adapters add")
        unknown = sorted(set(self.kernels) - set(KERNELS))
        if unknown or not self.kernels:
            raise ValueError(f"kernels={self.kernels}; choose one or several of {', '.join(KERNELS)}")

    def init(self, params: Params, key: jax.Array) -> Params:
        """Fresh adapters in float32: A normal with variance 1 / in, B zero, so the model is unchanged at first."""
        adapters: dict[str, Any] = {}
        for index, (path, kernel) in enumerate(_kernels(params, self.kernels)):
            drawn = jax.random.normal(jax.random.fold_in(key, index), (kernel.shape[0], self.rank), jnp.float32)
            adapters["/".join(path)] = {
                "a": drawn * kernel.shape[0] ** -0.5,
                "b": jnp.zeros((self.rank, kernel.shape[1]), jnp.float32),
            }
        return adapters

    def combine(self, adapters: Params, params: Params) -> Params:
        """Plain parameters: `params` with every adapter added to its kernel, in the kernel's type."""
        scale = self.alpha / self.rank

        def add(path: tuple[Any, ...], kernel: jax.Array) -> jax.Array:
            adapter = adapters.get("/".join(part.key for part in path))
            if adapter is None:
                return kernel
            change = jnp.matmul(adapter["a"], adapter["b"], precision=jax.lax.Precision.HIGHEST)
            return (kernel.astype(jnp.float32) + scale * change).astype(kernel.dtype)

        return jax.tree_util.tree_map_with_path(add, params)


def _kernels(params: Params, names: tuple[str, ...]) -> list[tuple[tuple[str, ...], jax.Array]]:
    """Path and kernel of every projection of one of these names, in the order of the tree."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        parts = tuple(part.key for part in path)
        if parts[-1] == "kernel" and parts[-2] in names:
            found.append((parts, leaf))
    return found
