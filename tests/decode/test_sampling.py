"""The processed distribution against a sort in NumPy, and draws against the distribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxspec.decode import sampling
from jaxspec.decode.sampling import Sampling, SamplingFlags

ALL = SamplingFlags(stochastic=True, filters=True, penalty=True, bans=True)
process = jax.jit(functools.partial(sampling.process, flags=ALL))


def settings_of(rows: list[dict]) -> Sampling:
    defaults = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=0)
    kinds = dict(top_k=np.int32, seed=np.uint32)
    return Sampling(
        **{
            name: jnp.asarray([(defaults | row)[name] for row in rows], kinds.get(name, np.float32))
            for name in Sampling._fields
        }
    )


def reference(logits, row: dict, seen, banned) -> np.ndarray:
    """One node's processed logits, by sorting."""
    x = logits.astype(np.float64)
    penalty = row.get("repetition_penalty", 1.0)
    x = np.where(seen, np.where(x > 0, x / penalty, x * penalty), x)
    x = np.where(banned, -np.inf, x)
    temperature = row.get("temperature", 1.0)
    if temperature == 0:
        return x
    x = x / temperature
    order = np.lexsort((np.arange(len(x)), -x))  # by logit, equals by id
    k = row.get("top_k", 0)
    if k:
        x[order[k:]] = -np.inf
    if row.get("top_p", 1.0) < 1:
        probability = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
        before = np.cumsum(probability[order]) - probability[order]
        x[order[before >= row["top_p"]]] = -np.inf
    if row.get("min_p", 0.0) > 0:
        x[x < x.max() + np.log(row["min_p"])] = -np.inf
    return x


@given(st.integers(0, 100_000))
def test_process_equals_sorting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lanes, nodes, size = 3, 2, 23
    logits = rng.normal(size=(lanes, nodes, size)).astype(np.float32) * 3
    seen, banned = rng.random((lanes, nodes, size)) < 0.3, rng.random(size) < 0.2
    banned[0] = False
    rows = [
        dict(
            temperature=float(rng.choice([0.0, 0.5, 1.0, 2.0])),
            top_k=int(rng.choice([0, 1, 3, 10, 40])),
            top_p=float(rng.choice([1.0, 0.1, 0.5, 0.83])),
            min_p=float(rng.choice([0.0, 0.02, 0.3])),
            repetition_penalty=float(rng.choice([1.0, 1.3, 0.7])),
        )
        for _ in range(lanes)
    ]
    got = np.asarray(
        process(jnp.asarray(logits), settings_of(rows), seen=jnp.asarray(seen), banned=jnp.asarray(banned))
    )
    for lane in range(lanes):
        for node in range(nodes):
            expected = reference(logits[lane, node], rows[lane], seen[lane, node], banned)
            np.testing.assert_array_equal(np.isfinite(got[lane, node]), np.isfinite(expected), str(rows[lane]))
            kept = np.isfinite(expected)
            np.testing.assert_allclose(got[lane, node][kept], expected[kept], rtol=1e-5)


@pytest.mark.parametrize(
    ("logits", "row", "kept"),
    [
        ([1, 1, 1, 1], dict(top_k=2), [0, 1]),
        ([0, 5, 5, 5], dict(top_k=2), [1, 2]),
        ([0, 0, 0, 0], dict(top_p=0.5), [0, 1]),
        ([0, 0, 0, 0], dict(top_p=0.51), [0, 1, 2]),
        ([0, 0, 0, 0], dict(top_p=0.01), [0]),
        ([-3, -3, 9, -3], dict(top_p=1e-6), [2]),
        ([2, 2, 2, 2], dict(min_p=1.0), [0, 1, 2, 3]),
        ([-1, -2, -4, -8], dict(top_k=3), [0, 1, 2]),
        ([-1.0, 0.0, 1.0, 2.0], dict(top_k=4), [0, 1, 2, 3]),
    ],
)
def test_ties_go_to_the_lower_id(logits, row, kept) -> None:
    x = jnp.asarray(logits, jnp.float32)[None, None]
    nothing = jnp.zeros((4,), bool)
    got = process(x, settings_of([row]), seen=nothing[None, None], banned=nothing)
    assert np.flatnonzero(np.isfinite(np.asarray(got)[0, 0])).tolist() == kept


