"""`jaxspec demo` and its subcommands: options in the wrong place, and pictures that do not fit."""

import json
from pathlib import Path

import jax
import pytest

import jaxspec
from jaxspec.cli import FAILED, main
from jaxspec.evaluate import jacobi_demo
from jaxspec.evaluate.a1_systems import SYSTEMS
from jaxspec.evaluate.arbitrage_demo import POLICIES, RATES
from jaxspec.evaluate.frontier import FrontierPoint
from jaxspec.evaluate.jacobi_demo import JacobiDemoRow
from jaxspec.tasks.task import find_task
from jaxspec.train.forward import init_params
from jaxspec.train.run import ModelShape
from jaxspec.weights.save import save_model

ROOT = Path(__file__).parents[2]


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


def printed(capsys, monkeypatch, *arguments: str):
    """The one JSON object a demo of the committed checkpoints prints."""
    monkeypatch.chdir(ROOT)
    assert main(["demo", *arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("}\n") and out.count("\n") == 1
    return json.loads(out)


@pytest.mark.slow
def test_a1_holds_its_rate_and_keeps_lanes_busier_than_lockstep(capsys, monkeypatch) -> None:
    found = printed(capsys, monkeypatch, "a1", "--questions", "16", "--samples", "8", "--reject-rate", "0.4")
    assert set(found) == {"rows", "task", "seed"} and (found["task"], found["seed"]) == ("arithmetic", 0)
    rows = {row["system"]: row for row in found["rows"]}
    assert tuple(rows) == SYSTEMS
    for row in rows.values():
        assert set(row) == {
            "system", "questions", "samples", "reject_rate", "accuracy", "target_tokens", "draft_tokens",
            "target_read", "tokens", "ticks", "lane_utilisation", "seconds", "seconds_before", "samples_a_second",
        }  # fmt: skip
        assert (row["questions"], row["samples"]) == (16, 8)
        lanes = row["lane_utilisation"]
        assert set(lanes) == {"busy", "waiting", "empty", "draft", "target", "most_with_target"}
        assert lanes["busy"] + lanes["waiting"] + lanes["empty"] == pytest.approx(1.0)
        low, high = row["accuracy"]["mean_interval"]
        assert 0 < low <= row["accuracy"]["mean"] <= high < 1
        assert set(row["accuracy"]["pass_at_k"]) == {"1", "2", "4", "8"}
    for name in ("a1", "a1_resample"):
        rate = rows[name]["reject_rate"]
        assert set(rate) == {"wanted", "overall", "interval", "decisions", "by_turn", "by_question"}
        assert rate["wanted"] == 0.4 and abs(rate["overall"] - 0.4) < 0.05 and rate["decisions"] > 300
        assert sum(turn["decisions"] for turn in rate["by_turn"].values()) == rate["decisions"]
        assert 0 < rows[name]["target_tokens"] < rows["target_only"]["target_tokens"]
    assert rows["draft_only"]["reject_rate"] is None and rows["draft_only"]["target_tokens"] == 0
    assert rows["target_only"]["reject_rate"] is None and rows["target_only"]["draft_tokens"] == 0
    a1, lockstep = (rows[name]["lane_utilisation"] for name in ("a1", "synchronous"))
    assert a1["busy"] > lockstep["busy"] + 0.1 and a1["waiting"] < lockstep["waiting"]


@pytest.mark.slow
def test_arbitrage_answers_better_than_the_draft_for_fewer_tokens_of_the_target(capsys, monkeypatch) -> None:
    found = printed(capsys, monkeypatch, "arbitrage", "--problems", "60")
    assert set(found) == {"policies", "problems", "seed"} and (found["problems"], found["seed"]) == (60, 0)
    policies = found["policies"]
    assert tuple(policies) == POLICIES
    for points in policies.values():
        for point in points:
            assert set(point) == set(FrontierPoint._fields) - {"policy"}
            assert 0 <= point["low"] <= point["accuracy"] <= point["high"] <= 1
            assert 0 <= point["escalation"] <= 1
    (draft,), (target,) = policies["draft_only"], policies["target_only"]
    assert (draft["escalation"], draft["target_tokens"]) == (0, 0) and target["escalation"] == 1
    routed = policies["arbitrage"]
    assert [point["escalation"] for point in routed] == pytest.approx(RATES, abs=0.06)
    best = max(routed, key=lambda point: point["accuracy"])
    assert best["accuracy"] > draft["accuracy"] + 0.1 and best["target_tokens"] < target["target_tokens"] / 2
