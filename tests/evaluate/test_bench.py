"""Rows of a comparison: what they are compared with, and what differing ids do to them."""

import dataclasses
import importlib
from pathlib import Path

import pytest

import jaxspec
from jaxspec.drafters.context_ngram import context_ngram
from jaxspec.evaluate.bench import PeerRun, bench

PROMPTS = ["one two one two one", "a b c a b c a"]
TOKENS = 10


@pytest.fixture(scope="module")
def lm(tiny_model_folder):
    return jaxspec.load(tiny_model_folder, dtype="float32")


def peer(lm, seconds: float, wrong: bool = False):
    """Decodes as the model does, but for the last id if `wrong`, and says how long it took."""

    def run(ids, max_new_tokens) -> PeerRun:
        said = jaxspec.generate(lm, list(ids), max_new_tokens=max_new_tokens).ids[0]
        return PeerRun([*said[:-1], said[-1] ^ wrong], len(said), seconds)

    return run


def test_peers_and_drafters_stand_beside_plain_decoding(lm) -> None:
    peers = {"slow": peer(lm, 1e9), "wrong": peer(lm, 1.0, wrong=True)}
    rows = bench(lm, PROMPTS, {"copy": context_ngram(3)}, max_new_tokens=TOKENS, rounds=2, peers=peers)
    copy, slow, wrong = rows
    assert [row.drafter for row in rows] == ["copy", "slow", "wrong"]
    assert copy.identical and copy.same == 1 and copy.speed_ratio is not None and copy.prompts == len(PROMPTS)
    assert slow.identical and slow.tokens_per_call == 1.0 and slow.speed_ratio is not None and slow.speed_ratio < 1e-3
    assert not wrong.identical and wrong.same == 0 and wrong.speed_ratio is None


def test_prompts_without_a_time_are_left_out(lm) -> None:
    """As of a peer that said all of an answer while it read the prompt."""
    first = lm.tokenizer.encode(PROMPTS[0])

    def partly(ids, max_new_tokens) -> PeerRun:
        run = timed(ids, max_new_tokens)
        return run._replace(seconds=0.0) if list(ids) == first else run

    timed = peer(lm, 1e9)
    never, some, all_of_them = bench(
        lm, PROMPTS, {}, max_new_tokens=TOKENS, peers={"never": peer(lm, 0.0), "some": partly, "all": timed}
    )
    assert never.identical and never.speed_ratio is None
    assert some.identical and 0 < some.speed_ratio < 2 * all_of_them.speed_ratio < 1e-3


@pytest.mark.parametrize(
    ("times", "counts", "seconds"),
    [
        ([3.0, 4.0, 6.0, 7.0], [1, 1, 1, 1], 4 / 3 * 4.0),
        ([3.0, 7.0], [2, 3], 5 / 3 * 4.0),
        ([3.0], [1], 0.0),
    ],
)
def test_passes_of_hugging_face_are_all_counted(monkeypatch, times, counts, seconds) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    run = importlib.import_module("huggingface").run_of(list(range(sum(counts))), times, counts)
    assert run.calls == len(counts) and run.seconds == pytest.approx(seconds)


def test_other_precisions_decode_too_and_are_compared_with_themselves(lm, tiny_model_folder) -> None:
    low = jaxspec.load(tiny_model_folder, dtype="bfloat16")
    rows = bench(lm, PROMPTS, {"copy": context_ngram(3)}, max_new_tokens=TOKENS, also=[low])
    assert [row.drafter for row in rows] == ["copy", "copy, bfloat16", "plain, bfloat16"]
    plain = rows[-1]
    assert plain.identical and plain.tokens_per_call == 1.0 and 0 < plain.speed_ratio <= 1
    drafted = rows[1]
    expected = jaxspec.generate(low, PROMPTS, max_new_tokens=TOKENS).ids
    found = jaxspec.generate(low, PROMPTS, drafter=context_ngram(3), max_new_tokens=TOKENS).ids
    assert drafted.same == sum(a == b for a, b in zip(found, expected, strict=True)) / len(PROMPTS)
    assert drafted.speed_ratio is not None and drafted.speed_ratio > 0


def test_prompts_may_share_a_job(lm, monkeypatch) -> None:
    module, jobs, steps = importlib.import_module("jaxspec.evaluate.bench"), [], []

    def generate(lm, prompts, **options):
        jobs.append((len(prompts), options["lanes"]))
        return dataclasses.replace(jaxspec.generate(lm, prompts, **options), decode_seconds=4.0)

    monkeypatch.setattr(module, "generate", generate)
    copy = {"copy": context_ngram(3)}
    (row,) = bench(lm, PROMPTS, copy, max_new_tokens=TOKENS, rounds=2, lanes=2, advance=lambda: steps.append(1))
    assert jobs == [(1, 2)] * 2 + [(2, 2)] * 4 and len(steps) == 4  # the first compile
    assert row.tokens_per_second == row.tokens / 4.0 and row.speed_ratio == 1.0
    jobs.clear()
    (alone,) = bench(lm, PROMPTS, copy, max_new_tokens=TOKENS)
    assert jobs == [(1, None)] * 6 and alone.tokens_per_second == row.tokens / 8.0
    assert row._replace(tokens_per_second=None) == alone._replace(tokens_per_second=None)


def test_peers_take_one_prompt_at_a_time(lm) -> None:
    with pytest.raises(ValueError, match="lanes=2 with peers: other decoders take one prompt at a time"):
        bench(lm, PROMPTS, {}, max_new_tokens=TOKENS, lanes=2, peers={"slow": peer(lm, 1.0)})


def test_plain_is_shown_when_it_is_asked_for(lm) -> None:
    (row,) = bench(lm, PROMPTS[:1], {"plain": context_ngram(3)}, max_new_tokens=TOKENS)
    assert row.drafter == "plain" and row.tokens_per_call == 1.0 and row.speed_ratio == 1.0


@pytest.mark.parametrize("setting", ["rounds", "max_new_tokens"])
def test_nothing_to_compare_is_refused(lm, setting) -> None:
    with pytest.raises(ValueError, match=f"{setting}=0 is below 1"):
        bench(lm, PROMPTS, {}, **({"max_new_tokens": 1} | {setting: 0}))