@given(st.integers(0, 100_000))
def test_argmax_equals_numpy(seed: int) -> None:
    x = np.random.default_rng(seed).integers(-3, 4, (4, 9)).astype(np.float32)
    ids, top = sampling.argmax(jnp.asarray(x))
    np.testing.assert_array_equal(ids, x.argmax(-1))
    np.testing.assert_array_equal(top, x.max(-1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_argmax_of_what_is_not_finite_is_no_id(bad: float) -> None:
    x = np.zeros((3, 5), np.float32)
    x[1, 2] = bad
    np.testing.assert_array_equal(sampling.argmax(jnp.asarray(x))[0], [0, 5, 0])
    assert int(sampling.argmax(jnp.full((5,), -jnp.inf))[0]) == 5


@pytest.mark.parametrize("size", [5, 700, 2600, 5003])
def test_top_ids_equal_a_stable_sort(size: int) -> None:
    x = np.random.default_rng(size).integers(0, size // 3 + 1, (2, 3, size)).astype(np.float32)
    expected = np.argsort(-x, axis=-1, kind="stable")[..., :4]
    np.testing.assert_array_equal(sampling.top_ids(jnp.asarray(x), 4), expected)


def test_seen_tokens_are_prefix_and_ancestors() -> None:
    tokens = jnp.asarray([[1, 2, 9, 9], [3, 3, 3, 9]], jnp.int32)
    ancestors = jnp.asarray([[[1, 0, 0], [1, 1, 0], [1, 0, 1]]] * 2, bool)
    ids = jnp.asarray([[2, 5, 6], [3, 0, 0]], jnp.int32)
    seen = np.asarray(sampling.seen_tokens(tokens, jnp.asarray([2, 3], jnp.int32), ids, ancestors, 10))
    found = [[set(np.flatnonzero(node).tolist()) for node in lane] for lane in seen]
    assert found == [[{1, 2}, {1, 2, 5}, {1, 2, 6}], [{3}, {3, 0}, {3, 0}]]


def test_noise_depends_on_seed_and_position_alone() -> None:
    seeds = jnp.asarray([4, 9], jnp.uint32)
    positions = jnp.asarray([[3, 7, 8], [7, 1, 3]], jnp.int32)
    noise = sampling.gumbel(seeds, positions, 11)
    again = sampling.gumbel(seeds[::-1], positions[:, ::-1], 11)
    np.testing.assert_array_equal(noise[0, 1], again[1, 2])
    np.testing.assert_array_equal(noise[1, 0], again[0, 1])
    alone = sampling.gumbel(seeds[:1], jnp.asarray([[8]], jnp.int32), 11)
    np.testing.assert_array_equal(alone[0, 0], noise[0, 2])
    rows = np.asarray(noise).reshape(-1, 11)
    assert len({row.tobytes() for row in rows}) == len(rows)


def test_draws_follow_the_distribution() -> None:
    logits = jnp.asarray([0.3, -1.0, 1.4, 0.0, -0.4])
    count = 20_000
    settings = settings_of([dict(temperature=0.7, top_k=4, seed=3)])
    flags = SamplingFlags(stochastic=True, filters=True)
    processed = sampling.process(logits[None, None], settings, flags)
    noise = sampling.gumbel(settings.seed, jnp.arange(count, dtype=jnp.int32)[None], 5)
    drawn = np.asarray(sampling.draw(jnp.broadcast_to(processed, (1, count, 5)), settings, noise))[0]
    probability = np.exp(np.asarray(logits) / 0.7) * [1, 0, 1, 1, 1]
    probability /= probability.sum()
    counts = np.bincount(drawn, minlength=5)
    assert counts[1] == 0
    kept = probability > 0
    expected = count * probability[kept]
    chi_square = float(((counts[kept] - expected) ** 2 / expected).sum())
    assert chi_square < 16.27  # three degrees of freedom, one in a thousand


def test_rows_without_temperature_take_the_maximum() -> None:
    settings = settings_of([dict(temperature=0.0, top_k=1), dict(temperature=1.0)])
    x = jnp.asarray([[[0.0, 2.0, 1.0]]] * 2)
    processed = sampling.process(x, settings, SamplingFlags(stochastic=True, filters=True))
    noise = jnp.asarray([[[9.0, 0.0, 0.0]]] * 2)
    np.testing.assert_array_equal(sampling.draw(processed, settings, noise)[:, 0], [1, 0])


def test_flags_compile_in_what_is_used() -> None:
    plain = dict(temperature=[0.0], top_k=[5], top_p=[0.5], min_p=[0.0], repetition_penalty=[1.0], banned=False)
    assert sampling.flags_of(**plain) == SamplingFlags()  # filters do nothing at temperature 0
    assert sampling.flags_of(**(plain | dict(temperature=[0.5]))) == SamplingFlags(stochastic=True, filters=True)
    assert sampling.flags_of(**(plain | dict(repetition_penalty=[1.1], banned=True))) == SamplingFlags(
        penalty=True, bans=True
    )
