"""What every token of a trajectory is, on trajectories drawn by hand, and its pictures."""

from pathlib import Path

import numpy as np
import pytest
from toy_model import toy_model

import jaxspec
from jaxspec.drafters import jacobi
from jaxspec.evaluate import jacobi_demo
from jaxspec.evaluate.jacobi_demo import FAST_FORWARDED, RIGHT, STATIONARY, WRONG, kinds_of
from jaxspec.tasks.task import find_task

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def test_kinds_of_a_trajectory_drawn_by_hand() -> None:
    iterates = np.array(
        [
            [9, 9, 9, 4],  # the last token happens to be right, and stays so
            [1, 9, 3, 4],  # one token, as any pass; the third comes right behind a wrong one
            [1, 2, 3, 4],  # the second, and with it all that stood behind it
        ]
    )
    expected = [
        [WRONG, WRONG, WRONG, STATIONARY],
        [RIGHT, WRONG, STATIONARY, STATIONARY],
        [RIGHT, RIGHT, FAST_FORWARDED, FAST_FORWARDED],
    ]
    np.testing.assert_array_equal(kinds_of(iterates), expected)


def test_one_token_a_pass_is_no_fast_forwarding() -> None:
    iterates = np.array([[0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 3]])
    kinds = kinds_of(iterates)
    assert set(kinds.ravel().tolist()) == {WRONG, RIGHT}


def test_pictures_show_every_iterate(tmp_path) -> None:
    blocks = jacobi_demo.picture(toy_model(0), "abcab", 4, 8)
    text = jacobi_demo.terminal_picture(blocks).plain
    assert len(blocks) == 2 and text.count("\n") == 1 + sum(1 + len(kinds) for _, kinds in blocks)
    for iterates, kinds in blocks:
        assert kinds.shape == (len(iterates), 4) and (kinds[-1] != WRONG).all()
        assert all("".join(tokens) in text for tokens in iterates)
    other = jacobi_demo.picture(toy_model(1), "abcab", 4, 4)
    jacobi_demo.plot_pictures({"toy": blocks, "other": other}, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_picture_keeps_to_the_context() -> None:
    lm, prompt = toy_model(0, context=128), "abcab"
    assert [jacobi_demo.picture_length(lm, prompt, n) for n in (4, 41, 42, 62, 123, 124)] == [12, 123, 84, 62, 123, 0]
    assert len(jacobi_demo.picture(lm, prompt, 42, 84)) == 2


def test_a_model_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="toy has 7 ids and the task has 237"):
        jacobi_demo.compare(toy_model(0), toy_model(1), find_task("text_to_sql"), prompts=1)


@pytest.mark.parametrize("setting", ["prompts", "rounds"])
def test_nothing_to_compare_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=0 is below 1"):
        jacobi_demo.compare(toy_model(0), toy_model(1), find_task("text_to_sql"), **{setting: 0})


def test_the_trained_model_says_many_tokens_a_pass_and_the_same_ones() -> None:
    lm, task = jaxspec.load(CHECKPOINTS / "text-to-sql-cllm", dtype="float32"), find_task("text_to_sql")
    examples = [task.example(31, index, "held_out") for index in range(4)]
    prompts = [prompt for prompt, _ in examples]
    plain = jaxspec.generate(lm, prompts, max_new_tokens=96)
    out = jaxspec.generate(lm, prompts, drafter=jacobi(16, "rolling", init="repeat"), max_new_tokens=96)
    assert out.ids == plain.ids and out.statistics.tokens_per_call > 5
    assert sum(task.grade(answer, text) for (_, answer), text in zip(examples, plain.texts, strict=True)) >= 3


@pytest.mark.slow
def test_the_trained_pair_is_as_good_as_its_card_says() -> None:
    base, trained = (jaxspec.load(CHECKPOINTS / f"text-to-sql{end}", dtype="float32") for end in ("", "-cllm"))
    rows = {row.name: row for row in jacobi_demo.compare(base, trained, find_task("text_to_sql"), prompts=96, seed=31)}
    assert all(row.identical for row in rows.values())
    assert rows["cllm"].tokens_per_forward > 5.5 and rows["cllm_rolling"].tokens_per_forward > 6.5
    assert 1.0 <= rows["base_jacobi"].tokens_per_forward < 1.2
    assert rows["cllm"].exact_match >= rows["base"].exact_match - 0.01 - 1 / 96  # a point, or one answer of these
    assert rows["cllm"].fast_forwarded > 4 > 1.5 > rows["base_jacobi"].fast_forwarded
    assert rows["cllm"].stationary is not None and rows["base"].stationary is rows["cllm_rolling"].stationary is None
