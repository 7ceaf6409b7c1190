"""Heads that score steps: examples, labels, losses and balance; a rule is learned; a run ends in a checkpoint of its
pair alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec
from jaxspec.engine.score_model import describe_scoring, load_scorer, weights_hash
from jaxspec.models.config import ModelConfig
from jaxspec.steps.scorers import RewardModel
from jaxspec.tasks.arithmetic import tokenizer
from jaxspec.train import run_step_head as run_step_head_module
from jaxspec.train import trainer
from jaxspec.train.forward import init_params
from jaxspec.train.optimizer import OptimizerSettings
from jaxspec.train.ranking_metrics import auc
from jaxspec.train.run_step_head import StepHeadConfig, run_step_head
from jaxspec.train.step_heads import (
    HeadBatches,
    HeadExamples,
    HeadObjective,
    HeadSettings,
    balanced,
    gain_classes,
    init_from,
    is_positive,
    predict,
    reward_examples,
    router_examples,
    scoring_config,
    split,
    step_outputs,
)
from jaxspec.train.step_traces import StepTraces
from jaxspec.train.trainer import TrainSettings, train
from jaxspec.weights.save import save_model

CONFIG = ModelConfig("llama", tokenizer().vocabulary_size, 16, 24, 1, 2, 2, 8, context=256)
TRACES = StepTraces(
    tokens=np.array([[9, 8, 3, 4, 5, 0], [9, 7, 6, 0, 0, 0]], np.int32),
    prompt_length=np.array([2, 1], np.int32),
    length=np.array([5, 3], np.int32),
    problem=np.array([0, 0, 1], np.int32),
    turn=np.array([0, 1, 0], np.int32),
    start=np.array([2, 3, 1], np.int32),
    draft=np.array([[3, 0], [2, 0], [7, 6]], np.int32),
    target=np.array([[3, 0], [4, 5], [1, 0]], np.int32),
    draft_length=np.array([1, 1, 2], np.int32),
    target_length=np.array([1, 2, 1], np.int32),
    draft_score=np.array([1, 0, np.nan], np.float32),
    target_score=np.array([1, 1, 0], np.float32),
    by_target=np.array([False, True, False]),
)


def rule(count: int, seed: int = 0) -> HeadExamples:
    """The gain is a function of the step's last token."""
    random = np.random.default_rng(seed)
    ids = random.integers(2, 20, (count, 6)).astype(np.int32)
    value = (ids[:, 5] % 3 - 1).astype(np.float32)  # -1, 0 or 1
    return HeadExamples(ids, np.full(count, 5, np.int32), value, np.arange(count, dtype=np.int32))


def test_examples_are_the_step_behind_its_context() -> None:
    router = router_examples(TRACES)
    assert router.ids.tolist() == [[9, 8, 3, 0, 0], [9, 8, 3, 2, 0], [9, 7, 6, 0, 0]]
    assert router.end.tolist() == [2, 3, 2] and router.value.tolist() == [0, 1, 0]
    reward = reward_examples(TRACES)  # the first step once: both wrote the same
    assert reward.value.tolist() == [1, 0, 0, 1, 0]
    assert reward.ids[3].tolist() == [9, 8, 3, 4, 5] and reward.end.tolist() == [2, 3, 2, 4, 1]
    training, held_out = split(router, 1)
    assert training.problem.tolist() == [0, 0] and held_out.problem.tolist() == [1]
    with pytest.raises(ValueError, match="held_out=2"):
        split(router, 2)


def test_annotated_examples_show_which_steps_before_the_target_wrote() -> None:
    follow_up = TRACES._replace(
        problem=np.array([0, 0, 0], np.int32), start=np.array([2, 3, 5], np.int32), tokens=TRACES.tokens[:1]
    )
    assert router_examples(follow_up, 50).ids.tolist() == [
        [9, 8, 3, 0, 0, 0, 0],
        [9, 8, 3, 2, 0, 0, 0],  # the draft wrote both
        [9, 8, 3, 54, 55, 7, 6],  # behind a step that the target wrote
    ]
    with pytest.raises(ValueError, match="annotate=True is for routers"):
        HeadSettings("reward", annotate=True)


def test_an_annotated_router_begins_with_one_meaning_for_both_ids() -> None:
    settings = HeadSettings("binary", annotate=True)
    config = scoring_config(CONFIG, settings)
    assert config.vocabulary == 2 * CONFIG.vocabulary
    params = init_from(CONFIG, init_params(CONFIG, jax.random.key(0)), settings, 0)
    batch = rule(4)
    shown = batch._replace(ids=batch.ids + CONFIG.vocabulary)
    np.testing.assert_array_equal(step_outputs(params, config, batch), step_outputs(params, config, shown))


