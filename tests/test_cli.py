"""The command line on a tiny random model: what goes to which stream, exit codes, one-line errors."""

import dataclasses
import io
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxspec
from jaxspec import cli
from jaxspec.drafters.spec import parse_drafter
from jaxspec.evaluate import demo, demo_command

ROOT = Path(__file__).parents[1]
ARITHMETIC = "checkpoints/arithmetic"
PROMPTS = ["the cat sat on", "def add(a, b):", "one two three"]


@pytest.fixture(scope="module")
def lm(tiny_model_folder):
    return jaxspec.load(str(tiny_model_folder), dtype="float32")


@pytest.fixture
def run(capsys, monkeypatch, lm, tiny_model_folder):
    """Runs one command in this process; gives exit code, standard output and standard error."""
    load = jaxspec.load
    monkeypatch.setattr(
        jaxspec,
        "load",
        lambda name, **options: lm if name == str(tiny_model_folder) else load(name, **options),
    )

    def call(*arguments):
        code = cli.main([argument.replace("MODEL", str(tiny_model_folder)) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def generate(*arguments):
    return ("generate", "--model", "MODEL", "--max-new-tokens", "12", *arguments)


def bench(drafter, model="MODEL", prompts="FILE"):
    return ("bench", "--model", model, "--prompts", prompts, "--drafter", drafter, "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def plain(lm):
    """What the library makes of the prompts, plainly; on one lane as below, to compile few programs."""
    return jaxspec.generate(lm, PROMPTS, max_new_tokens=12, lanes=1)


def test_json_is_one_object_with_the_ids_of_the_library(run, plain, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    code, out, _ = run(*generate("--prompts", str(file), "--json", "--lanes", "1"))
    assert code == 0
    assert out.endswith("}\n") and out.count("\n") == 1
    written = json.loads(out)
    assert [result["prompt"] for result in written["results"]] == PROMPTS
    assert [result["ids"] for result in written["results"]] == plain.ids
    assert [result["text"] for result in written["results"]] == plain.texts
    assert [result["finish"] for result in written["results"]] == plain.finish
    assert written["drafter"] == cli.DEFAULT_DRAFTER
    assert written["statistics"]["tokens"] == sum(result["tokens"] for result in written["results"])
    assert written["statistics"]["drafted"] > 0
    assert written["complete"] and written["lossless"]
    assert [result["index"] for result in written["results"]] == [0, 1, 2]


def test_text_of_one_prompt(run, plain):
    code, out, err = run(*generate("--prompt", PROMPTS[0]))
    assert (code, out) == (0, plain.texts[0] + "\n")
    assert "a call" in err


def test_several_prompts_are_told_apart(run, plain):
    code, out, _ = run(*generate("-p", PROMPTS[0], "-p", PROMPTS[1], "--lanes", "1"))
    first, second, _ = plain.texts
    assert (code, out) == (0, f"--- prompt 1 of 2 ---\n{first}\n--- prompt 2 of 2 ---\n{second}\n")


def test_every_setting_arrives(run, plain, monkeypatch):
    received = {}

    def record(lm, prompts, **settings):
        received.update(settings, prompts=prompts)
        return plain

    monkeypatch.setattr(jaxspec, "generate", record)
    numbers = {
        "max_new_tokens": 7,
        "temperature": 0.9,
        "top_p": 0.8,
        "top_k": 40,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "seed": 5,
        "lanes": 3,
        "cache": 256,
    }
    options = [part for key, value in numbers.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    stops = ("--stop", "end", "--stop", r"\n\n", "--stop", r"\\n")
    drafter = ("--drafter", "context_ngram:width=3,query=2")
    code, _, _ = run("generate", "--model", "MODEL", "-p", "a", "--chat", "--strict", *options, *stops, *drafter)
    assert code == 0
    del received["progress"], received["on_result"]
    assert received == numbers | {
        "prompts": ["a"],
        "chat": True,
        "strict": True,
        "stop": ["end", "\n\n", r"\n"],
        "drafter": jaxspec.drafters.context_ngram(width=3, query=2),
    }


def test_streaming_prints_the_same_text(run, plain):
    code, out, _ = run(*generate("-p", PROMPTS[1], "--stream"))
    assert (code, out) == (0, plain.texts[1] + "\n")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), cli.DEFAULT_DRAFTER),
        (("--strict",), cli.STRICT_DRAFTER),
        (("--strict", "-d", "plain"), "plain"),
    ],
)
def test_the_drafter_of_who_names_none(run, plain, monkeypatch, options, expected):
    received = {}
    monkeypatch.setattr(jaxspec, "generate", lambda *_, **settings: received.update(settings) or plain)
    code, out, _ = run(*generate("-p", "a", "--json", *options))
    assert code == 0
    assert json.loads(out)["drafter"] == expected and received["drafter"] == parse_drafter(expected)
    assert received["drafter"].is_chain or not received["strict"]


@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_logits_that_were_not_finite_are_told(run, lm, monkeypatch, how):
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, lm.params)
    monkeypatch.setattr(jaxspec, "load", lambda *_, **__: dataclasses.replace(lm, params=params))
    code, out, err = run(*generate("-p", PROMPTS[0], *how))
    assert (code, out) == (0, "\n")
    assert "prompt 1 ended early: the model's logits were not finite" in err


