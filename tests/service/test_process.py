"""The process: what it asks of the system's allocator."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.documentation.pages import ROOT

#: Prints how many pages the system had to provide for arrays of four megabytes that are freed at once.
_ARRAYS = """
import resource, sys
import numpy as np
from service.process import reuse_freed_memory
if sys.argv[1] == "reuse":
    reuse_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    one, other = np.ones(500_000), np.ones(500_000)
    del one, other
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_freed_memory_is_used_again() -> None:
    pages = {
        how: int(
            subprocess.run([sys.executable, "-c", _ARRAYS, how], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        )
        for how in ("plain", "reuse")
    }

    assert pages["reuse"] < pages["plain"] / 5, pages
