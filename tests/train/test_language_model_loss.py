"""Cross-entropy against NumPy, and what a batch of answers counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.models.config import ModelConfig
from jaxspec.tasks.sql_vocabulary import tokenizer
from jaxspec.train.answers import AnswerBatches, answer_quality, encode_answers
from jaxspec.train.forward import forward, init_params
from jaxspec.train.language_model_loss import LanguageModelObjective, TextBatch, cross_entropy, entropy

CONFIG = ModelConfig("llama", 13, 8, 12, 1, 2, 2, 4, context=32)
PARAMS = init_params(CONFIG, jax.random.key(0))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = np.asarray(logits, np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def batch() -> TextBatch:
    random = np.random.default_rng(0)
    counted = random.random((3, 9)) < 0.5
    counted[1] = False
    return TextBatch(random.integers(0, 13, (3, 9)).astype(np.int32), counted)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_mean_over_counted_tokens(smoothing: float) -> None:
    data = batch()
    value, metrics = LanguageModelObjective(CONFIG, smoothing)(PARAMS, data, jax.random.key(0))
    log_p = log_softmax(np.asarray(forward(PARAMS, CONFIG, jnp.asarray(data.ids))))
    losses, right, entropies = [], [], []
    for row, place in zip(*np.nonzero(data.counted[:, 1:]), strict=True):
        of_all, target = log_p[row, place], data.ids[row, place + 1]
        losses.append(-(1 - smoothing) * of_all[target] - smoothing * of_all.mean())
        right.append(of_all.argmax() == target)
        entropies.append(-(np.exp(of_all) * of_all).sum())
    assert float(value) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(right))
    assert float(metrics["entropy"]) == pytest.approx(np.mean(entropies), rel=1e-5)


def test_uncounted_tokens_do_not_matter() -> None:
    data = batch()
    objective = LanguageModelObjective(CONFIG)
    last = np.zeros_like(data.counted)
    last[:, 4] = True
    changed = data.ids.copy()
    changed[:, 5:] = 0
    one = objective(PARAMS, TextBatch(data.ids, last), jax.random.key(0))[0]
    other = objective(PARAMS, TextBatch(changed, last), jax.random.key(0))[0]
    assert float(one) == pytest.approx(float(other), rel=1e-6)
    assert float(objective(PARAMS, TextBatch(data.ids, np.zeros_like(last)), jax.random.key(0))[0]) == 0.0


def test_narrow_activations_keep_a_wide_loss() -> None:
    value, _ = LanguageModelObjective(CONFIG, dtype=jnp.bfloat16)(PARAMS, batch(), jax.random.key(0))
    wide, _ = LanguageModelObjective(CONFIG)(PARAMS, batch(), jax.random.key(0))
    assert value.dtype == jnp.float32 and float(value) == pytest.approx(float(wide), rel=0.02)


def test_entropy_of_known_distributions() -> None:
    assert float(entropy(jnp.zeros((4,)))) == pytest.approx(np.log(4), rel=1e-6)
    assert float(entropy(jnp.asarray([100.0, 0.0, 0.0]))) == pytest.approx(0.0, abs=1e-6)
    assert float(cross_entropy(jnp.zeros((4,)), jnp.int32(2))) == pytest.approx(np.log(4), rel=1e-6)


def test_smoothing_is_checked() -> None:
    with pytest.raises(ValueError, match="label_smoothing=1.0"):
        LanguageModelObjective(CONFIG, 1.0)


def test_answers_and_their_end_are_counted() -> None:
    words = tokenizer()
    made = AnswerBatches(lambda index: (f"show the {'name ' * index}of", " SELECT"), words, 2, 12).batch(1)
    assert made.ids.shape == made.counted.shape == (2, 12)
    for row, index in enumerate((2, 3)):
        prompt = words.encode(f"show the {'name ' * index}of")
        expected = [*prompt, *words.encode(" SELECT"), words.eos_id]
        assert made.ids[row, : len(expected)].tolist() == expected and not np.any(made.ids[row, len(expected) :])
        assert np.nonzero(made.counted[row])[0].tolist() == [len(prompt), len(prompt) + 1]
    with pytest.raises(ValueError, match="more than tokens=3; raise it"):
        encode_answers([("show the name of", " SELECT")], words, 3)


def test_quality_counts_whole_answers() -> None:
    data = batch()
    best = np.argmax(np.asarray(forward(PARAMS, CONFIG, jnp.asarray(data.ids))), axis=-1)
    counted = np.zeros_like(data.counted)
    counted[:, -1] = True  # the last token alone: making it the model's own choice makes the answer right
    ids = data.ids.copy()
    ids[:2, -1] = best[:2, -2]
    ids[2, -1] = (best[2, -2] + 1) % 13
    quality = answer_quality(PARAMS, CONFIG, TextBatch(ids, counted))
    assert quality["exact_match"] == pytest.approx(2 / 3)
    assert quality["nats"] > 0 and 0 < quality["entropy"] < np.log(13) + 1e-5
