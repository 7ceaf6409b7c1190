"""Paired step traces: contexts, both steps and scores as plain greedy decoding has them; resumable on disk."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import greedy_continuation, toy_model

from jaxspec import steps
from jaxspec.train import step_shards, step_traces
from jaxspec.train.step_traces import StepTraces, collect_traces

CAP, NEW = 6, 24
CUT = steps.Segmentation.custom(["a", "cd"], CAP)
DRAFT, TARGET = toy_model(1), toy_model(2)
PROMPTS = [np.random.default_rng(seed).integers(0, 7, 3 + seed).tolist() for seed in range(4)]


def digit_sum(params, context):
    """A score with ties: the sum of the step's ids, modulo three."""
    place = jnp.arange(context.tokens.shape[1], dtype=jnp.int32)
    inside = (place >= context.start[:, None]) & (place < context.end[:, None])
    return (jnp.sum(jnp.where(inside, context.tokens, 0), axis=1) % 3).astype(jnp.float32)


SCORE = steps.TextScore(digit_sum)


def collect(prompts, draft=DRAFT, target=TARGET) -> StepTraces:
    return collect_traces(
        draft, target, prompts, SCORE, segmentation=CUT, max_new_tokens=NEW, max_steps=8, lanes=4
    )  # fmt: skip


@pytest.fixture(scope="module")
def traces() -> StepTraces:
    return collect(PROMPTS)


def plain_step(lm, text: list[int], room: int) -> list[int]:
    step: list[int] = []
    while len(step) < min(CAP, room) and not (step and (step[-1] == 0 or step[-2:] == [2, 3])):
        step += greedy_continuation(lm, text + step, 1)
    return step


def test_steps_scores_and_contexts_are_those_of_plain_decoding(traces: StepTraces) -> None:
    assert set(traces.by_target.tolist()) == {True, False}
    for n, problem in enumerate(traces.problem):
        context = traces.tokens[problem, : traces.start[n]].tolist()
        room = int(traces.prompt_length[problem]) + NEW - len(context)
        for lm, ids, length, score in (
            (DRAFT, traces.draft, traces.draft_length, traces.draft_score),
            (TARGET, traces.target, traces.target_length, traces.target_score),
        ):
            wanted = plain_step(lm, context, room)
            assert ids[n, : length[n]].tolist() == wanted
            assert score[n] == sum(wanted) % 3
        kept, length = (
            (traces.target, traces.target_length) if traces.by_target[n] else (traces.draft, traces.draft_length)
        )
        end = traces.start[n] + length[n]
        assert traces.tokens[problem, traces.start[n] : end].tolist() == kept[n, : length[n]].tolist()
        assert traces.by_target[n] == (traces.advantage[n] > 0)
    assert (traces.length <= traces.prompt_length + NEW).all()


def test_a_discarded_step_of_the_draft_ends_at_the_eos_of_either_model() -> None:
    """As the step did that was scored."""
    found = collect(PROMPTS, toy_model(1, eos_ids=(5,)), toy_model(2, eos_ids=(4,)))
    said = [ids[:length].tolist() for ids, length in zip(found.draft, found.draft_length, strict=True)]
    assert found.draft_score.tolist() == [sum(ids) % 3 for ids in said]
    assert any(ids[-1] == 4 for ids, by_target in zip(said, found.by_target, strict=True) if by_target)


def test_joined_traces_keep_their_problems(traces: StepTraces) -> None:
    joined = step_traces.concatenate([collect(PROMPTS[:3]), collect(PROMPTS[3:])])
    for name in StepTraces._fields:
        np.testing.assert_array_equal(getattr(joined, name), getattr(traces, name), err_msg=name)


def test_the_first_problems_are_those_alone(traces: StepTraces) -> None:
    first = step_traces.first_problems(traces, 3)
    alone = collect(PROMPTS[:3])
    for name in ("problem", "start", "draft", "target_score", "length"):
        np.testing.assert_array_equal(getattr(first, name), getattr(alone, name))


def test_a_collection_goes_on_where_it_stopped(traces: StepTraces, tmp_path) -> None:
    made: list[int] = []

    def make(index: int) -> StepTraces:
        made.append(index)
        return traces

    description = step_shards.describe(DRAFT, TARGET, seed=1)
    step_shards.write_missing(tmp_path, description, 1, make)
    step_shards.write_missing(tmp_path, description, 3, make)
    assert made == [0, 1, 2]
    read, whole = step_shards.read_traces(tmp_path)
    assert read == description and len(whole.problem) == 3 * len(traces.problem)
    np.testing.assert_array_equal(np.unique(whole.problem), np.arange(12))
    with pytest.raises(ValueError, match="holds traces with target="):
        step_shards.write_missing(tmp_path, step_shards.describe(DRAFT, DRAFT, seed=1), 3, make)


def test_damage_is_noticed(traces: StepTraces, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="collect step traces"):
        step_shards.read_traces(tmp_path)
    step_shards.write_missing(tmp_path, step_shards.describe(DRAFT, TARGET), 1, lambda index: traces)
    shard = tmp_path / "steps-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is not what was written"):
        step_shards.read_traces(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(ValueError, match="format is 9"):
        step_shards.read_traces(tmp_path)


def test_no_problem_is_refused() -> None:
    with pytest.raises(ValueError, match="no problems"):
        collect([])
