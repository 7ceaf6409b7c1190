"""The training loop on a problem with a known answer: stops, resumes, refuses, and counts."""

import dataclasses
import json
import os
import signal
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxspec.train import trainer
from jaxspec.train.checkpoints import checkpoint_steps, save_checkpoint
from jaxspec.train.metrics_log import read_metrics
from jaxspec.train.optimizer import Algorithm, OptimizerSettings, build_optimizer, schedule
from jaxspec.train.trainer import DivergedError, TrainSettings, check_run, finished_steps, train

OPTIMIZER = OptimizerSettings(learning_rate=0.05, warmup=2)
WANTED = np.asarray([[1.0, -2.0], [0.5, 3.0]], np.float32)


class Points:
    """Inputs of a linear regression, a pure function of the step."""

    def __init__(self, interrupt_at: int | None = None, poisoned: int | None = None) -> None:
        self.interrupt_at, self.poisoned = interrupt_at, poisoned

    def batch(self, step: int) -> dict[str, np.ndarray]:
        if step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        x = np.random.default_rng(step).normal(size=(8, 2)).astype(np.float32)
        if step == self.poisoned:
            x[0, 0] = np.nan
        return {"x": x, "y": x @ WANTED}


def objective(params, batch, key):
    noise = 0.01 * jax.random.normal(key, batch["y"].shape)
    error = batch["x"] @ params["w"] + params["b"] - batch["y"] - noise
    return jnp.mean(error * error), {"largest": jnp.max(jnp.abs(error))}


def start() -> dict[str, jax.Array]:
    return {"w": jnp.zeros((2, 2)), "b": jnp.zeros((2,))}


def settings(steps: int = 10, **changes) -> TrainSettings:
    defaults = {"optimizer": OPTIMIZER, "checkpoint_every": 5, "probe_every": 5, "progress_every": 0}
    return TrainSettings(steps, **(defaults | changes))


