"""The consistency loss: the packed pass against explicit texts, block by block, and its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_trajectories import BLOCK, BLOCKS, FORWARD, SEQUENCE, causal_logits, small_answers, small_trajectories

from jaxspec.train.consistency import (
    ConsistencyBatch,
    ConsistencySettings,
    consistency,
    kl_divergence,
    masked_mean,
    refine,
)
from jaxspec.train.packing import FILL, answer_blocks, block_sizes, pack, shared_blocks, take_clean, take_noisy

KEY = jax.random.key(0)


def batch_of(*states: int) -> ConsistencyBatch:
    """Streams of the given states; the blocks of one answer are one state apart, as schedules make them."""
    data = small_trajectories("vocabulary")
    ahead = np.arange(BLOCKS) % 2
    streams = []
    for state in states:
        chosen = np.minimum(state + ahead, data.count - 1)
        streams.append(np.take_along_axis(data.states, chosen[..., None, None], axis=2)[:, :, 0])
    tokens, prompt_length, length = (jnp.asarray(x) for x in (data.tokens, data.prompt_length, data.length))
    return ConsistencyBatch(tokens, prompt_length, length, prompt_length, jnp.stack(streams, 1))


def perturbed_params():
    """Not the weights the trajectories are of, so that the teacher is unsure and the student wrong."""
    leaves, tree = jax.tree.flatten(small_answers().lm.params)
    random = np.random.default_rng(0)
    return jax.tree.unflatten(
        tree, [leaf + jnp.asarray(random.normal(0, 0.1, leaf.shape), leaf.dtype) for leaf in leaves]
    )


@functools.lru_cache
def value_and_grad(settings: ConsistencySettings):
    return jax.jit(jax.value_and_grad(consistency(FORWARD, settings), has_aux=True))


@functools.lru_cache
def value(settings: ConsistencySettings):
    return jax.jit(consistency(FORWARD, settings))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def kl(p_logits, q_logits) -> float:
    p, q = log_softmax(p_logits), log_softmax(q_logits)
    return float(np.sum(np.exp(p) * (p - q)))


def explicit_texts(batch: ConsistencyBatch, context: str, stream: int) -> np.ndarray:
    """(B, T, n, V) logits of every noisy block, from one plain text per block."""
    texts = np.repeat(np.asarray(batch.tokens)[:, None], BLOCKS, axis=1)
    for lane, block in np.ndindex(texts.shape[:2]):
        for noisy in range(block + 1) if context == "noise_aware" else [block]:
            begin = int(batch.start[lane]) + noisy * BLOCK
            room = texts[lane, block, begin : begin + BLOCK]
            room[:] = batch.noisy[lane, stream, noisy][: len(room)]
    logits = np.asarray(causal_logits(perturbed_params(), jnp.asarray(texts.reshape(-1, SEQUENCE))))
    logits = logits.reshape(*texts.shape, -1)
    found = np.zeros((*texts.shape[:2], BLOCK, logits.shape[-1]))
    for lane, block, offset in np.ndindex(found.shape[:3]):
        place = int(batch.start[lane]) + block * BLOCK + offset
        found[lane, block, offset] = logits[lane, block, place]
    return found


def slow_losses(batch: ConsistencyBatch, settings: ConsistencySettings) -> tuple[float, float]:
    """Consistency loss and autoregressive loss, position by position."""
    clean = np.asarray(causal_logits(perturbed_params(), batch.tokens))
    student = explicit_texts(batch, settings.context, 0)
    following = explicit_texts(batch, settings.context, 1) if settings.teacher == "local" else None
    per_block = []
    for lane, block in np.ndindex(student.shape[:2]):
        begin, length = int(batch.start[lane]) + block * BLOCK, int(batch.length[lane])
        fixed, noisy = batch.tokens[lane, begin : begin + BLOCK], batch.noisy[lane, 0, block]
        different = [o for o in range(BLOCK) if begin + o < length and fixed[o] != noisy[o]]
        losses = []
        for offset in range(BLOCK):
            if not different or offset < different[0] or begin + offset + 1 >= length:
                continue
            teacher = clean[lane, begin + offset] if following is None else following[lane, block, offset]
            pair = (teacher / settings.temperature, student[lane, block, offset] / settings.temperature)
            losses.append(kl(*pair) if settings.divergence == "forward" else kl(*pair[::-1]))
        per_block.append(losses)
    if settings.mean == "blocks":
        found = np.mean([np.mean(losses) for losses in per_block if losses])
    else:
        found = np.mean(np.concatenate([losses for losses in per_block]))
    ar = []
    for lane in range(len(clean)):
        first = 1 if settings.include_prompt else int(batch.prompt_length[lane])
        for target in range(first, int(batch.length[lane])):
            row = log_softmax(clean[lane, target - 1])
            smooth = settings.label_smoothing
            ar.append(-(1 - smooth) * row[int(batch.tokens[lane, target])] - smooth * row.mean())
    return float(found), float(np.mean(ar))


@pytest.mark.parametrize(
    "settings",
    [
        ConsistencySettings(ar_weight=3.0),
        ConsistencySettings(context="noise_aware", mean="blocks", label_smoothing=0.1),
        ConsistencySettings(divergence="reverse", temperature=2.0, include_prompt=True, consistency_weight=0.5),
        ConsistencySettings(teacher="local"),
        ConsistencySettings(teacher="local", context="noise_aware", temperature=0.5),
    ],
    ids=["clean", "noise-aware", "reverse", "local", "local-noise-aware"],
)
def test_the_packed_loss_is_that_of_separate_passes(settings):
    batch = batch_of(0, 1) if settings.teacher == "local" else batch_of(0)
    loss, metrics = value(settings)(perturbed_params(), batch, KEY)
    expected, expected_ar = slow_losses(batch, settings)
    assert expected > 0.01
    np.testing.assert_allclose(metrics["consistency_loss"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(metrics["ar_loss"], expected_ar, rtol=1e-5, atol=1e-5)
    total = settings.consistency_weight * expected + settings.ar_weight * expected_ar
    np.testing.assert_allclose(loss, total, rtol=1e-5)


@pytest.mark.parametrize("context", ["clean", "noise_aware"])
def test_blocks_may_begin_at_the_last_token_of_the_prompt(context):
    """As decoding does; the autoregressive loss counts the whole answer all the same."""
    settings, batch = ConsistencySettings(ar_weight=3.0, context=context), batch_of(0)
    batch = batch._replace(start=batch.prompt_length - 1)
    _, metrics = value(settings)(perturbed_params(), batch, KEY)
    expected, expected_ar = slow_losses(batch, settings)
    np.testing.assert_allclose(metrics["consistency_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["ar_loss"], expected_ar, rtol=1e-5)


def test_nothing_is_lost_at_the_fixed_point():
    settings, batch, params = ConsistencySettings(ar_weight=0.0), batch_of(BLOCK), perturbed_params()
    (loss, metrics), gradient = value_and_grad(settings)(params, batch, KEY)
    assert loss == 0 and metrics["trained_share"] == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))
    # Not because nothing counts: student and teacher say the same.
    packed = pack(batch.tokens, batch.prompt_length, batch.noisy, shared_blocks("noise_aware", BLOCKS))
    logits = jax.jit(FORWARD)(params, *packed)
    teacher, student = (
        take_clean(logits, batch.prompt_length, BLOCKS, BLOCK),
        take_noisy(logits, SEQUENCE, 0, BLOCKS, BLOCK),
    )
    inside = np.arange(BLOCK) < block_sizes(batch.prompt_length, batch.length, BLOCKS, BLOCK)[:, :, None]
    for direction in ("forward", "reverse"):
        distance, slope = jax.vjp(lambda q, d=direction: kl_divergence(teacher, q, d, 1.5), student)
        np.testing.assert_allclose(distance[inside], 0, atol=1e-6)
        np.testing.assert_allclose(slope(jnp.ones_like(distance))[0][inside], 0, atol=1e-5)


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_is_the_sum_of_its_definition(divergence, temperature):
    random = np.random.default_rng(0)
    teacher, student = random.normal(0, 3, (2, 5, 11)).astype(np.float32)
    found = kl_divergence(jnp.asarray(teacher), jnp.asarray(student), divergence, temperature)
    pairs = [(t / temperature, s / temperature) for t, s in zip(teacher, student, strict=True)]
    expected = [kl(*pair) if divergence == "forward" else kl(*pair[::-1]) for pair in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (np.asarray(found) > 0).all()


def test_the_teacher_takes_no_gradient():
    """The gradient is that of the same loss with the teacher's logits as constants."""
    batch, params = batch_of(0), perturbed_params()
    settings = ConsistencySettings(ar_weight=0.0)
    _, gradient = value_and_grad(settings)(params, batch, KEY)
    constants = jnp.asarray(np.asarray(causal_logits(params, batch.tokens)))

    def forward_with_constants(params, ids, positions, visible):
        return FORWARD(params, ids, positions, visible).at[:, :SEQUENCE].set(constants)

    _, expected = jax.jit(jax.value_and_grad(consistency(forward_with_constants, settings), has_aux=True))(
        params, batch, KEY
    )
    for found, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * float(jnp.max(jnp.abs(wanted))) + 1e-8)
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient)) > 1e-3