def test_balance_keeps_the_rarer_label_whole() -> None:
    positive = np.random.default_rng(0).random(200) < 0.2
    chosen = balanced(positive, seed=1)
    assert positive[chosen].sum() == positive.sum() == len(chosen) / 2
    assert chosen.tolist() == balanced(positive, seed=1).tolist() != balanced(positive, seed=2).tolist()
    with pytest.raises(ValueError, match="same label"):
        balanced(np.ones(3, bool), 0)


def test_classes_of_gains_part_at_zero() -> None:
    value = np.concatenate([np.linspace(-1, 0, 40), np.linspace(0.01, 1, 60)]).astype(np.float32)
    edges = gain_classes(value, 4)
    level = np.sum(value[:, None] > edges, axis=1)
    assert np.array_equal(level >= 2, value > 0)
    assert np.abs(np.bincount(level) - [20, 20, 30, 30]).max() <= 1
    assert gain_classes(value, 2).tolist() == [0.0]


def test_losses_equal_their_formulas() -> None:
    batch = rule(8)
    params = init_from(CONFIG, init_params(CONFIG, jax.random.key(0)), HeadSettings("ordinal"), 0)
    params["head"]["bias"] = jnp.array([0.5, -1.0, 2.0])
    config = scoring_config(CONFIG, HeadSettings("ordinal"))
    outputs = np.asarray(step_outputs(params, config, batch))
    level = np.sum(batch.value[:, None] > np.array([-0.5, 0, 0.5]), axis=1)
    above = level[:, None] > np.arange(3)
    p = 1 / (1 + np.exp(-outputs))
    wanted = -np.log(np.where(above, p, 1 - p)).sum(axis=1).mean()
    loss, _ = HeadObjective(config, HeadSettings("ordinal"), (-0.5, 0.0, 0.5))(params, batch, jax.random.key(0))
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    said = predict(params, config, HeadSettings("ordinal"), batch)
    np.testing.assert_allclose(said, p.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        "reward",
        "binary",
        pytest.param("classes", marks=pytest.mark.slow),
        "ordinal",
        pytest.param("advantage", marks=pytest.mark.slow),
    ],
)
def test_every_kind_learns_a_rule(kind: str, tmp_path) -> None:
    settings = HeadSettings(kind)
    examples, fresh = rule(600), rule(200, seed=1)
    config = scoring_config(CONFIG, settings)
    edges = tuple(gain_classes(examples.value, 4).tolist())
    examples, fresh = (
        part._replace(value=np.maximum(part.value, 0.0) if kind == "reward" else part.value)
        for part in (examples, fresh)
    )
    result = train(
        init_from(CONFIG, init_params(CONFIG, jax.random.key(0)), settings, 0),
        HeadObjective(config, settings, edges),
        HeadBatches(examples, 64, 0),
        TrainSettings(40, OptimizerSettings(learning_rate=0.02, warmup=5), progress_every=0),
        tmp_path,
    )
    assert auc(predict(result.params, config, settings, fresh), is_positive(settings, fresh.value)) > 0.98


def test_batches_are_epochs() -> None:
    batches = HeadBatches(rule(10), 5, seed=0)
    seen = np.concatenate([batches.batch(step).problem for step in (0, 1)])
    assert sorted(seen.tolist()) == list(range(10))
    np.testing.assert_array_equal(batches.batch(3).ids, batches.batch(3).ids)


def small_pair(folder) -> tuple[str, str]:
    for name, seed in (("draft", 0), ("target", 1)):
        save_model(folder / name, CONFIG, init_params(CONFIG, jax.random.key(seed)), tokenizer())
    return str(folder / "draft"), str(folder / "target")