def same(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def test_it_finds_the_answer(tmp_path) -> None:
    params = start()
    result = train(params, objective, Points(), settings(300, checkpoint_every=300), tmp_path)
    np.testing.assert_allclose(result.params["w"], WANTED, atol=0.05)
    assert result.step == 300 and result.stopped is None
    assert not np.any(np.asarray(params["w"]))  # neither changed nor donated
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert len(losses) == 300 and losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_a_step_is_optax(algorithm, tmp_path) -> None:
    chosen = dataclasses.replace(OPTIMIZER, algorithm=algorithm)
    result = train(start(), objective, Points(), settings(2, optimizer=chosen), tmp_path)
    transform, params = build_optimizer(chosen, 2), start()
    state = transform.init(params)
    for step in range(2):
        key = jax.random.fold_in(jax.random.key(0), step)
        grads = jax.grad(lambda p, step=step, key=key: objective(p, Points().batch(step), key)[0])(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = transform.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    for one, other in zip(jax.tree.leaves(result.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_resuming_is_exact_to_the_bit(tmp_path) -> None:
    straight = train(start(), objective, Points(), settings(), tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(start(), objective, Points(interrupt_at=5), settings(), tmp_path / "cut")
    stopped_at = checkpoint_steps(tmp_path / "cut" / "checkpoints")[-1]
    assert stopped_at == 5
    resumed = train(start(), objective, Points(), settings(), tmp_path / "cut", resume=True)
    assert resumed.step == 10 and same(straight.params, resumed.params)
    assert read_metrics(tmp_path / "straight" / "metrics.jsonl") == read_metrics(tmp_path / "cut" / "metrics.jsonl")


def test_lines_after_the_last_checkpoint_are_written_once(tmp_path) -> None:
    with pytest.raises(DivergedError):
        train(start(), objective, Points(poisoned=7), settings(), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # a killed run
    train(start(), objective, Points(), settings(), tmp_path, resume=True)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 11))


def test_resuming_a_finished_run_changes_nothing(tmp_path) -> None:
    first = train(start(), objective, Points(), settings(), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    again = train(start(), objective, Points(), settings(), tmp_path, resume=True)
    assert same(first.params, again.params) and (tmp_path / "metrics.jsonl").read_text() == before


def test_an_interrupt_saves_and_says_so(tmp_path, capsys) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(start(), objective, Points(interrupt_at=3), settings(), tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert checkpoint_steps(tmp_path / "checkpoints") == [3]
    assert "interrupted at step 3; saved" in capsys.readouterr().err


def test_divergence_is_named_and_nothing_is_overwritten(tmp_path) -> None:
    with pytest.raises(DivergedError, match=r"loss is nan at step 8; the checkpoint of step 5 is as it was"):
        train(start(), objective, Points(poisoned=7), settings(), tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints") == [5]
    with pytest.raises(DivergedError, match="no checkpoint was written"):
        train(start(), objective, Points(poisoned=2), settings(), tmp_path / "other")


def test_a_monitor_stops_the_run(tmp_path, capsys) -> None:
    seen = []

    def monitor(step, metrics):
        seen.append((step, sorted(metrics)))
        return "it repeats itself" if step == 7 else None

    result = train(start(), objective, Points(), settings(), tmp_path, monitors=[monitor])
    assert (result.step, result.stopped) == (7, "it repeats itself")
    assert [step for step, _ in seen] == list(range(1, 8))
    assert {"gradient_norm", "largest", "learning_rate", "loss"} <= set(seen[0][1])
    assert checkpoint_steps(tmp_path / "checkpoints") == [5]
    assert "stopped at step 7: it repeats itself" in capsys.readouterr().err


def test_probes_join_the_metrics(tmp_path) -> None:
    train(
        start(),
        objective,
        Points(),
        settings(7),
        tmp_path,
        probe=lambda params: {"norm": float(jnp.linalg.norm(params["w"]))},
    )
    probed = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "norm" in line]
    assert probed == [5, 7]


def test_old_checkpoints_go(tmp_path) -> None:
    train(start(), objective, Points(), settings(9, checkpoint_every=2, keep=3), tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints") == [6, 8, 9]


def test_accumulated_gradients_are_means_of_the_parts(tmp_path) -> None:
    def quiet(params, batch, key):
        return objective(params, batch, jax.random.key(0))[0], {"rows": jnp.float32(batch["x"].shape[0])}

    class Even(Points):
        def batch(self, step):  # parts of equal content, so that noise by place does not matter
            return jax.tree.map(lambda leaf: np.tile(leaf, (2, 1)), super().batch(step))

    whole = train(start(), quiet, Points(), settings(4), tmp_path / "whole")
    parts = train(start(), quiet, Even(), settings(4, accumulate=2), tmp_path / "parts")
    for one, other in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert read_metrics(tmp_path / "parts" / "metrics.jsonl")[0]["rows"] == 8


def test_frozen_parameters_reach_the_objective(tmp_path) -> None:
    def combine(trained, frozen):
        return {"w": trained["w"], "b": frozen["b"]}

    frozen = {"b": jnp.ones((2,))}
    result = train({"w": jnp.zeros((2, 2))}, objective, Points(), settings(1), tmp_path, frozen=frozen, combine=combine)
    assert set(result.params) == {"w"}
    batch, key = Points().batch(0), jax.random.fold_in(jax.random.key(0), 0)
    expected = objective({"w": jnp.zeros((2, 2)), **frozen}, batch, key)[0]
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_folders_of_other_runs_are_refused(tmp_path) -> None:
    train(start(), objective, Points(), settings(), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(FileExistsError, match="holds a training run already"):
        train(start(), objective, Points(), settings(), tmp_path)
    with pytest.raises(ValueError, match="steps=12 instead of 10"):
        train(start(), objective, Points(), settings(12), tmp_path, resume=True)
    with pytest.raises(ValueError, match="does not hold a state of this run"):
        train({"other": jnp.zeros((3,))}, objective, Points(), settings(), tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_what_else_decides_a_run_must_not_change(tmp_path) -> None:
    before = {"base": "abc", "loss": {"weight": 1.0, "sizes": (1, 2)}, "lora": None}
    train(start(), objective, Points(), settings(2), tmp_path, description=before)
    train(start(), objective, Points(), settings(2), tmp_path, description=before, resume=True)
    changes = {
        "base='xyz' instead of 'abc'": {"base": "xyz"},
        "loss.weight=2.0 instead of 1.0": {"loss": {"weight": 2.0, "sizes": (1, 2)}},
        r"loss.sizes=\[1\] instead of \[1, 2\]": {"loss": {"weight": 1.0, "sizes": (1,)}},
        "lora.rank=4 instead of None": {"lora": {"rank": 4}},
        "rows=8 instead of None": {"rows": 8},
    }
    for message, change in changes.items():
        with pytest.raises(ValueError, match=message):
            train(start(), objective, Points(), settings(2), tmp_path, description=before | change, resume=True)
    with pytest.raises(ValueError, match="training.optimizer.clip=9.0 instead of 1.0"):
        other = settings(2, optimizer=dataclasses.replace(OPTIMIZER, clip=9.0))
        train(start(), objective, Points(), other, tmp_path, description=before, resume=True)
    with pytest.raises(FileExistsError, match="resume it"):
        check_run(tmp_path, settings(2), before, resume=False)
    check_run(tmp_path, settings(2, probe_every=1, keep=9), before, resume=True)
    check_run(tmp_path / "none", settings(2), before, resume=False)


@pytest.mark.parametrize("text", [json.dumps({"steps": 10, "seed": 0}), '{"trai', "[1]"])
def test_a_run_that_does_not_tell_its_settings_is_not_resumed(tmp_path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match="does not tell what the run in its folder was trained on.*another folder"):
        train(start(), objective, Points(), settings(), tmp_path, resume=True)


def test_a_killed_run_leaves_the_metrics_of_its_checkpoints(tmp_path, monkeypatch) -> None:
    written = []

    def save(folder, step, state, *, keep):
        written.append([line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")])
        return save_checkpoint(folder, step, state, keep=keep)

    monkeypatch.setattr(trainer, "save_checkpoint", save)
    train(start(), objective, Points(), settings(4, checkpoint_every=2), tmp_path)
    assert written == [[1, 2], [1, 2, 3, 4]]


def test_finished_steps_reach_as_far_as_the_checkpoint(tmp_path) -> None:
    assert finished_steps(tmp_path) == []
    with pytest.raises(DivergedError):
        train(start(), objective, Points(poisoned=7), settings(), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    finished = finished_steps(tmp_path)
    assert [step for step, _ in finished] == [1, 2, 3, 4, 5]
    assert {"loss", "gradient_norm", "largest", "learning_rate"} == set(finished[0][1])


def test_settings_are_checked(tmp_path) -> None:
    for name, value in {"steps": 0, "accumulate": 0, "keep": 0, "checkpoint_every": 0, "progress_every": -1}.items():
        with pytest.raises(ValueError, match=f"{name}={value}"):
            TrainSettings(**({"steps": 5} | {name: value}))
    for name, value in {"learning_rate": 0.0, "clip": -1.0, "warmup": -1, "beta1": 1.5}.items():
        with pytest.raises(ValueError, match=f"{name}={value}"):
            OptimizerSettings(**{name: value})
    with pytest.raises(ValueError, match="algorithm='adagrad' is unknown; choose one of adamw, muon"):
        OptimizerSettings(algorithm="adagrad")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="accumulate=3 does not divide a batch array of shape \\(8, 2\\)"):
        train(start(), objective, Points(), settings(accumulate=3), tmp_path)


def test_the_rate_rises_and_falls() -> None:
    rate = schedule(OptimizerSettings(learning_rate=1.0, warmup=10, final_fraction=0.1), 100)
    values = np.asarray([float(rate(step)) for step in range(100)])
    assert 0 < values[0] < 0.1 and np.argmax(values) == 10 and values[10] == 1.0
    assert np.all(np.diff(values[:11]) > 0) and np.all(np.diff(values[10:]) < 0)
    assert values[-1] == pytest.approx(0.1, abs=0.01)


def test_vectors_do_not_decay() -> None:
    transform = build_optimizer(OptimizerSettings(learning_rate=0.1, warmup=0, weight_decay=0.5), 10)
    params = {"matrix": jnp.ones((2, 2)), "vector": jnp.ones((2,))}
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
    assert np.all(np.asarray(updates["matrix"]) < 0) and not np.any(np.asarray(updates["vector"]))


def test_muon_turns_a_matrix_and_leaves_tables_to_adamw() -> None:
    changes = {"learning_rate": 0.1, "warmup": 0, "weight_decay": 0.0, "clip": 1e9}
    params = {"layer_0": {"kernel": jnp.zeros((6, 6))}, "head": {"kernel": jnp.zeros((6, 6))}, "scale": jnp.zeros(6)}
    grads = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.ndim), leaf.shape), params)

    def updates(algorithm: Algorithm) -> dict:
        transform = build_optimizer(OptimizerSettings(algorithm=algorithm, **changes), 10)
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(grads, transform.init(params), params)[0]

    muon, adamw = updates("muon"), updates("adamw")
    for name in ("head", "scale"):  # the first step of Adam is a sign, with Nesterov momentum a longer one
        for one, other in zip(jax.tree.leaves(muon[name]), jax.tree.leaves(adamw[name]), strict=True):
            ratio = np.asarray(one / other)
            np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-3)
    lengths = np.linalg.svd(np.asarray(muon["layer_0"]["kernel"]), compute_uv=False)
    assert lengths.max() < 2 * lengths.min()  # every direction moves about as far
    own = np.linalg.svd(np.asarray(grads["layer_0"]["kernel"]), compute_uv=False)
    assert own.max() > 2 * own.min()
