"""What tests of training share."""

import pytest


@pytest.fixture
def unmeasured(monkeypatch) -> None:
    """Decoding takes longer than training here, and says nothing of it."""
    monkeypatch.setattr("jaxspec.train.run_consistency._quality", lambda *arguments: [])
