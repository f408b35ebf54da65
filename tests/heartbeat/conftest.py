from __future__ import annotations

from pathlib import Path

import pytest

from tests.heartbeat.commands import SALT


@pytest.fixture
def salt_file(tmp_path: Path) -> Path:
    """A salt that only its owner can read, in a folder of its own."""
    (tmp_path / "secrets").mkdir()
    path = tmp_path / "secrets" / "heart_salt"
    path.write_text(SALT + "\n")
    path.chmod(0o600)
    return path
