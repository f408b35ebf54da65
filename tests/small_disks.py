"""File systems of their own, for what happens on a disk that is full, read-only or gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Let a file system in memory be in a folder's place, with options such as `size=1m`. Skips where that needs more rights."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip(f"NOT TESTED: mounting a file system needs more rights: {' '.join(command)}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a file system's options, such as to `ro`. It is busy while a file on it is being written."""
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    for _ in range(100):
        if not subprocess.run(command, check=False, capture_output=True).returncode:
            return
        time.sleep(0.05)
    subprocess.run(command, check=True)