@pytest.mark.slow
def test_a_run_ends_in_a_router_of_its_pair_alone(tmp_path) -> None:
    draft, target = small_pair(tmp_path)
    config = StepHeadConfig(
        draft=draft,
        target=target,
        folder=str(tmp_path / "out"),
        traces=str(tmp_path / "traces"),
        head=HeadSettings("advantage", balance=False),
        training=TrainSettings(3, OptimizerSettings(warmup=1), progress_every=0),
        problems=3,
        held_out=1,
        shard=2,
        lanes=2,
        rows=4,
    )
    report = run_step_head(config, command="jaxspec train --config tiny.yaml")
    pair = jaxspec.load(draft), jaxspec.load(target)
    card = (report.folder / "README.md").read_text()
    assert weights_hash(pair[0]) in card and weights_hash(pair[1]) in card and "Spearman" in card
    loaded = load_scorer(report.folder, *pair)
    assert loaded.model.config.outputs == 1 and loaded.score.expects == "advantage"
    solved = jaxspec.steps.solve(
        *pair,
        jaxspec.steps.arbitrage(0.0, loaded.score),
        ["1 +1:\n"],
        scorer=loaded.model,
        segmentation=jaxspec.steps.Segmentation.custom(["\n"], 8),
        max_new_tokens=12,
    )
    assert solved.problems[0].steps[0].score is not None
    with pytest.raises(ValueError, match="trained for another draft"):
        load_scorer(report.folder, pair[1], pair[1])
    describe_scoring(report.folder, "reward", *pair, [0.1, 0.5])
    load_scorer(report.folder, pair[1], pair[0])  # a reward model serves any pair


def test_another_run_is_not_resumed_and_nothing_is_traced_first(tmp_path, monkeypatch) -> None:
    draft, target = small_pair(tmp_path)
    pair = jaxspec.load(draft, dtype="float32"), jaxspec.load(target, dtype="float32")
    config = StepHeadConfig(
        draft,
        target,
        str(tmp_path / "out"),
        "traces",
        HeadSettings("advantage"),
        TrainSettings(3),
        problems=3,
        held_out=1,
    )
    trainer._claim(tmp_path / "out" / "run", config.training, run_step_head_module._description(config, *pair, None))
    monkeypatch.setattr(run_step_head_module, "_traces", lambda *arguments: pytest.fail("traced"))
    changes = {
        "head.kind='binary' instead of 'advantage'": {"head": HeadSettings("binary")},
        "rows=8 instead of 32": {"rows": 8},
        "first_problem=5 instead of 1000000": {"first_problem": 5},
        f"draft='{weights_hash(pair[1])}' instead of '{weights_hash(pair[0])}'": {"draft": target},
    }
    for message, change in changes.items():
        with pytest.raises(ValueError, match=message):
            run_step_head(dataclasses.replace(config, **change), resume=True)
    with pytest.raises(FileExistsError, match="holds a training run already"):
        run_step_head(config)


def test_the_hash_does_not_depend_on_the_type_of_the_weights(tmp_path) -> None:
    draft, target = small_pair(tmp_path)
    assert weights_hash(jaxspec.load(draft, dtype="float32")) == weights_hash(jaxspec.load(draft, dtype="bfloat16"))
    assert weights_hash(jaxspec.load(draft)) != weights_hash(jaxspec.load(target))


def test_a_published_reward_model_needs_no_description(tmp_path) -> None:
    for name, outputs in (("reward", 1), ("router", 2)):
        config = dataclasses.replace(CONFIG, tied=False, outputs=outputs)
        save_model(tmp_path / name, config, init_params(config, jax.random.key(0)), tokenizer())
    loaded = load_scorer(tmp_path / "reward", None, None)
    assert loaded.score == RewardModel() and loaded.model.config.outputs == 1 and loaded.quantiles == ()
    with pytest.raises(ValueError, match="was measured on no steps of a draft; choose a threshold"):
        loaded.line(0.5)
    for name in ("router", "nothing"):
        with pytest.raises(FileNotFoundError, match="scoring.json does not exist"):
            load_scorer(tmp_path / name, None, None)


def test_bad_settings_and_folders(tmp_path) -> None:
    with pytest.raises(ValueError, match="kind='rank'"):
        HeadSettings("rank")
    with pytest.raises(ValueError, match="classes=3"):
        HeadSettings("classes", classes=3)
    draft, target = small_pair(tmp_path)
    lms = jaxspec.load(draft), jaxspec.load(target)
    with pytest.raises(FileNotFoundError, match="scoring.json"):
        load_scorer(draft, *lms)
    describe_scoring(draft, "binary", *lms, [0.0])
    with pytest.raises(ValueError, match="not a scoring model"):
        load_scorer(draft, *lms)
    describe_scoring(draft, "gain", *lms, [0.0])
    with pytest.raises(ValueError, match="scoring.json does not describe a scoring model.*expects='gain'"):
        load_scorer(draft, *lms)
    settings = HeadSettings()
    with pytest.raises(ValueError, match="task='text_to_sql'"):
        StepHeadConfig("d", "t", "f", "s", settings, TrainSettings(1), task="text_to_sql")
    with pytest.raises(ValueError, match="held_out=5"):
        dataclasses.replace(StepHeadConfig("d", "t", "f", "s", settings, TrainSettings(1)), problems=5, held_out=5)
