"""What every calibrator has in common."""

import functools
import io

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformal import compiled

from jaxspec.conformal import Calibrator, adaptive_conformal, fixed, online_conformal, static_conformal

CALIBRATORS = {
    "fixed": fixed(-0.2, groups=3),
    "static": static_conformal(0.4, "exact", size=8, groups=3),
    "online": online_conformal(0.4, size=8, groups=3),
    "growing": online_conformal(0.4, "growing", size=8, groups=3, side="at_least"),
    "clusters": online_conformal(0.4, size=4, groups=3, cluster_size=3),
    "conditional": online_conformal(0.4, size=8, groups=3, mode="conditional", questions=4),
    "adaptive": adaptive_conformal(0.4, 0.05, groups=3, size=8),
    "decaying": adaptive_conformal(0.4, 0.5, groups=3, size=8, decay=0.6, cluster_size=2),
}


FAST = ("fixed", "online", "adaptive")


def each():
    """All calibrators; those that differ from a fast one in a setting alone are slow."""
    marks = [() if name in FAST else pytest.mark.slow for name in CALIBRATORS]
    cases = [
        pytest.param(one, id=name, marks=mark) for (name, one), mark in zip(CALIBRATORS.items(), marks, strict=True)
    ]
    return pytest.mark.parametrize("calibrator", cases)


def batches(count, lanes=6, seed=0):
    random = np.random.default_rng(seed)
    shape = (count, lanes)
    score = jnp.asarray(random.standard_normal(shape), jnp.float32)
    group, question = (jnp.asarray(random.integers(0, top, shape), jnp.int32) for top in (3, 4))
    return score, group, question, jnp.asarray(random.random(shape) < 0.7)


@functools.partial(jax.jit, static_argnums=0)
def run(calibrator, state, values):
    def tick(state, lane):
        score, group, question, live = lane
        escalate = compiled.decide(calibrator, state, score, group, live, question)
        return compiled.observe(calibrator, state, score, group, escalate, live, question), escalate

    return jax.lax.scan(tick, state, values)


def first_state(calibrator):
    """Static calibrators with something to compare with."""
    if not hasattr(calibrator, "calibrate"):
        return calibrator.init()
    return calibrator.calibrate(jnp.linspace(-1.0, 1.0, 24), jnp.arange(24) % 3)


@each()
def test_protocol_and_hash(calibrator):
    assert isinstance(calibrator, Calibrator)
    assert len({calibrator, CALIBRATORS["online"], calibrator}) == (1 if calibrator == CALIBRATORS["online"] else 2)


@each()
def test_a_restored_state_continues_bit_for_bit(calibrator):
    values = batches(20)
    half = [tuple(field[part] for field in values) for part in (slice(10), slice(10, 20))]
    state, _ = run(calibrator, first_state(calibrator), half[0])
    wanted_state, wanted = run(calibrator, state, half[1])

    file = io.BytesIO()
    leaves, structure = jax.tree.flatten(state)
    np.savez(file, *leaves)
    file.seek(0)
    with np.load(file) as archive:
        arrays = jax.tree.unflatten(structure, [archive[name] for name in archive.files])
    packed = flax.serialization.from_bytes(calibrator.init(), flax.serialization.to_bytes(state))
    for restored in (arrays, packed):
        found_state, found = run(calibrator, restored, half[1])
        np.testing.assert_array_equal(found, wanted)
        for one, other in zip(jax.tree.leaves(found_state), jax.tree.leaves(wanted_state), strict=True):
            np.testing.assert_array_equal(one, other)
    # Arrays of NumPy do without jit as well.
    score, group, question, live = (field[0] for field in half[1])
    np.testing.assert_array_equal(calibrator.decide(arrays, score, group, live, question), wanted[0])


@each()
def test_idle_lanes_change_nothing(calibrator):
    """The same lanes, with and without idle ones among them that hold rubbish."""
    score, group, question, live = batches(12)
    lanes = jnp.array([0, 2, 3])
    only = jnp.zeros(live.shape, bool).at[:, lanes].set(True)
    rubbish = jnp.where(only, score, jnp.nan)
    draw = jnp.asarray(np.random.default_rng(1).random(score.shape), jnp.float32)
    decide, observe = jax.jit(calibrator.decide), jax.jit(calibrator.observe)
    full = few = first_state(calibrator)
    for tick in range(12):
        among = decide(full, rubbish[tick], group[tick], only[tick], question[tick], draw[tick])
        part = score[tick, lanes], group[tick, lanes]
        alone = decide(few, *part, None, question[tick, lanes], draw[tick, lanes])
        np.testing.assert_array_equal(among[lanes], alone)
        assert not among[jnp.array([1, 4, 5])].any()
        full = observe(full, rubbish[tick], group[tick], among | ~only[tick], only[tick], question[tick])
        few = observe(few, *part, alone, None, question[tick, lanes])
    for one, other in zip(jax.tree.leaves(full), jax.tree.leaves(few), strict=True):
        np.testing.assert_array_equal(one, other)


