"""The parameter tree of a config, and its assembly from published tensors, one at a time.

Published tensors go by Hugging Face names and are (out, in); the tree's kernels are (in, out), queries, keys and
values in one, gate and up in one.

W residual width, F MLP width, Q query heads, K key heads, H head width, V vocabulary.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxspec.models.config import ModelConfig
from jaxspec.models.model_fn import Params

VALUE_HEAD = "v_head.summary"  # as Skywork-o1-Open-PRM names it
Path = tuple[str, ...]
Sharding = Callable[[Path, tuple[int, ...]], jax.sharding.Sharding]
Conversion = Callable[[Path, jax.Array], Any]  # what takes the place of a parameter


class TensorSource(Protocol):
    """Published tensors by Hugging Face name."""

    def names(self) -> Iterable[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str) -> np.ndarray: ...


class Entry(NamedTuple):
    """One parameter: published tensors stacked along their first axis, then transposed if a matrix.

    Attributes:
      path: in the tree.
      names: published tensors.
      shapes: expected of them.
    """

    path: Path
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter."""
        rows = sum(shape[0] for shape in self.shapes)
        return (*self.shapes[0][1:], rows)


def entries(config: ModelConfig) -> list[Entry]:
    """Every parameter of a config, in reading order."""
    width, mlp, head = config.width, config.mlp_width, config.head_width
    queries, keys = config.query_heads * head, config.key_heads * head
    found = [_single(("embedding", "kernel"), "model.embed_tokens.weight", config.vocabulary, width)]
    if config.outputs is not None:
        found.append(_single(("head", "kernel"), f"{VALUE_HEAD}.weight", config.outputs, width))
        found.append(_single(("head", "bias"), f"{VALUE_HEAD}.bias", config.outputs))
    elif not config.tied:
        found.append(_single(("head", "kernel"), "lm_head.weight", config.vocabulary, width))
    found.append(_single(("final_norm", "scale"), "model.norm.weight", width))
    names = ("attention_norm", "mlp_norm")
    published = ("input_layernorm", "post_attention_layernorm")
    if config.sandwich_norm:
        names = ("attention_norm", "post_attention_norm", "mlp_norm", "post_mlp_norm")
        published = (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )
    for index in range(config.layers):
        layer, theirs = f"layer_{index}", f"model.layers.{index}"
        found += [
            _single((layer, name, "scale"), f"{theirs}.{other}.weight", width)
            for name, other in zip(names, published, strict=True)
        ]
        projections = (
            (("attention", "qkv"), ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
             (queries, keys, keys), width, config.qkv_bias),
            (("attention", "output"), ("self_attn.o_proj",), (width,), queries, config.output_bias),
            (("mlp", "gate_up"), ("mlp.gate_proj", "mlp.up_proj"), (mlp, mlp), width, config.mlp_bias),
            (("mlp", "down"), ("mlp.down_proj",), (width,), mlp, config.mlp_bias),
        )  # fmt: skip
        for path, parts, outs, fan_in, biased in projections:
            weights = tuple(f"{theirs}.{part}.weight" for part in parts)
            found.append(Entry((layer, *path, "kernel"), weights, tuple((out, fan_in) for out in outs)))
            if biased:
                biases = tuple(f"{theirs}.{part}.bias" for part in parts)
                found.append(Entry((layer, *path, "bias"), biases, tuple((out,) for out in outs)))
        if config.query_key_norm:
            for name, other in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
                found.append(_single((layer, "attention", name, "scale"), f"{theirs}.self_attn.{other}.weight", head))
    return found


def _single(path: Path, name: str, *shape: int) -> Entry:
    return Entry(path, (name,), (shape,))


def parameter_shapes(config: ModelConfig, dtype: jax.typing.DTypeLike) -> Params:
    """The tree with a `ShapeDtypeStruct` for every parameter."""
    return _nest((entry.path, jax.ShapeDtypeStruct(entry.shape, dtype)) for entry in entries(config))


def assemble(
    source: TensorSource,
    config: ModelConfig,
    *,
    dtype: jax.typing.DTypeLike,
    sharding: Sharding | None = None,
    convert: Conversion | None = None,
) -> Params:
    """Reads every parameter and puts it where it belongs; the host holds one parameter at a time.

    Args:
      source: published tensors.
      config: what they should be.
      dtype: of the parameters.
      sharding: from path and shape to a sharding; None for the default device.
      convert: called with every parameter as soon as it is there, which is then let go; None leaves them as they are.

    Raises:
      ValueError: tensors are missing, left over or of unexpected shapes, reported at once; or not of numbers with a
        point.
    """
    wanted = entries(config)
    _check(source, wanted, config)

    def place(entry: Entry) -> Any:
        parts = [_read(source, name) for name in entry.names]
        stacked = parts[0] if len(parts) == 1 else np.concatenate(parts)
        # Always a copy: a device may keep the host's memory, which must not be a mapped file.
        array = np.array(stacked.T, jnp.dtype(dtype), order="C")
        if sharding is None:
            placed = jax.device_put(array)
        else:
            where = sharding(entry.path, entry.shape)
            placed = jax.make_array_from_callback(entry.shape, where, lambda index: array[index])
        return placed if convert is None else convert(entry.path, placed)

    return _nest((entry.path, place(entry)) for entry in wanted)


def _read(source: TensorSource, name: str) -> np.ndarray:
    tensor = source.read(name)
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise ValueError(f"tensor {name} has type {tensor.dtype}: quantised without a scale, which is not supported")
    return tensor


def _check(source: TensorSource, wanted: list[Entry], config: ModelConfig) -> None:
    expected = {name: shape for entry in wanted for name, shape in zip(entry.names, entry.shapes, strict=True)}
    present = set(source.names())
    if config.tied or config.outputs is not None:
        present.discard("lm_head.weight")  # a copy of the embedding that some files carry, or a head that is not used
    present = {name for name in present if not name.endswith("rotary_emb.inv_freq")}
    problems = [f"missing {name}" for name in expected if name not in present]
    problems += [f"unexpected {name}" for name in sorted(present - set(expected))]
    problems += [
        f"{name} has shape {source.shape(name)}, not {shape}"
        for name, shape in expected.items()
        if name in present and tuple(source.shape(name)) != shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(f"the weights do not fit the config ({config.family}): {shown}")


def _nest(leaves: Iterable[tuple[Path, Any]]) -> Params:
    tree: dict[str, Any] = {}
    for path, leaf in leaves:
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return tree


def partition(mesh: jax.sharding.Mesh, axis: str = "model") -> Sharding:
    """Tensor parallelism over one mesh axis: columns of the first projections, rows of the second.

    Args:
      mesh: of devices.
      axis: its axis that splits matrices; matrices it does not divide are replicated.
    """
    spec = jax.sharding.PartitionSpec
    size = mesh.shape[axis]

    def place(path: Path, shape: tuple[int, ...]) -> jax.sharding.Sharding:
        if path[-1] != "kernel":
            return jax.sharding.NamedSharding(mesh, spec())
        split = 0 if path[-2] in ("output", "down") else 1
        if shape[split] % size:
            return jax.sharding.NamedSharding(mesh, spec())
        return jax.sharding.NamedSharding(mesh, spec(axis, None) if split == 0 else spec(None, axis))

    return place
