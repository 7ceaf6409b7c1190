"""Our own checkpoints: an Orbax tree of parameters with the config beside it."""

import dataclasses
import json
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from jaxspec.models.config import ModelConfig, RopeScaling
from jaxspec.models.model_fn import Params
from jaxspec.weights.parameters import Sharding, entries, parameter_shapes

CONFIG_FILE = "jaxspec.json"
PARAMS_FOLDER = "params"


def save_params(folder: str | Path, config: ModelConfig, params: Params) -> None:
    """Writes a model into a new folder.

    Raises:
      FileExistsError: the folder already holds a checkpoint.
    """
    folder = Path(folder).resolve()
    if (folder / CONFIG_FILE).exists():
        raise FileExistsError(f"{folder} already holds a checkpoint; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    ocp.save(str(folder / PARAMS_FOLDER), params)
    (folder / CONFIG_FILE).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def restore_params(
    folder: str | Path, *, dtype: jax.typing.DTypeLike, sharding: Sharding | None = None
) -> tuple[ModelConfig, Params]:
    """Reads what `save_params` wrote, each parameter straight onto its sharding.

    Raises:
      FileNotFoundError: the folder holds no checkpoint.
      ValueError: its config is malformed or has fields this version does not know, or the parameters are damaged or
        another model's.
    """
    folder = Path(folder).resolve()
    if not (folder / CONFIG_FILE).exists():
        raise FileNotFoundError(f"{folder} holds no checkpoint: {CONFIG_FILE} is missing")
    try:
        config = config_from_dict(json.loads((folder / CONFIG_FILE).read_text()))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} does not describe a model: {error}") from None
    abstract = parameter_shapes(config, dtype)
    for entry in entries(config):
        node = abstract
        for part in entry.path[:-1]:
            node = node[part]
        where = (
            jax.sharding.SingleDeviceSharding(jax.devices()[0])
            if sharding is None
            else sharding(entry.path, entry.shape)
        )
        node[entry.path[-1]] = jax.ShapeDtypeStruct(entry.shape, dtype, sharding=where)
    try:
        return config, ocp.load(str(folder / PARAMS_FOLDER), abstract)
    except Exception as error:  # of several libraries, over many lines
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{folder / PARAMS_FOLDER} does not hold the parameters of {CONFIG_FILE}: {reason}") from None


def config_from_dict(fields: dict) -> ModelConfig:
    """The config that `dataclasses.asdict` made `fields` of."""
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(ModelConfig)})
    if unknown:
        raise ValueError(f"fields this version does not know: {', '.join(unknown)}")
    scaling = fields.get("rope_scaling")
    return ModelConfig(
        **{
            **fields,
            "sliding": tuple(fields.get("sliding", ())),
            "rope_scaling": None if scaling is None else RopeScaling(**scaling),
        }
    )