@each()
def test_a_batch_without_lanes(calibrator):
    state = calibrator.init()
    none = jnp.zeros((0,)), jnp.zeros((0,), jnp.int32)
    escalate = compiled.decide(calibrator, state, *none, question=none[1])
    assert escalate.shape == (0,) and escalate.dtype == bool
    after = compiled.observe(calibrator, state, *none, escalate, question=none[1])
    assert jax.tree.structure(after) == jax.tree.structure(state)


@each()
def test_a_state_of_another_shape_is_refused(calibrator):
    lane = jnp.zeros((2,)), jnp.zeros((2,), jnp.int32)
    asked = jnp.zeros((2,), jnp.int32)
    for other in (fixed(0.0, groups=4), online_conformal(0.4, size=9, groups=3), adaptive_conformal(groups=2)):
        with pytest.raises(ValueError, match=r"calibration state|the state was made with"):
            calibrator.decide(other.init(), *lane, question=asked)
        with pytest.raises(ValueError, match=r"calibration state|the state was made with"):
            calibrator.observe(other.init(), *lane, jnp.zeros((2,), bool), question=asked)
    state = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), calibrator.init())
    with pytest.raises(ValueError, match="float16"):
        calibrator.decide(state, *lane, question=asked)


def test_the_error_names_the_leaf():
    calibrator = adaptive_conformal(groups=15, size=64)
    with pytest.raises(ValueError, match=r"state.ranks.bank.score is float32\[3, 64\].*needs float32\[15, 64\]"):
        calibrator.decide(adaptive_conformal(groups=3, size=64).init(), jnp.zeros((1,)), jnp.array([0]))


def test_one_compilation_serves_every_state():
    calibrator = adaptive_conformal(0.4, 0.05, groups=3, size=7)
    before = run._cache_size()
    for seed in range(3):
        run(calibrator, adaptive_conformal(0.4, 0.05, groups=3, size=7, seed=seed).init(), batches(4, seed=seed))
    assert run._cache_size() == before + 1


def test_draws_belong_to_the_seed_or_to_the_caller():
    one, two = (online_conformal(0.4, seed=seed) for seed in (1, 2))
    lanes = jnp.zeros((200,)), jnp.zeros((200,), jnp.int32)
    first = compiled.decide(one, one.init(), *lanes)
    np.testing.assert_array_equal(first, compiled.decide(one, one.init(), *lanes))
    assert (np.asarray(first) != np.asarray(compiled.decide(two, two.init(), *lanes))).any()
    assert abs(float(first.mean()) - 0.4) < 0.11
    draw = jnp.linspace(0.0, 0.999, 200)
    np.testing.assert_array_equal(compiled.decide(one, one.init(), *lanes, uniform=draw), np.asarray(draw) < 0.4)


def test_fixed():
    calibrator = fixed(-0.5, groups=2)
    score = jnp.array([-0.4, -0.5, -0.6, jnp.nan, jnp.inf])
    group = jnp.array([0, 0, 1, 1, 9])
    escalate = compiled.decide(calibrator, calibrator.init(), score, group)
    assert escalate.tolist() == [False, False, True, True, True]
    tally = compiled.observe(calibrator, calibrator.init(), score, group, escalate).tally
    assert [field.tolist() for field in tally] == [[2, 3], [0, 3], [0, 2]]
    np.testing.assert_allclose(tally.rate, [0.0, 1.0])
    assert not compiled.decide(fixed(-jnp.inf), fixed(-jnp.inf).init(), score, group).any()
    assert compiled.decide(fixed(jnp.inf), fixed(jnp.inf).init(), score, group).all()
    with pytest.raises(ValueError, match="threshold=nan"):
        fixed(float("nan"))
    with pytest.raises(ValueError, match="groups=0"):
        fixed(0.0, groups=0)


def test_a_sweep_of_fixed_thresholds_is_one_program():
    score, group = jnp.array([0.2, 0.5, 0.7, jnp.nan, jnp.inf], jnp.float32), jnp.zeros(5, jnp.int32)
    live = jnp.array([True, True, True, False, True])
    before = compiled.decide._cache_size()
    for threshold in (-np.inf, 0.2, 0.5, 0.6, np.inf):
        calibrator = fixed(threshold)
        wanted = [float(s) < threshold if np.isfinite(s) else threshold > -np.inf for s in score]
        found = compiled.decide(calibrator, calibrator.init(), score, group, live)
        assert found.tolist() == [one and bool(on) for one, on in zip(wanted, live, strict=True)]
    assert compiled.decide._cache_size() == before + 1
