"""Compares pairs of answers with math-verify, one JSON line in, one out; a program of its own, run by `math_verifier`.

Answers come from a model and are parsed as programs are: memory is bounded, and whoever starts this bounds the time.
"""

import contextlib
import json
import os
import resource
import sys

MEMORY = 4 * 2**30  # bytes of address space


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    with contextlib.suppress(ValueError, OSError):  # a lower limit is already set, or the system has none
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        from math_verify import parse, verify  # type: ignore[import-not-found]
    except ImportError:
        print(json.dumps({"ready": False}), file=answers)
        return
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        pair = json.loads(line)
        try:
            reference, answer = (parse("\\boxed{" + pair[name] + "}") for name in ("reference", "answer"))
            correct = bool(verify(reference, answer))
        except Exception:  # of any of the libraries below: the pair cannot be compared
            correct = None
        print(json.dumps({"correct": correct}), file=answers)


if __name__ == "__main__":
    main()
