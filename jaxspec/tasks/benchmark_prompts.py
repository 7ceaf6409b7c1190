"""Prompts of public data sets from local JSON lines, in the layouts they are published in.

The prompt is `prompt` (HumanEval), `question` (GSM8K), `problem` (MATH), `text` (MBPP) or the first of `turns`
(MT-bench, Spec-Bench), which come by `category`.
"""

from pathlib import Path

from jaxspec.tasks.json_lines import read_json_lines

RAW = ("prompt",)  # to be continued as it stands; the others are requests
ASKED = ("question", "problem", "text")
MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")


def read_benchmark(path: Path, limit: int) -> dict[str, tuple[list[str], bool]]:
    """The first `limit` prompts of every category, and whether they are requests (to be put into a chat template).

    A file whose rows have no category is one category, named after the file. The eight small categories Spec-Bench
    took from MT-bench are one, `mt_bench`, from which prompts are taken evenly.

    Raises:
      ValueError: `limit` is below 1, or a row has none of these layouts.
      OSError: the file cannot be read.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} is below 1; there would be no prompts")
    rows: dict[str, list[tuple[str, str]]] = {}
    requests: dict[str, bool] = {}
    for where, text, row in read_json_lines(path, "data file"):
        try:
            prompt, asked = _prompt(row)
        except (ValueError, AttributeError, IndexError):
            raise ValueError(f"{where} is not a row of a known data set: {text[:60]}") from None
        kind = str(row.get("category", path.stem))
        group = "mt_bench" if kind in MT_BENCH else kind
        rows.setdefault(group, []).append((kind, prompt))
        requests[group] = asked
    if not rows:
        raise ValueError(f"data file {path} holds no rows")
    return {group: (_evenly(listed, limit), requests[group]) for group, listed in rows.items()}


def _prompt(row: dict) -> tuple[str, bool]:
    """A row's prompt, and whether it is a request."""
    for key in (*RAW, *ASKED):
        if isinstance(row.get(key), str):
            return row[key], key in ASKED
    if row.get("turns") and isinstance(row["turns"][0], str):
        return row["turns"][0], True
    raise ValueError("no prompt")


def _evenly(listed: list[tuple[str, str]], limit: int) -> list[str]:
    """`limit` prompts, one of each kind in turn, in the order of the file."""
    seen: dict[str, int] = {}
    turns = []
    for place, (kind, prompt) in enumerate(listed):
        turns.append((seen.get(kind, 0), place, prompt))
        seen[kind] = seen.get(kind, 0) + 1
    return [prompt for _, _, prompt in sorted(turns)[:limit]]
