"""Checkpoints of a run in progress: everything the next step depends on, written by Orbax.

A checkpoint appears under its own name only when it is complete, so an interrupted write leaves the one before it as
the latest.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxspec.models.model_fn import Params

PREFIX = "step_"


def save_checkpoint(folder: Path, step: int, state: Any, *, keep: int) -> Path:
    """Writes the state after `step` steps, then removes all but the latest `keep` checkpoints.

    Args:
      folder: of the run's checkpoints.
      step: that the state goes on from.
      state: a pytree of arrays; random keys as `jax.random.key_data`.
      keep: at least 1.

    Raises:
      FileExistsError: there is a checkpoint of this step; nothing is overwritten.
    """
    path = folder.resolve() / f"{PREFIX}{step:08d}"
    if path.exists():
        raise FileExistsError(f"{path} exists already; resume the run, or choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    ocp.save(str(path), state)
    for old in checkpoint_steps(folder)[:-keep]:
        shutil.rmtree(folder.resolve() / f"{PREFIX}{old:08d}")
    return path


def restore_checkpoint(folder: Path, step: int, like: Any) -> Any:
    """The state after `step` steps, bit for bit.

    Args:
      folder: of the run's checkpoints.
      step: one of `checkpoint_steps`.
      like: a state of the same shapes and types; left as it is.

    Raises:
      ValueError: the checkpoint is damaged, or another run's.
    """
    path = folder.resolve() / f"{PREFIX}{step:08d}"
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=getattr(leaf, "sharding", here)), like
    )
    try:
        return ocp.load(str(path), abstract)
    except Exception as error:  # of several libraries, over many lines
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} does not hold a state of this run: {reason}") from None


def checkpoint_params(path: Path, like: Params) -> Params:
    """The parameters alone of any run's checkpoint, to start another run from.

    Args:
      path: of one checkpoint, `.../checkpoints/step_...`.
      like: parameters of the same names, shapes and types.

    Raises:
      FileNotFoundError: there is none at `path`.
      ValueError: it holds other parameters, such as the adapters of a LoRA run.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no checkpoint at {path}; give one of a run, as .../checkpoints/step_...")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    try:
        held, *others = ocp.metadata(str(path.resolve())).metadata
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), held)
        left = jax.tree.map(lambda _: ocp.PLACEHOLDER, others)
        params = ocp.load(str(path.resolve()), [wanted, *left])[0]
    except Exception as error:  # of several libraries, over many lines
        raise ValueError(f"{path} holds no checkpoint of a run: {repr(error).splitlines()[0]}") from None
    found, needed = _shapes(params), _shapes(like)
    if found != needed:
        name = min(name for name in found.keys() | needed.keys() if found.get(name) != needed.get(name))
        raise ValueError(
            f"{path} holds {found.get(name, 'nothing')} as {name}, where {needed.get(name, 'nothing')} is needed; "
            "start from a checkpoint of the same model, of all its weights"
        )
    return params


def _shapes(params: Params) -> dict[str, str]:
    """Type and shape of every parameter."""
    return {
        jax.tree_util.keystr(where): f"{leaf.dtype}{list(leaf.shape)}"
        for where, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints of a run, in order."""
    names = [path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*")]
    return sorted(int(name) for name in names if name.isdigit())
