"""What a training run reports: every step's numbers as JSON lines in its folder, and a line of progress on stderr."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO


class MetricsLog:
    """Appends to a file of JSON lines, one `{"step": ..., ...}` each, and writes progress now and then."""

    def __init__(self, path: Path, step: int, steps: int, every: int, stream: TextIO | None = None) -> None:
        """Opens the log of a run.

        Args:
          path: of the file; lines beyond `step`, of a run that went on after its last checkpoint, are dropped.
          step: from which the run goes on.
          steps: of the whole run.
          every: steps between lines of progress; 0 for none.
          stream: to write progress to, stderr when None.
        """
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _is_before(line, step)]
            path.write_text("".join(f"{line}\n" for line in kept))
        # Line by line, so that the log of a killed run reaches as far as its last checkpoint.
        self._file = path.open("a", buffering=1)
        self._stream = sys.stderr if stream is None else stream
        self._first, self._steps, self._every = step, steps, every
        self._begun = time.perf_counter()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the numbers of the step that made `step` steps complete."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._every and (step % self._every == 0 or step == self._steps):
            self._progress(step, metrics)

    def say(self, message: str) -> None:
        """Writes a message on a line of its own."""
        print(message, file=self._stream, flush=True)

    def close(self) -> None:
        self._file.close()

    def _progress(self, step: int, metrics: Mapping[str, float]) -> None:
        seconds = (time.perf_counter() - self._begun) / (step - self._first)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        left = (self._steps - step) * seconds
        self.say(f"step {step}/{self._steps}  {shown}  {seconds:.2f} s a step, {left / 60:.1f} min left")


def _is_before(line: str, step: int) -> bool:
    """Whether a line is whole, which the last one of a killed run need not be, and of no later step."""
    try:
        return json.loads(line)["step"] <= step
    except ValueError:
        return False


def read_metrics(path: str | Path, last: int | None = None) -> list[dict[str, float]]:
    """The lines of a log, in order; only whole ones of steps up to `last`, if it is given."""
    lines = Path(path).read_text().splitlines()
    return [json.loads(line) for line in lines if last is None or _is_before(line, last)]
