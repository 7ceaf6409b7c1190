"""The guard around math-verify, with a stand-in for it that can hang, crash and print; and itself, where installed."""

import importlib.util
from pathlib import Path

import pytest

from jaxspec.tasks.grade import grade
from jaxspec.tasks.math_verifier import MathVerifier

STAND_IN = """
import os, time
def parse(text):
    print("noise")
    body = text[7:-1]
    if body == "crash":
        os._exit(3)
    if body == "raise":
        raise RuntimeError("cannot parse")
    while body == "hang":
        time.sleep(0.01)
    return body.lower()
def verify(reference, answer):
    return reference == answer
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("stand_in")
def test_a_pair_without_verdict_does_not_harm_the_next() -> None:
    with MathVerifier(seconds=60) as verifier:
        assert verifier.equal("A", "a") is True
        assert verifier.equal("A", "b") is False
        for failures, bad in enumerate(["raise", "hang", "crash"], start=1):
            verifier.seconds = 0.5 if bad == "hang" else 60
            assert verifier.equal("A", bad) is None
            assert verifier.failures == failures
            verifier.seconds = 60
            assert verifier.equal("A", "a") is True
        assert verifier.equal("a\nb", "A\nB") is True


@pytest.mark.usefixtures("stand_in")
def test_no_process_outlives_its_verifier() -> None:
    verifier = MathVerifier()
    process = verifier._process
    assert process is not None and process.poll() is None
    verifier.close()
    assert process.poll() is not None
    verifier.close()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="pip install math-verify"):
        MathVerifier()


def test_a_time_limit_must_leave_time() -> None:
    with pytest.raises(ValueError, match="seconds=0"):
        MathVerifier(seconds=0)


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed")
def test_the_real_one_knows_algebra() -> None:
    with MathVerifier(seconds=20) as verifier:
        for answer, reference, correct in [
            (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", True),
            (r"\boxed{\sqrt{8}}", r"3\sqrt{2}", False),
            (r"\boxed{x^2+2x+1}", r"(x+1)^2", True),
            (r"\boxed{\frac{\sqrt 3}{3}}", r"\frac{1}{\sqrt{3}}", True),
            (r"\boxed{[0,1)}", r"[0,1]", False),
        ]:
            assert grade(answer, reference, verifier).correct == correct, answer
