"""The programs that some of these tests run, found where they are usually installed, or the test skipped with a line that says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

#: None of them takes longer, even on a busy machine. In seconds.
TIMEOUT_S = 120


def needed(name: str, *, install_with: str) -> str:
    """Return the path of a program: beside this Python, or on the PATH.

    Raises:
        pytest.skip.Exception: It is not installed.
    """
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which(name, path=search)
    if found is None:
        pytest.skip(f"NOT CHECKED: {name} is not installed; {install_with}")
    return found


def run(
    command: Sequence[str], *, cwd: Path | None = None, said: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program with `said` on its standard input; never raises for its exit code."""
    return subprocess.run(
        list(command),
        cwd=cwd,
        input=said,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
    )
