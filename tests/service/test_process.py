"""The process: what it asks of the system's allocator, and how it imports pyarrow."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

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


#: Prints how many megabytes a process has once it has freed every second one of 200 arrays, and after it gave them back.
_SCATTERED = """
import os
import numpy as np
import pyarrow as pa
from service.process import give_back_freed_memory, reuse_freed_memory
reuse_freed_memory()
def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
arrays = [np.ones(125_000) for _ in range(200)]
del arrays[::2]
before = resident_mb()
give_back_freed_memory()
print(before - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a function of glibc")
def test_freed_memory_is_given_back_from_between_what_is_in_use() -> None:
    run = subprocess.run([sys.executable, "-c", _SCATTERED], cwd=ROOT, capture_output=True, text=True, check=True)

    assert float(run.stdout) > 90, "of a hundred"


#: How `pyarrow.compute` may use its parser of documentation, and what of it is then loaded.
_USES = {
    "from pyarrow.vendored import docscrape as d; found = d.NumpyDocString('')['Parameters']": "no parser",
    "from pyarrow.vendored import docscrape as d; found = d.NumpyDocString('')['Returns']": "a real parser",
    "from pyarrow.vendored import docscrape as d; found = d.NumpyDocString('').parameters": "a real parser",
    "from pyarrow.vendored.docscrape import Parser": "a real parser",
    "from pyarrow.docs import Parser": "no parser",
}

_PARSER = """
class Parser(dict):
    def __init__(self, _): self.update(Parameters=(), Returns=())
    parameters = ()
NumpyDocString = Parser
"""


@pytest.mark.parametrize(("use", "loaded"), _USES.items())
def test_a_pyarrow_that_parses_its_documentation_in_another_way_is_imported_too(use: str, loaded: str, tmp_path: Path) -> None:
    vendored = tmp_path / "pyarrow" / "vendored"
    vendored.mkdir(parents=True)
    for package in (vendored.parent, vendored):
        (package / "__init__.py").touch()
    (vendored / "docscrape.py").write_text(_PARSER, encoding="utf-8")
    (vendored.parent / "docs.py").write_text(_PARSER, encoding="utf-8")
    (vendored.parent / "compute.py").write_text(use, encoding="utf-8")
    program = (
        "import sys; from service.process import leave_out_documentation as leave_out; leave_out()\n"
        "import pyarrow.compute\n"
        "print('a real parser' if 'pyarrow.vendored.docscrape' in sys.modules else 'no parser')"
    )

    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stdout.strip() == loaded