def test_what_lies_behind_an_answer_changes_nothing():
    batch, params = batch_of(0), perturbed_params()
    outside = jnp.arange(SEQUENCE) >= batch.length[:, None]
    place = batch.prompt_length[:, None] + jnp.arange(BLOCKS * BLOCK)
    behind = (place >= batch.length[:, None]).reshape(batch.noisy[:, 0].shape)[:, None]
    other = batch._replace(tokens=jnp.where(outside, 7, batch.tokens), noisy=jnp.where(behind, 7, batch.noisy))
    assert bool(outside.any()) and bool(behind.any())
    settings = ConsistencySettings(ar_weight=3.0)
    loss, metrics = value(settings)(params, batch, KEY)
    other_loss, other_metrics = value(settings)(params, other, KEY)
    # A row that begins behind the answer differs in its first token: none of its positions may count.
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for name, found in metrics.items():
        np.testing.assert_allclose(other_metrics[name], found, rtol=1e-5, err_msg=name)


def test_metrics_of_the_model_that_gave_the_answers():
    _, metrics = value(ConsistencySettings(ar_weight=3.0))(small_answers().lm.params, batch_of(0), KEY)
    assert metrics["ar_accuracy"] == 1.0
    np.testing.assert_allclose(metrics["repetition"], metrics["data_repetition"], atol=0.2)
    data = small_trajectories("vocabulary")
    pairs, equal = 0, 0
    for tokens, prompt, length in zip(data.tokens, data.prompt_length, data.length, strict=True):
        answer = tokens[prompt:length]
        pairs, equal = pairs + len(answer) - 1, equal + int((answer[1:] == answer[:-1]).sum())
    np.testing.assert_allclose(metrics["data_repetition"], equal / pairs, rtol=1e-6)
    assert 0 <= float(metrics["noisy_accuracy"]) < 1


