"""math-verify behind a guard: in a process of its own, with a time limit per pair and bounded memory."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

WORKER = Path(__file__).with_name("math_verify_worker.py")
START_SECONDS = 120.0  # for the imports


class MathVerifier:
    """Says whether two mathematical expressions are equal. Use as a context manager, or call `close`.

    Attributes:
      seconds: time limit of one comparison.
      failures: comparisons that ended in no verdict: out of time or memory, or not parsed.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        """Starts the process.

        Raises:
          ValueError: the time limit is not positive.
          ModuleNotFoundError: math-verify is not installed.
        """
        if not seconds > 0:
            raise ValueError(f"seconds={seconds} leaves no time to compare anything; give a positive number")
        self.seconds = seconds
        self.failures = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def equal(self, reference: str, answer: str) -> bool | None:
        """Whether `answer` equals `reference`, both without dollar signs or boxes; None for no verdict."""
        process = self._process or self._start()
        request = json.dumps({"reference": reference, "answer": answer}).encode() + b"\n"
        try:
            assert process.stdin is not None
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:
            reply = None
        else:
            reply = _read_line(process, self.seconds)
        if reply is None:
            self.close()  # the next comparison starts a new one
        correct = None if reply is None else reply["correct"]
        self.failures += correct is None
        return correct

    def close(self) -> None:
        """Ends the process and everything it started."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.communicate()
        self._process = None

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        reply = _read_line(self._process, START_SECONDS)
        if reply is None or not reply["ready"]:
            self.close()
            raise ModuleNotFoundError(
                "math-verify is not installed, or does not start; `pip install math-verify`, or grade without it"
            )
        return self._process


def _read_line(process: subprocess.Popen[bytes], seconds: float) -> dict | None:
    """The next line the process writes, or None if it ends or the time is over."""
    assert process.stdout is not None
    handle, text = process.stdout.fileno(), b""
    until = time.monotonic() + seconds
    while not text.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            return None
        chunk = os.read(handle, 4096)
        if not chunk:
            return None
        text += chunk
    return json.loads(text)
