"""The one training loop: an objective, batches by number, and a run that can stop anywhere and go on bit for bit.

A step is a pure function of (parameters, optimiser state, step number, seed): batches are asked for by number and
random keys are folded from it, so the number is the whole data cursor.
"""

import contextlib
import dataclasses
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxspec.models.model_fn import Params
from jaxspec.train.checkpoints import checkpoint_steps, restore_checkpoint, save_checkpoint
from jaxspec.train.metrics_log import MetricsLog, read_metrics
from jaxspec.train.optimizer import OptimizerSettings, build_optimizer, schedule

CHECKPOINTS, METRICS, SETTINGS = "checkpoints", "metrics.jsonl", "settings.json"
REPORTING = ("checkpoint_every", "keep", "probe_every", "progress_every")  # settings no weight depends on

Objective = Callable[[Params, Any, jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]]
"""`(params, batch, key) -> (loss (), metrics: name to ())`, pure and differentiable in `params`."""

Combine = Callable[[Params, Params], Params]
"""`(trained, frozen) -> params` of the objective; `LoRA.combine` for one."""

Monitor = Callable[[int, Mapping[str, float]], str | None]
"""`(step, metrics) -> ` why training should stop, or None. Called after every step."""

Probe = Callable[[Params], Mapping[str, float]]
"""`params -> metrics` that are worth a pass of their own now and then, such as accuracy on held-out data."""


class Batches(Protocol):
    """Training data by number. `batch(step)` is a pytree of NumPy arrays, the same at every call, and of the same
    shapes at every step."""

    def batch(self, step: int) -> Any: ...


class TrainState(NamedTuple):
    """Everything the next step depends on.

    Attributes:
      params: what is trained.
      optimizer: its state.
      step: () int32 steps done.
      key: (2,) uint32 data of the run's random key.
    """

    params: Params
    optimizer: optax.OptState
    step: jax.Array
    key: jax.Array


class TrainResult(NamedTuple):
    """Attributes:
    params: after the last step.
    step: steps done.
    stopped: why a monitor ended the run early, or None.
    """

    params: Params
    step: int
    stopped: str | None