def test_right_tokens_are_counted_up_to_the_token_behind_the_last_block() -> None:
    whole = batch_of(0)
    batch = whole._replace(noisy=whole.noisy[:, :, :1])  # answers go on behind the only block
    said = np.argmax(explicit_texts(whole, "clean", 0)[:, 0], axis=-1)
    right = []
    for lane, begin in enumerate(np.asarray(batch.start)):
        wrong = np.asarray(batch.noisy[lane, 0, 0]) != np.asarray(batch.tokens[lane, begin : begin + BLOCK])
        for offset in range(int(np.argmax(wrong)), BLOCK):
            if begin + offset + 1 < batch.length[lane]:
                right.append(said[lane, offset] == batch.tokens[lane, begin + offset + 1])
    assert np.any(np.asarray(batch.start) + BLOCK < np.asarray(batch.length))
    _, metrics = value(ConsistencySettings())(perturbed_params(), batch, KEY)
    np.testing.assert_allclose(metrics["noisy_accuracy"], np.mean(right), rtol=1e-6)


def test_a_step_down_the_gradient_makes_noisy_blocks_more_like_clean_ones():
    settings, params, batch = ConsistencySettings(ar_weight=0.0), perturbed_params(), batch_of(0)
    (before, _), gradient = value_and_grad(settings)(params, batch, KEY)
    params = jax.tree.map(lambda leaf, slope: leaf - 0.003 * slope, params, gradient)
    after, _ = value(settings)(params, batch, KEY)
    assert 0 < after < before


