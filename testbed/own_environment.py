"""Virtual environments for programs of others whose dependencies exclude ours, each built once into a cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def python_of(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the interpreter of an environment is, or would be."""
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ecg-anonymizer" / name / "bin" / "python"


def build(python: Path, requirements: Sequence[str]) -> None:
    """Make the environment; a half-made one is never left under its name.

    Args:
        python: Where its interpreter will be.
        requirements: What pip installs into it.

    Raises:
        CalledProcessError: It could not be made, for example because there is no package index.
    """
    target = python.parent.parent
    making = target.with_name(f"{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(making)], check=True)
        install = [str(making / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *requirements], check=True)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
