from __future__ import annotations

import pytest


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of writes; whether they are on the disk is not the question."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