def test_means():
    values = jnp.asarray([[[1.0, 3.0], [jnp.nan, 8.0], [jnp.nan, jnp.nan]]])
    mask = jnp.asarray([[[True, True], [False, True], [False, False]]])
    assert masked_mean(values, mask, "tokens") == 4.0
    assert masked_mean(values, mask, "blocks") == 5.0
    assert masked_mean(values, jnp.zeros_like(mask), "tokens") == 0.0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"teacher": "oracle"}, "teacher='oracle' is unknown; choose one of global, local"),
        ({"divergence": "sideways"}, "divergence='sideways'"),
        ({"context": "blurry"}, "context='blurry'"),
        ({"mean": "all"}, "mean='all'"),
        ({"ar_weight": -1.0}, "ar_weight=-1.0 must be 0 or more"),
        ({"consistency_weight": float("nan")}, "consistency_weight=nan"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"window": 0}, "window=0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ConsistencySettings(**change)


def test_batches_for_the_other_loss_are_refused():
    with pytest.raises(ValueError, match="2 noisy streams does not suit teacher='global'"):
        consistency(FORWARD)(perturbed_params(), batch_of(0, 1), KEY)


def test_refinements_walk_along_the_trajectory() -> None:
    """From a trajectory's start, steps of the model that made it lead to its own later states."""
    data = small_trajectories("vocabulary")
    params = small_answers().lm.params
    batch = batch_of(0)._replace(noisy=jnp.asarray(data.states[:, None, :, 0]))
    packed = pack(batch.tokens, batch.prompt_length, batch.noisy, shared=1)
    fixed = answer_blocks(batch.tokens, batch.prompt_length, batch.length, BLOCKS, BLOCK)
    size = np.asarray(block_sizes(batch.prompt_length, batch.length, BLOCKS, BLOCK))
    inside = np.arange(BLOCK) < size[..., None]
    seen = set()
    for seed in range(6):
        found = refine(FORWARD, params, packed, fixed, batch.noisy[:, 0], 2, jax.random.key(seed))
        found = np.where(inside, found, FILL)
        later = [
            np.take_along_axis(data.states, np.minimum(k, data.count - 1)[..., None, None], 2)[:, :, 0]
            for k in range(3)
        ]
        same = np.stack([(found == state).all(axis=-1) for state in later], axis=-1)
        known = np.asarray(data.converged) & (size > 0)
        assert same.any(axis=-1)[known].all()
        seen |= set(np.argmax(same, axis=-1)[known & (np.asarray(data.count) > 2)].tolist())
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("context", ["clean", "noise_aware"])
def test_refined_states_train_like_given_ones(context) -> None:
    """Loss and gradient are those of a batch that holds the refined states already: no gradient goes through steps.

    The steps are those of decoding, where a block follows clean text, whatever the student is to see.
    """
    params, batch = perturbed_params(), batch_of(0)
    packed = pack(batch.tokens, batch.prompt_length, batch.noisy, shared=1)
    fixed = answer_blocks(batch.tokens, batch.prompt_length, batch.length, BLOCKS, BLOCK)
    noisy = refine(FORWARD, params, packed, fixed, batch.noisy[:, 0], 2, KEY)
    assert (np.asarray(noisy) != np.asarray(batch.noisy[:, 0])).any()
    (loss, metrics), grad = value_and_grad(ConsistencySettings(refinements=2, context=context))(params, batch, KEY)
    (wanted, same), wanted_grad = value_and_grad(ConsistencySettings(context=context))(
        params, batch._replace(noisy=noisy[:, None]), KEY
    )
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    np.testing.assert_allclose(metrics["noisy_accuracy"], same["noisy_accuracy"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grad, wanted_grad)


@pytest.mark.parametrize("settings", [{"refinements": -1}, {"refinements": 1, "teacher": "local"}])
def test_refinements_that_cannot_be_are_refused(settings) -> None:
    with pytest.raises(ValueError, match=f"refinements={settings['refinements']}"):
        ConsistencySettings(**settings)
