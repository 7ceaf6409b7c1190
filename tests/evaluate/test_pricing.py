"""Prices of passes and drafting: times taken in turns, of what they say they are."""

import numpy as np
import pytest
from toy_model import toy_model

from jaxspec import drafters
from jaxspec.evaluate import pricing
from jaxspec.evaluate.pricing import CostTable, measure_prices, seconds_of
from jaxspec.evaluate.recording import Recording, record
from jaxspec.evaluate.replay import Replay, replay

COPY = drafters.mix(drafters.suffix(width=4), budget=4, widths=(0, 4))


@pytest.fixture(scope="module")
def kept() -> Recording:
    rng = np.random.default_rng(1)
    return record(toy_model(0), [rng.integers(0, 7, 12).tolist() for _ in range(2)], 16, top=4)


def test_costs_between_widths_lie_on_a_line() -> None:
    table = CostTable((0, 4, 8), (1.0, 2.0, 6.0))
    assert [table.at(nodes) for nodes in (0, 1, 4, 6, 8)] == [1.0, 1.25, 2.0, 4.0, 6.0]
    with pytest.raises(ValueError, match="9 draft nodes is wider than the widest measured, 8"):
        table.at(9)


def test_seconds_are_passes_at_their_cost(kept: Recording) -> None:
    statistics = replay(kept, drafters.autoregressive()).statistics
    passes = Replay(statistics, {0: 3, 4: 2}, True, 0.0)
    costs = CostTable((0, 4), (1.0, 5.0))
    assert seconds_of(passes, costs) == 3 * 1.0 + 2 * 5.0
    assert seconds_of(passes, costs, {0: 0.5, 4: 2.0}) == 3 * 1.5 + 2 * 7.0


def test_prices_are_times(kept: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "ROUNDS", 1)
    tree = drafters.token_recycling(nodes=5, branches=2, start="empty")
    prices = measure_prices(toy_model(0), kept, {"copy": drafters.suffix(width=4), "tree": tree})
    assert set(prices.passes) == {0, 2}
    for table in prices.passes.values():
        assert table.nodes == (0, 1, 3, 5) and min(table.seconds) > 0
    assert {name: set(by_width) for name, by_width in prices.drafting.items()} == {"copy": {4}, "tree": {5}}
    assert all(0 <= seconds < 1 for by_width in prices.drafting.values() for seconds in by_width.values())


def test_prices_are_taken_in_turns_and_drafting_without_what_reads_prompts(kept, monkeypatch) -> None:
    nothing = replay(kept, drafters.autoregressive()).statistics
    asked = []

    def seconds_a_pass(job, index):
        asked.append(index)
        return 7.0 + index + 100.0 * (len(asked) <= 5)  # the first round compiles

    def scripted_replay(text, drafter, lm, lanes, step_seconds):
        assert text.texts == 1 and lanes is None
        width = drafter.widths[int(np.argmin(step_seconds))]
        passes = int((text.end - text.prompt_length).sum())
        blank = isinstance(drafter, pricing.Blank)
        asked.append("blank" if blank else width)
        return Replay(nothing, {width: passes}, True, passes * 2.0 if blank else 100.0 + passes * (2.0 + 0.25 * width))

    monkeypatch.setattr(pricing, "replay", scripted_replay)
    monkeypatch.setattr(pricing.cost, "seconds_a_pass", seconds_a_pass)
    prices = measure_prices(toy_model(0), kept, {"copy": COPY})
    assert prices.drafting == {"copy": {0: 0.0, 4: 1.0}}
    assert prices.passes == {0: CostTable((0, 1, 3, 4), (7.0, 8.0, 9.0, 10.0))}
    assert asked == [0, 1, 2, 3, "blank", "blank", 0, 0, 4, 4] * (pricing.ROUNDS + 1)


def test_lanes_that_draft_together_are_timed_together(kept, monkeypatch) -> None:
    nothing = replay(kept, drafters.autoregressive()).statistics
    texts = []

    def scripted_replay(text, drafter, lm, lanes, step_seconds):
        texts.append((text.prompts(), lanes))
        passes = int(text.end[0] - text.prompt_length[0])
        own = 0.0 if isinstance(drafter, pricing.Blank) else 3.0
        return Replay(nothing, {4: passes}, True, 100.0 + passes * (2.0 + own))

    monkeypatch.setattr(pricing, "replay", scripted_replay)
    monkeypatch.setattr(pricing.cost, "seconds_a_pass", lambda job, index: 1.0 * job.shape.lanes)
    prices = measure_prices(toy_model(0), kept, {"copy": COPY}, lanes=3)
    assert prices.drafting == {"copy": {0: 3.0, 4: 3.0}}
    assert prices.passes[0].seconds == (3.0,) * 4
    assert all(lanes == 3 and prompts == [kept.prompts()[0]] * 3 for prompts, lanes in texts)