def test_standard_input_is_one_prompt(run, plain, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPTS[2] + "\n"))
    code, out, _ = run(*generate())
    assert (code, out) == (0, plain.texts[2] + "\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "--model", "no-such-model", "-p", "a"), "no-such-model"),
        (("pull", "no-such-model"), "no-such-model"),
        (generate(), "standard input is empty"),
        (generate("-p", ""), "empty"),
        (generate("-p", "a", "--prompts", "b.jsonl"), "choose one"),
        (generate("--prompts", "missing.jsonl"), "missing.jsonl"),
        (generate("-p", "a", "--drafter", "unheard_of"), "unknown drafter 'unheard_of'"),
        (generate("-p", "a", "--drafter", "context_ngram:width=0"), "width=0"),
        (generate("-p", "a", "--temperature=-1"), "temperature=-1"),
        (generate("-p", "a", "--max-new-tokens=-1"), "max_new_tokens=-1"),
        (generate("-p", "a", "--top-p", "0"), "top_p=0"),
        (generate("-p", "a", "--stop", ""), "empty string"),
        (generate("-p", "a", "--lanes", "0"), "lanes=0"),
        (generate("-p", "a " * 3000), "tokens"),
        (generate("-p", "a", "--stream", "--json"), "choose one"),
        (generate("-p", "a", "-p", "b", "--stream"), "one prompt"),
        (generate("-p", "a", "--max-new-tokens", "many"), "--max-new-tokens"),
        (generate("-p", "a", "--wide"), "--wide"),
        (("launch",), "launch"),
        (("demo", "--model", "MODEL", "--rounds", "0"), "rounds=0"),
        (bench("nonsense"), "unknown drafter 'nonsense'"),
        (bench("ngrammys:k=0"), "k=0 is below 1"),
        (bench("best:budget=100"), "budget=100"),
        (bench("corpus:path=nowhere.txt"), "nowhere.txt does not exist"),
        (bench("plain", prompts="missing.jsonl"), "prompt file missing.jsonl does not exist"),
        (bench("plain", model=f"{ARITHMETIC}-reward"), "is a scoring model"),
        (("generate", "--model", f"{ARITHMETIC}-router", "-p", "1"), "is a scoring model"),
        (("demo", "jacobi", "--base", f"{ARITHMETIC}-draft"), "has 21 ids and the task has 237"),
        (("demo", "jacobi", "--n", "600", "--prompts", "1"), "n=600 needs passes of 600 tokens"),
        (("demo", "a1", "--reject-rate", "1.4"), "reject_rate=1.4"),
        (("demo", "a1", "--target", f"{ARITHMETIC}-reward"), "is a scoring model"),
        (("demo", "a1", "--draft", "checkpoints/text-to-sql"), "the target has 21 ids and the draft 237"),
        (("demo", "a1", "--samples", "2", "--target-lanes", "9"), "target_lanes=9 is not between 1 and lanes=4"),
        (("demo", "a1", "--samples", "2", "--lanes", "3"), "take 4 lanes"),
        (("demo", "a1", "--chunk", "300"), "steps of up to 300 tokens do not fit a cache of 256"),
        (("demo", "arbitrage", "--target", f"{ARITHMETIC}-draft"), "trained for another target"),
        (("demo", "arbitrage", "--router", f"{ARITHMETIC}-reward"), "holds no AdvantageRouter"),
    ],
)
def test_errors_are_one_line(run, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.chdir(ROOT)  # where the demos find their checkpoints
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n")
    code, out, err = run(*(argument.replace("FILE", str(file)) for argument in arguments))
    assert (code, out) == (cli.FAILED, "")
    assert err.startswith("jaxspec: ") and err.count("\n") == 1
    assert message in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(run):
    code, out, err = run(*generate("-p", "a", "--drafter", "unheard_of", "--debug"))
    assert (code, out) == (cli.FAILED, "")
    assert "Traceback" in err


def test_interrupt(run, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(jaxspec, "generate", interrupted)
    code, out, _ = run(*generate("-p", "a"))
    assert (code, out) == (cli.INTERRUPTED, "")


@pytest.fixture(params=[KeyboardInterrupt, RuntimeError("the device is lost")], ids=["interrupt", "failure"])
def ends_late(request, monkeypatch):
    """Generation ends when two of its prompts are finished; gives the exit code."""
    whole = jaxspec.generate

    def late(lm, prompts, *, on_result, **settings):
        whole(lm, prompts, **settings, on_result=lambda index, result: None if index == 1 else on_result(index, result))
        raise request.param

    monkeypatch.setattr(jaxspec, "generate", late)
    return cli.INTERRUPTED if request.param is KeyboardInterrupt else cli.FAILED


def test_finished_prompts_outlive_a_late_end(run, plain, ends_late, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    code, out, err = run(*generate("--prompts", str(file), "--json", "--lanes", "1"))
    written = json.loads(out)
    assert code == ends_late and out.count("\n") == 1 and not written["complete"]
    assert [(result["index"], result["prompt"]) for result in written["results"]] == [(0, PROMPTS[0]), (2, PROMPTS[2])]
    assert [result["ids"] for result in written["results"]] == [plain.ids[0], plain.ids[2]]
    assert written["statistics"]["tokens"] == len(plain.ids[0]) + len(plain.ids[2])
    assert written["decode_seconds"] is None
    assert ("the device is lost" in err) == (code == cli.FAILED)


def test_finished_texts_outlive_a_late_end(run, plain, ends_late):
    code, out, err = run(*generate(*(part for prompt in PROMPTS for part in ("-p", prompt)), "--lanes", "1"))
    assert code == ends_late
    assert out == f"--- prompt 1 of 3 ---\n{plain.texts[0]}\n--- prompt 3 of 3 ---\n{plain.texts[2]}\n"
    assert "2 of 3 prompts are finished" in err


def test_pull_prints_where_the_model_lies(run, monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(7))
    (tmp_path / "config.json").write_text("{}")
    places = {"owner/folder": tmp_path, "file": tmp_path / "model.safetensors"}
    monkeypatch.setattr(jaxspec, "pull", places.__getitem__)
    assert run("pull", "owner/folder") == (0, f"{tmp_path}\n", "")
    for name, files in (
        ("owner/folder", {"config.json": 2, "model.safetensors": 7}),
        ("file", {"model.safetensors": 7}),
    ):
        code, out, _ = run("pull", name, "--json")
        assert code == 0 and out.count("\n") == 1
        assert json.loads(out) == {"model": name, "path": str(places[name]), "files": files}


def test_no_arguments_show_help(run):
    code, out, _ = run()
    assert code == 0
    assert all(command in out for command in ("pull", "generate", "demo"))


@pytest.mark.parametrize("prompts", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_demo_json(run, monkeypatch, prompts):
    monkeypatch.setattr(demo_command, "PROMPTS", demo_command.PROMPTS[:prompts])
    code, out, _ = run("demo", "--model", "MODEL", "--max-new-tokens", "8", "--rounds", "1", "--json")
    assert code == 0
    assert out.count("\n") == 1
    written = json.loads(out)
    assert set(written) == {"rows", "model", "seconds"}
    assert len(written["rows"]) == prompts
    for row in written["rows"]:
        assert set(row) == {"prompt", "drafter", "tokens", "tokens_per_call", "speed_ratio", "identical"}
        assert row["identical"] is True
        assert row["tokens"] >= 1 and row["tokens_per_call"] >= 1 and row["speed_ratio"] > 0


def test_demo_fails_when_ids_differ(run, monkeypatch):
    rows = [demo.Row("chat", "title", "prompt", "ngram", "text", 8, 2.0, 1.5, identical) for identical in (True, False)]
    monkeypatch.setattr(demo, "compare", lambda *arguments, **options: iter(rows))
    code, out, _ = run("demo", "--model", "MODEL")
    assert code == cli.DIFFERENT
    assert "identical to plain decoding: NO" in out


def test_bench_compares_drafters_with_plain_decoding(run, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    code, out, _ = run(
        "bench", "--model", "MODEL", "--prompts", str(file), "--max-new-tokens", "12",
        "-d", "plain", "-d", "context_ngram:width=3", "--json",
    )  # fmt: skip
    assert code == 0
    plain, drafted = json.loads(out)["rows"]
    assert (plain["drafter"], plain["tokens_per_call"], plain["identical"]) == ("plain", 1.0, True)
    assert drafted["identical"] and drafted["tokens_per_call"] >= 1.0 and drafted["speed_ratio"] > 0
    assert drafted["prompts"] == 3 and set(drafted["sources"]) == {"context_ngram"}


def test_bench_prints_a_table(run, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n")
    code, out, _ = run(
        "bench", "--model", "MODEL", "--prompts", str(file), "--max-new-tokens", "8", "-d", "context_ngram:width=3"
    )
    assert code == 0
    assert out.startswith("| drafter | tokens / call |") and "| yes | context_ngram " in out


def test_bench_decodes_all_prompts_on_the_lanes_it_is_given(run, tmp_path, monkeypatch):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n")
    asked = []
    monkeypatch.setattr(cli, "bench_drafters", lambda *arguments, lanes, **settings: asked.append(lanes) or [])
    for more in ((), ("--lanes", "2")):
        assert run("bench", "--model", "MODEL", "--prompts", str(file), "-d", "plain", "--json", *more)[0] == 0
    assert asked == [None, 2]


@pytest.mark.parametrize(("samples", "ranked"), [("1", False), ("2", True)])
def test_one_sample_a_question_is_not_ranked(run, monkeypatch, samples: str, ranked: bool):
    asked = []
    monkeypatch.setattr(demo_command, "load_pair", lambda *models, **settings: (None, None))
    monkeypatch.setattr(
        demo_command.a1_demo, "run", lambda *arguments, systems, **settings: asked.append(systems) or {}
    )
    assert run("demo", "a1", "--samples", samples, "--json")[0] == 0
    assert ("synchronous" in asked[0]) == ranked and "a1" in asked[0]