class DivergedError(ArithmeticError):
    """The loss or a gradient is no longer a finite number."""


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How long and how carefully to train.

    Attributes:
      steps: updates in all.
      optimizer: see there.
      accumulate: parts a batch is cut into along its first axis; gradients are averaged before the update.
      checkpoint_every: steps between checkpoints; the last step always has one.
      keep: checkpoints kept.
      probe_every: steps between probes, also after the last step.
      progress_every: steps between lines on stderr; 0 for none.
      seed: of the run's random keys.
    """

    steps: int
    optimizer: OptimizerSettings = OptimizerSettings()
    accumulate: int = 1
    checkpoint_every: int = 1000
    keep: int = 2
    probe_every: int = 500
    progress_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "checkpoint_every", "keep", "probe_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1")
        if self.progress_every < 0:
            raise ValueError(f"progress_every={self.progress_every} is negative; use 0 for no progress")


def train(
    params: Params,
    objective: Objective,
    batches: Batches,
    settings: TrainSettings,
    folder: str | Path,
    *,
    description: Mapping[str, Any] | None = None,
    frozen: Params = None,
    combine: Combine | None = None,
    monitors: Sequence[Monitor] = (),
    probe: Probe | None = None,
    resume: bool = False,
) -> TrainResult:
    """Trains until `settings.steps`, a monitor's objection or an interrupt.

    Args:
      params: to start from; copied, never donated.
      objective: the loss.
      batches: the data.
      settings: of the run; a resumed run must have the same, but for how often it reports and saves.
      folder: gets checkpoints, `metrics.jsonl` and `settings.json`.
      description: what else decides the result, as JSON can hold it: data, loss, where the weights began; see
        `describe_config`. A resumed run must have the same.
      frozen: further parameters that the objective needs and nobody trains.
      combine: makes the objective's parameters of `params` and `frozen`; without it they are `params` alone.
      monitors: asked after every step.
      probe: asked every `settings.probe_every` steps, with the combined parameters; its metrics join the step's.
      resume: go on from the folder's latest checkpoint, or start if it has none.

    Returns:
      The trained parameters. When a monitor ended the run, no checkpoint is written of what it objected to.

    Raises:
      FileExistsError: the folder holds a run and `resume` is not set.
      ValueError: the run in the folder is another one, or a batch cannot be cut into `accumulate` parts.
      DivergedError: the loss or the gradient is not finite; checkpoints are as before.
      KeyboardInterrupt: after an interrupt (Ctrl-C), once a checkpoint is saved.
    """
    folder = Path(folder)
    saved = folder / CHECKPOINTS
    check_run(folder, settings, description, resume=resume)
    done = max(checkpoint_steps(saved), default=0)
    batch = _batch(batches, done, settings) if done < settings.steps else None  # data that fail claim no folder
    state = _begin(params, settings)
    _claim(folder, settings, description)
    if done:
        state = TrainState(*restore_checkpoint(saved, done, tuple(state)))
    update = _build_update(objective, settings, combine)
    log = MetricsLog(folder / METRICS, done, settings.steps, settings.progress_every)
    if done:
        log.say(f"resuming at step {done} of {settings.steps}")
    try:
        with _interrupts() as interrupted:
            while done < settings.steps:
                state, reported = update(state, frozen, batch)
                done += 1
                if done < settings.steps:
                    batch = _batch(batches, done, settings)  # on the host, while the device computes
                metrics = {name: float(value) for name, value in jax.device_get(reported).items()}
                _check_finite(metrics, done, saved)
                if probe is not None and (done % settings.probe_every == 0 or done == settings.steps):
                    current = state.params if combine is None else combine(state.params, frozen)
                    metrics |= probe(current)
                log.write(done, metrics)
                objection = next((said for said in (monitor(done, metrics) for monitor in monitors) if said), None)
                if objection is not None:
                    log.say(f"stopped at step {done}: {objection}")
                    return TrainResult(state.params, done, objection)
                if done % settings.checkpoint_every == 0 or done == settings.steps or interrupted.is_set():
                    path = save_checkpoint(saved, done, tuple(state), keep=settings.keep)
                    if interrupted.is_set():
                        log.say(f"interrupted at step {done}; saved {path}, resume to go on")
                        raise KeyboardInterrupt
        return TrainResult(state.params, done, None)
    finally:
        log.close()


def describe_config(config: Any, without: Sequence[str]) -> dict[str, Any]:
    """The settings of a config by name, but for those in `without`: the part of a run's description that it gives."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in without}


def check_run(
    folder: str | Path, settings: TrainSettings, description: Mapping[str, Any] | None = None, *, resume: bool
) -> None:
    """Checks that a folder holds no run, or the one described; `train` does so, too, but perhaps after other work.

    Args:
      folder, settings, description, resume: as of `train`.

    Raises:
      FileExistsError: the folder holds a run and `resume` is not set.
      ValueError: the run in the folder is another one.
    """
    path = Path(folder) / SETTINGS
    if not path.exists():
        return
    if not resume:
        raise FileExistsError(f"{folder} holds a training run already; resume it, or choose another folder")
    here, there = _flat(json.loads(json.dumps(_identity(settings, description)))), _read_identity(path)
    changed = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if changed:
        shown = ", ".join(f"{name}={here.get(name)!r} instead of {there.get(name)!r}" for name in changed)
        raise ValueError(f"the run in {folder} had other settings ({shown}); use them, or choose another folder")


def finished_steps(folder: str | Path) -> list[tuple[int, dict[str, float]]]:
    """(step, metrics) of every step that a resumed run does not repeat: up to the folder's latest checkpoint."""
    steps, log = checkpoint_steps(Path(folder) / CHECKPOINTS), Path(folder) / METRICS
    if not steps or not log.exists():
        return []
    lines = read_metrics(log, steps[-1])
    return [(int(line["step"]), {name: value for name, value in line.items() if name != "step"}) for line in lines]


