"""How the demonstration is shown: rows and a summary for people, plain objects for programs."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxspec.evaluate.demo import Row, summarise

JSON_FIELDS = ("prompt", "drafter", "tokens", "tokens_per_call", "speed_ratio", "identical")


def row_object(row: Row) -> dict[str, Any]:
    """A row as JSON."""
    return {field: getattr(row, field) for field in JSON_FIELDS}


def print_row(row: Row, screen: Console) -> None:
    """The text of one prompt and what it cost."""
    screen.rule(Text(f"{row.kind}: {row.title}"), align="left")
    screen.print(Text(row.text.strip()), soft_wrap=True)
    facts = (
        f"{row.tokens} tokens",
        f"{row.tokens_per_call:.2f} tokens per call",
        f"speed ratio {row.speed_ratio:.2f}",
        f"identical to plain decoding: {_yes(row.identical)}",
    )
    screen.print(Text(", ".join(facts), style="bold"), soft_wrap=True, end="\n\n")


def print_summary(rows: Sequence[Row], model: str, seconds: float, screen: Console) -> None:
    """Medians of every kind of prompt and of all."""
    lines = summarise(rows)
    table = Table(title=f"{rows[0].drafter} on {model}, medians", title_justify="left")
    table.add_column("prompts")
    for column in ("number", "tokens per call", "speed ratio", "identical to plain decoding"):
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(
            line.kind,
            str(line.rows),
            f"{line.tokens_per_call:.2f}",
            f"{line.speed_ratio:.2f}",
            _yes(line.identical),
            end_section=line is lines[-2],
        )
    screen.print(table)
    note = f"speed ratio: time of plain decoding over time with the drafter; all in {seconds:.0f} s"
    screen.print(note, style="dim", soft_wrap=True)


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
