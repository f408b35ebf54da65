"""Calls of the operating system that fail in a real process: which, and with what, is said from outside."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EINTR, EINVAL, EIO, EMFILE, ENOSPC, EROFS, ESTALE
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("calls") / "fail_calls.c"

#: What a disk, a share or a process's limits answer when they fail for a moment or for good.
CODES = (EIO, ENOSPC, EMFILE, EACCES, EROFS, EINVAL, ESTALE, EINTR, EDQUOT)


def built(folder: Path) -> Path:
    """Compile the library that makes calls fail; skips where that cannot be done."""
    library = folder / "fail_calls.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("NOT TESTED: calls can be made to fail on Linux, with a C compiler: apt-get install gcc")
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return library


@dataclass(frozen=True)
class FailingCalls:
    """What a process is started with.

    Args:
        library: As built.
        folders: Only calls on files below these fail.
        notes: Where every call that failed is noted.
    """

    library: Path
    folders: Sequence[Path]
    notes: Path

    def always(self, call: str, code: int, text: str = "") -> dict[str, str]:
        """Return the environment of a process in which every call of a kind fails whose path holds the text."""
        return {**self._environment(), "FAIL_ALWAYS": f"{call}:{code}:{text}"}

    def at_random(self, chance: random.Random, *, one_in: float) -> dict[str, str]:
        """Return the environment of a process in which one of so many calls fails, whichever it is, with one of CODES."""
        at, lines = 0, []
        while at < 20_000:
            at += 1 + int(chance.expovariate(1 / one_in))
            lines.append(f"{at} {chance.choice(CODES)}\n")
        plan = self.notes.with_suffix(".plan")
        plan.write_text("".join(lines), encoding="ascii")
        return {**self._environment(), "FAIL_PLAN": str(plan)}

    def failed(self) -> list[str]:
        """Return the calls that failed in all processes so far, each as `number kind errno path`."""
        return self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []

    def _environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "FAIL_UNDER": ":".join(map(str, self.folders)),
            "FAIL_NOTES": str(self.notes),
        }
