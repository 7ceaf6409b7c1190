"""The demonstration's arithmetic and its comparison, with decoding replaced by a script of results."""

import dataclasses
import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from jaxspec import drafters
from jaxspec.evaluate import demo, demo_report
from jaxspec.tasks.demo_prompts import PROMPTS, DemoPrompt

PROMPT = DemoPrompt("chat", "greeting", "hello")
LM = SimpleNamespace(
    name="toy",
    config=SimpleNamespace(vocabulary=256, context=64),
    tokenizer=SimpleNamespace(has_chat_template=False, encode=lambda text: list(text.encode())),
)


@dataclasses.dataclass
class Script:
    """Stands in for `generate`: hands out prepared decode times and ids, and records the order of calls."""

    plain_seconds: list[float]
    drafted_seconds: list[float]
    drafted_ids: list[list[int]]
    calls: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, lm, prompts, *, drafter, max_new_tokens, cache):
        assert cache >= len(prompts) + max_new_tokens
        plain = drafter == drafters.autoregressive()
        self.calls.append("plain" if plain else "drafted")
        turn = self.calls.count(self.calls[-1]) - 2  # the first call of each is the warm-up
        times = self.plain_seconds if plain else self.drafted_seconds
        return SimpleNamespace(
            ids=[[1, 2, 3]] if plain or turn < 0 else [self.drafted_ids[turn]],
            texts=["abc"],
            decode_seconds=1e9 if turn < 0 else times[turn],
            statistics=SimpleNamespace(tokens=3, tokens_per_call=1.0 if plain else 1.5),
        )


def compare(monkeypatch, script):
    monkeypatch.setattr(demo, "generate", script)
    drafter = drafters.context_ngram(width=2)
    return list(demo.compare(LM, [PROMPT], drafter, "ngram", max_new_tokens=3, rounds=3))


def test_ratio_of_medians_without_the_warm_up(monkeypatch):
    script = Script([9.0, 4.0, 5.0], [2.0, 1.0, 100.0], [[1, 2, 3]] * 3)
    (row,) = compare(monkeypatch, script)
    assert row == demo.Row("chat", "greeting", "hello", "ngram", "abc", 3, 1.5, 2.5, True)
    assert script.calls == ["plain", "drafted"] * 4


@pytest.mark.parametrize("turn", range(3))
def test_one_different_run_is_not_identical(monkeypatch, turn):
    ids = [[1, 2, 3]] * 3
    ids[turn] = [1, 2, 4]
    (row,) = compare(monkeypatch, Script([1.0] * 3, [1.0] * 3, ids))
    assert not row.identical


@pytest.mark.parametrize("settings", [{"rounds": 0, "max_new_tokens": 4}, {"rounds": 1, "max_new_tokens": 0}])
def test_nothing_to_compare_is_refused(settings):
    with pytest.raises(ValueError, match="=0 is below 1"):
        list(demo.compare(LM, [PROMPT], drafters.autoregressive(), "plain", **settings))


def row(kind, tokens_per_call, speed_ratio, identical=True):
    return demo.Row(kind, "title", "prompt", "ngram", "text", 8, tokens_per_call, speed_ratio, identical)


def test_summary_takes_medians_by_kind_and_over_all():
    rows = [row("code", 1.0, 0.5), row("code", 3.0, 1.5), row("chat", 5.0, 4.0, identical=False)]
    assert demo.summarise(rows) == [
        demo.Summary("code", 2, 2.0, 1.0, True),
        demo.Summary("chat", 1, 5.0, 4.0, False),
        demo.Summary("all", 3, 3.0, 1.5, False),
    ]


def test_report_says_yes_and_no():
    rows = [row("code", 1.0, 0.5), row("chat", 5.0, 4.0, identical=False)]
    screen = Console(file=io.StringIO(), width=120)
    for item in rows:
        demo_report.print_row(item, screen)
    demo_report.print_summary(rows, "toy", 1.0, screen)
    shown = screen.file.getvalue()
    assert "identical to plain decoding: yes" in shown
    assert "identical to plain decoding: NO" in shown
    assert set(demo_report.row_object(rows[0])) == {
        "prompt", "drafter", "tokens", "tokens_per_call", "speed_ratio", "identical"
    }  # fmt: skip


def test_three_prompts_of_each_kind():
    assert [prompt.kind for prompt in PROMPTS] == [
        kind for kind in ("code", "chat", "editing", "arithmetic") for _ in range(3)
    ]
    assert len({prompt.text for prompt in PROMPTS}) == len(PROMPTS)


def test_a_model_without_a_tokenizer_is_refused():
    lm = SimpleNamespace(**{**vars(LM), "tokenizer": None})
    with pytest.raises(ValueError, match="prompt 0 is text but toy has no tokenizer"):
        list(demo.compare(lm, [PROMPT], drafters.autoregressive(), "plain", max_new_tokens=4, rounds=1))
