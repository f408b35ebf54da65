"""Where pyCANON comes from, the checker of others that ours is compared with: an environment of its own, built once into a cache.

It cannot live in the project's: every release since 1.0.3 pins one exact version of numpy, older than the one our service needs.
Build it with `python -m tests.scripts.pycanon_program`: half a minute, 0.4 GB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

VERSION = "1.3.6"

HOW_TO_GET_IT = "python -m tests.scripts.pycanon_program"

#: Asks for the k of each window: column `window` says which rows belong together, `ecg` is what may identify.
QUESTION = """
import json, sys
import pandas
from pycanon import anonymity
rows = pandas.read_csv(sys.argv[1])
print(json.dumps({int(window): int(anonymity.k_anonymity(of_window.reset_index(drop=True), ["ecg"]))
                  for window, of_window in rows.groupby("window")}))
"""


def python_of_pycanon(environment: Mapping[str, str]) -> Path:
    """Return where its interpreter is, or would be."""
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ecg-anonymizer" / f"pycanon-{VERSION}" / "bin" / "python"


def find_pycanon() -> Path:
    """Return its interpreter. Without one, CI builds it, and elsewhere the test is skipped."""
    python = python_of_pycanon(os.environ)
    if not python.exists():
        if not os.environ.get("CI"):
            pytest.skip(f"NOT TESTED against pyCANON; get it with: {HOW_TO_GET_IT}")
        build(python)
    return python


def build(python: Path) -> None:
    """Make the environment; a half-made one is never left under its name."""
    target = python.parent.parent
    making = target.with_name(f"{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(making)], check=True)
        install = [str(making / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"pycanon=={VERSION}"], check=True)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)


if __name__ == "__main__":
    build(python_of_pycanon(os.environ))