def _begin(params: Params, settings: TrainSettings) -> TrainState:
    """The state before the first step, in buffers of its own."""
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    optimizer = build_optimizer(settings.optimizer, settings.steps).init(params)
    key = jax.random.key_data(jax.random.key(settings.seed))
    return TrainState(params, optimizer, jnp.int32(0), key)


def _build_update(objective: Objective, settings: TrainSettings, combine: Combine | None):
    """The compiled step: `(state, frozen, batch) -> (state, metrics)`; the state is donated."""
    transform, rate = build_optimizer(settings.optimizer, settings.steps), schedule(settings.optimizer, settings.steps)

    def loss(params: Params, frozen: Params, batch: Any, key: jax.Array):
        value, metrics = objective(params if combine is None else combine(params, frozen), batch, key)
        return value, {"loss": value, **metrics}

    def gradient(params: Params, frozen: Params, batch: Any, key: jax.Array):
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, frozen, batch, key)
        return grads, metrics

    def update(state: TrainState, frozen: Params, batch: Any):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        if settings.accumulate == 1:
            grads, metrics = gradient(state.params, frozen, batch, key)
        else:
            parts = jax.tree.map(lambda leaf: leaf.reshape(settings.accumulate, -1, *leaf.shape[1:]), batch)
            keys = jax.random.split(key, settings.accumulate)
            one = jax.eval_shape(gradient, state.params, frozen, jax.tree.map(lambda leaf: leaf[0], parts), keys[0])
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), one)

            def add(total, part):
                new = gradient(state.params, frozen, *part)
                return jax.tree.map(jnp.add, total, new), None

            total, _ = jax.lax.scan(add, zeros, (parts, keys))
            grads, metrics = jax.tree.map(lambda leaf: leaf / settings.accumulate, total)
        metrics = {**metrics, "gradient_norm": optax.tree.norm(grads), "learning_rate": rate(state.step)}
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, optimizer = transform.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, optimizer, state.step + 1, state.key), metrics

    return jax.jit(update, donate_argnames="state")


def _batch(batches: Batches, step: int, settings: TrainSettings) -> Any:
    batch = batches.batch(step)
    for leaf in jax.tree.leaves(batch):
        if settings.accumulate > 1 and (leaf.ndim == 0 or leaf.shape[0] % settings.accumulate):
            raise ValueError(
                f"accumulate={settings.accumulate} does not divide a batch array of shape {leaf.shape}; "
                "choose a divisor of its first axis"
            )
    return batch


def _check_finite(metrics: Mapping[str, float], step: int, saved: Path) -> None:
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(metrics[name]):
            steps = checkpoint_steps(saved)
            kept = f"the checkpoint of step {steps[-1]} is as it was" if steps else "no checkpoint was written"
            raise DivergedError(
                f"training diverged: {name} is {metrics[name]} at step {step}; {kept}; lower the learning rate, "
                "lengthen the warm-up or clip harder, in another folder"
            )


def _claim(folder: Path, settings: TrainSettings, description: Mapping[str, Any] | None) -> None:
    """Makes the folder this run's, unless it is."""
    path = folder / SETTINGS
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_identity(settings, description), indent=2) + "\n")


def _identity(settings: TrainSettings, description: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that a resumed run must have as it was."""
    return {"training": describe_config(settings, REPORTING), **(description or {})}


def _read_identity(path: Path) -> dict[str, Any]:
    """What `_claim` wrote, by dotted names."""
    try:
        written = json.loads(path.read_text())
        if not isinstance(written, dict) or "training" not in written:
            raise ValueError("it lacks the data, the loss and the weights")
    except ValueError as error:
        raise ValueError(
            f"{path} does not tell what the run in its folder was trained on, so it cannot be resumed ({error}); "
            "choose another folder"
        ) from None
    return _flat(written)


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return flat


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second one interrupts as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach the main thread alone
        return
    before = signal.getsignal(signal.SIGINT)

    def remember(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, remember)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
