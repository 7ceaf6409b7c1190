"""`jaxspec demo` and its subcommands: options in the wrong place, and pictures that do not fit."""

import jax
import pytest

import jaxspec
from jaxspec.cli import FAILED, main
from jaxspec.evaluate import jacobi_demo
from jaxspec.evaluate.jacobi_demo import JacobiDemoRow
from jaxspec.tasks.task import find_task
from jaxspec.train.forward import init_params
from jaxspec.train.run import ModelShape
from jaxspec.weights.save import save_model


@pytest.mark.parametrize("options", [("--json",), ("--model", "x"), ("-m", "x"), ("--max-new-tokens", "64")])
def test_options_before_a_subcommand_are_refused(capsys, options) -> None:
    assert main(["demo", *options, "jacobi"]) == FAILED
    option = {"-m": "--model"}.get(options[0], options[0])
    said = f"{option} stands before jacobi, which does not see it; put it behind: demo jacobi {option}"
    assert capsys.readouterr().err == f"jaxspec: {said}\n"


@pytest.mark.parametrize(("n", "pictured"), [(16, 48), (200, 400), (500, None)])
def test_a_table_is_printed_whatever_the_picture(tmp_path, monkeypatch, capsys, n, pictured) -> None:
    tokenizer = find_task("text_to_sql").tokenizer()
    config = ModelShape(16, 16, 1, 2).config(tokenizer.vocabulary_size)
    save_model(tmp_path / "model", config, init_params(config, jax.random.key(0)), tokenizer)
    lengths = []
    monkeypatch.setattr(jacobi_demo, "compare", lambda *models, **settings: [JacobiDemoRow("cllm", 1, 2.0, 1, 1, True)])
    monkeypatch.setattr(jacobi_demo, "picture", lambda lm, prompt, n, length, initial: lengths.append(length) or [])
    folder = str(tmp_path / "model")
    assert main(["demo", "jacobi", "--base", folder, "--cllm", folder, "--n", str(n)]) == 0
    out = capsys.readouterr().out
    assert "| cllm |" in out
    assert ("no picture: a context of 512 has no room for 500 tokens" in out) == (pictured is None)
    assert set(lengths) == ({pictured} if pictured else set())


@pytest.mark.parametrize(("options", "dtype"), [((), "float32"), (("--dtype", "bfloat16"), "bfloat16")])
def test_ids_are_compared_in_float32_on_every_device(monkeypatch, capsys, options, dtype) -> None:
    asked = []

    def load(name, **settings):
        asked.append(settings)
        raise ValueError("far enough")

    monkeypatch.setattr(jaxspec, "load", load)
    assert main(["demo", *options]) == FAILED
    assert asked == [{"dtype": dtype}] and "far enough" in capsys.readouterr().err
