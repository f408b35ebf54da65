"""Where pyCANON comes from, the checker of others that ours is compared with: an environment of its own, built once into a cache.

It cannot live in the project's: every release since 1.0.3 pins one exact version of numpy, older than the one our service needs.
Build it with `python -m tests.scripts.pycanon_program`: half a minute, 0.4 GB.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import own_environment

VERSION = "1.3.6"

_NAME = f"pycanon-{VERSION}"

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


def find_pycanon() -> Path:
    """Return its interpreter. Without one, CI builds it, and elsewhere the test is skipped."""
    python = own_environment.python_of(_NAME)
    if not python.exists():
        if not os.environ.get("CI"):
            pytest.skip(f"NOT TESTED against pyCANON; get it with: {HOW_TO_GET_IT}")
        build()
    return python


def build() -> None:
    """Make the environment."""
    own_environment.build(own_environment.python_of(_NAME), [f"pycanon=={VERSION}"])


if __name__ == "__main__":
    build()
