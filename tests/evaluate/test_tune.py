"""Tune prices replayed passes and names the fastest drafter; costs and drafting times are scripted here."""

import json

import numpy as np
import pytest
from toy_model import toy_model

import jaxspec
from jaxspec import drafters
from jaxspec.evaluate import tune as tuning
from jaxspec.evaluate import tune_command
from jaxspec.evaluate.pricing import CostTable, Prices
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.tune import TuneRow, choose, tune

NAMES = ("suffix:width=4", "context_ngram:width=3", "token_recycling:nodes=8,branches=4,start=empty")
CHEAP = CostTable((0, 4, 64), (1.0, 1.0, 1.0))
DEAR = CostTable((0, 4, 64), (1.0, 50.0, 800.0))


@pytest.fixture(scope="module")
def kept() -> Recording:
    rng = np.random.default_rng(1)
    return record(toy_model(0), [rng.integers(0, 7, 12).tolist() for _ in range(4)], 16, top=4)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch):
    """Sets what passes and drafting cost; nothing is timed."""

    def script(costs: CostTable, drafting: float | dict[int, float] = 0.0) -> None:
        def prices(lm, recording, named, lanes, progress) -> Prices:
            by_width = {
                name: drafting if isinstance(drafting, dict) else dict.fromkeys(drafter.widths, drafting)
                for name, drafter in named.items()
            }
            return Prices(dict.fromkeys({0} | {drafter.top for drafter in named.values()}, costs), by_width)

        monkeypatch.setattr(tuning, "measure_prices", prices)

    return script


def test_where_width_is_free_prediction_is_tokens_per_call(kept: Recording, scripted) -> None:
    scripted(CHEAP)
    report = tune(toy_model(0), kept.prompts(), NAMES, recording=kept)
    assert {row.drafter for row in report.rows} == set(NAMES)
    for row in report.rows:
        assert row.predicted == pytest.approx(row.tokens_per_call) and row.drafting == 0.0
        assert row.exact == ("token_recycling" not in row.drafter)
    assert [row.predicted for row in report.rows] == sorted((row.predicted for row in report.rows), reverse=True)
    assert report.choice == report.rows[0].drafter
    assert (report.prompts, report.tokens, report.disagreements) == (4, 64, 0)


def test_drafting_counts_and_wide_blocks_can_lose(kept: Recording, scripted) -> None:
    only = {"copy": drafters.suffix(width=4)}
    scripted(CHEAP, drafting=1.0)
    row = tune(toy_model(0), kept.prompts(), only, recording=kept).rows[0]
    assert row.predicted == pytest.approx(row.tokens_per_call / 2) and row.drafting == pytest.approx(0.5)
    assert row.nodes == 4.0
    scripted(DEAR)
    report = tune(toy_model(0), kept.prompts(), only, recording=kept)
    assert report.choice == "plain" and report.rows[0].predicted < 1


WIDTHS = {"copy": drafters.mix(drafters.suffix(width=4), budget=4, widths=(0, 4))}


@pytest.mark.parametrize(("drafting", "nodes"), [({0: 0.0, 4: 50.0}, 0.0), ({0: 0.5, 4: 0.0}, 4.0)])
def test_widths_are_chosen_with_drafting_and_charged_their_own(kept: Recording, scripted, drafting, nodes) -> None:
    scripted(CHEAP, drafting)
    row = tune(toy_model(0), kept.prompts(), WIDTHS, recording=kept).rows[0]
    assert row.nodes == nodes and row.drafting == 0.0
    assert row.predicted == pytest.approx(row.tokens_per_call) and (nodes > 0) == (row.predicted > 1.0)


def test_a_choice_goes_by_measurement_where_there_is_any() -> None:
    fast = TuneRow("fast", 3.0, 2.5, True, 4.0, 0.0)
    slow = TuneRow("slow", 2.0, 1.5, True, 4.0, 0.0)
    assert choose([fast, slow], confirmed=False) == "fast"
    assert choose([fast._replace(measured=1.2), slow._replace(measured=1.4)], confirmed=True) == "slow"
    assert choose([fast._replace(measured=0.9), slow], confirmed=True) == "plain"
    assert choose([fast, slow], confirmed=True) == "plain"  # no measurement counts where ids differed


def test_the_best_are_confirmed_by_decoding(kept: Recording, scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(CHEAP)
    ratios = {"suffix:width=4": 0.8, "context_ngram:width=3": 1.1}
    benched = []

    def bench(lm, prompts, chosen, *, max_new_tokens):
        benched.extend(chosen)
        assert prompts == kept.prompts() and max_new_tokens == 16
        return [tuning_row(name, ratios[name]) for name in chosen]

    def tuning_row(name, ratio):
        return type("Row", (), {"drafter": name, "speed_ratio": ratio})

    monkeypatch.setattr(tuning, "bench", bench)
    report = tune(toy_model(0), kept.prompts(), NAMES[:2], recording=kept, confirm=2)
    assert sorted(benched) == sorted(NAMES[:2]) and report.choice == "context_ngram:width=3"
    assert {row.drafter: row.measured for row in report.rows} == ratios


def test_mistakes_are_named(kept: Recording) -> None:
    with pytest.raises(ValueError, match="candidates is empty"):
        tune(toy_model(0), [[1]], ())
    with pytest.raises(ValueError, match="confirm=1 with lanes=2"):
        tune(toy_model(0), [[1]], NAMES, confirm=1, lanes=2)
    with pytest.raises(ValueError, match="unknown drafter 'suffixes'"):
        tune(toy_model(0), [[1]], ["suffixes"])


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, scripted):
    scripted(CHEAP)
    monkeypatch.setattr(jaxspec, "load", lambda name, dtype: toy_model(0))
    return tune_command.tune


def test_the_command_prints_one_object(command, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("abcabc", "gfedcba")))
    command(model="toy", prompts=file, drafter=list(NAMES), max_new_tokens=16, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["choice"] == printed["rows"][0]["drafter"] and printed["prompts"] == 2
    assert printed["costs"] == [{"nodes": nodes, "seconds": 1.0} for nodes in CHEAP.nodes]
    assert {row["drafter"]: row["exact"] for row in printed["rows"]} == dict(
        zip(NAMES, (True, True, False), strict=True)
    )


def test_the_command_prints_tables(command, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "abcabc"}\n')
    command(model="toy", prompts=file, drafter=list(NAMES), max_new_tokens=16)
    out, err = capsys.readouterr()
    assert "| draft nodes | ms a pass | of a plain pass |" in out and "| 64 | 1e+03 | 1 |" in out
    assert "| ~" in out and out.strip().endswith(tuple(f"choice: {name}" for name in (*NAMES, "plain")))
    assert "which replay cannot know" in err and "near ties" not in err
    with pytest.raises(ValueError, match="--drafter and --bigram were both given"):
        command(drafter=["suffix"], bigram=True)


def test_the_grids_can_be_parsed(command, monkeypatch: pytest.MonkeyPatch) -> None:
    # What reads the vocabulary comes first, so that `best` has its table in this run as in later ones.
    asked = []
    monkeypatch.setattr(tune_command, "tune_drafters", lambda lm, texts, names, **_: asked.extend(names) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(model="toy", bigram=True)
    assert asked == [*tune_command.BIGRAM_CANDIDATES, *tune_command.CONTEXT_CANDIDATES]
    for name in tune_command.CONTEXT_CANDIDATES + tune_command.BIGRAM_CANDIDATES:
        assert tuning.parse_drafter(name).nodes > 0
