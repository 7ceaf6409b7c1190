"""Consistency training on the questions of a file, in the tokens of the base, over several rounds."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxspec
from jaxspec.train.metrics_log import read_metrics
from jaxspec.train.on_policy import RoundSettings
from jaxspec.train.run_consistency import ConsistencyConfig, run_consistency
from jaxspec.train.trainer import TrainSettings
from jaxspec.train.trajectory_batches import StateChoice


def question_config(folder: Path, base: Path, **changes) -> ConsistencyConfig:
    """Training of a few steps on the questions of a file."""
    rows = [{"question": f"add {i} and {i}", "answer": f"it is {2 * i} #### {2 * i}"} for i in range(8)]
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {"question": "add " * 200, "answer": "much"}])))
    settings: dict[str, Any] = {
        "collection": RoundSettings(block=4, blocks=3, lanes=4, shard_prompts=4),
        "prompts": 6,
        "batch_size": 2,
        "held_out": 2,
        "sizes": (4,),
        "max_new_tokens": 8,
    }
    training = TrainSettings(2, progress_every=0)
    return ConsistencyConfig(str(path), str(base), str(folder / "c"), training, **(settings | changes))


GIVEN_ANSWERS: dict[str, Any] = {
    "answers": "given",
    "collection": RoundSettings(block=4, blocks=3),
    "states": StateChoice("initial"),
}


@pytest.mark.parametrize(
    ("answers", "data"),
    [
        ({}, "Own answers to 6 of 6 rows of `questions.jsonl`"),
        (GIVEN_ANSWERS, "Answers of 4 of 6 rows of `questions.jsonl`"),
    ],
)
def test_questions_of_a_file_in_the_base_s_own_tokens(tmp_path, tiny_model_folder, answers, data) -> None:
    config = question_config(tmp_path, tiny_model_folder, watch=False, **answers)
    report = run_consistency(config)
    assert report.folder is not None and [quality.identical for quality in report.after] == [True] * 3
    card = (report.folder / "README.md").read_text()
    assert (
        data in card
        and f'jacobi(4, "rolling", init="{config.initial}")' in card
        and "drafter=drafter, chat=True)" in card
    )
    last = read_metrics(tmp_path / "c" / "round-0" / "run" / "metrics.jsonl")[-1]
    assert last["held_out_tokens_per_forward"] >= 1 and last["held_out_exact_match"] == 0
    assert last["held_out_repetition"] in (0, 0.5, 1) and last["base_repetition"] in (0, 0.5, 1)
    base, trained = jaxspec.load(tiny_model_folder), jaxspec.load(report.folder)
    assert base.tokenizer is not None and trained.tokenizer is not None
    assert trained.tokenizer.chat("add 1") == base.tokenizer.chat("add 1")
    same = jax.tree.map(np.array_equal, base.params, trained.params)
    assert not jax.tree.all(same)


def test_a_second_round_of_own_answers_resumes_to_the_bit(tmp_path, tiny_model_folder, unmeasured) -> None:
    config = question_config(tmp_path, tiny_model_folder, rounds=2, prompts=3, watch=False, probed=0)
    config = dataclasses.replace(config, training=TrainSettings(2, checkpoint_every=1, progress_every=0))
    straight = run_consistency(dataclasses.replace(config, folder=str(tmp_path / "straight")))
    seen = []

    def last(step: int, metrics) -> str | None:
        seen.append(step)
        return "enough" if len(seen) == 4 else None  # the last step of the second round

    assert run_consistency(config, monitors=[last]).stopped == "enough" and seen == [1, 2, 1, 2]
    shards = sorted((tmp_path / "c").rglob("*.safetensors"))
    written = [path.stat().st_mtime_ns for path in shards]
    resumed = run_consistency(config, resume=True)
    assert len(shards) == 2 and [path.stat().st_mtime_ns for path in shards] == written  # nothing is collected again
    assert straight.folder is not None and resumed.folder is not None
    one, other = (jaxspec.load(folder).params for folder in (straight.folder, resumed.folder))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, other))
    assert not jax.tree.all(jax.tree.map(np.array_equal, one, jaxspec.load(tiny_model_folder).params))


def test_questions_that_cannot_be_trained_on_are_refused(tmp_path, tiny_model_folder) -> None:
    with pytest.raises(ValueError, match="prompts=7 are more than the 6 rows"):
        run_consistency(question_config(tmp_path, tiny_model_folder, prompts=7))
    with pytest.raises(ValueError, match="0 of 9 questions fit .* none is left to train on; raise tokens"):
        run_consistency(question_config(tmp_path, tiny_model_folder, tokens=12))
    with pytest.raises(FileNotFoundError, match="none.jsonl does not exist"):
        config = question_config(tmp_path, tmp_path / "no base is read first")
        run_consistency(dataclasses.replace(config, task=str(tmp_path / "none.jsonl")))


def test_a_run_on_other_questions_is_not_resumed(tmp_path, tiny_model_folder, unmeasured) -> None:
    config = question_config(tmp_path, tiny_model_folder, **GIVEN_ANSWERS)
    run_consistency(config, monitors=[lambda step, _: "enough"])
    with pytest.raises(ValueError, match="held_out=3 instead of 2"):
        run_consistency(dataclasses.replace(config, held_out=3), resume=True)
    (tmp_path / "questions.jsonl").write_text(
        (tmp_path / "questions.jsonl").read_text().replace("add 0 and 0", "add 0 and 1")
    )
    with pytest.raises(ValueError, match="had other settings .task='"):
        run_consistency(config, resume=True)
