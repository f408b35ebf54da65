"""The service and its commands never load pandas, though it is installed for notebooks: pyarrow would, at the first array it makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.clinic import FIRST_MINUTE, Clinic
from tests.integration.service_process import ROOT, run_service

pytestmark = pytest.mark.influxdb

#: Python then prints a line for each module that it loads.
PRINTS_IMPORTS = {"PYTHONPROFILEIMPORTTIME": "1"}


def loaded(printed: str) -> set[str]:
    """Return the packages of which a module inside was loaded: of one that was refused, none was."""
    return set(re.findall(r"^import time: .*\| +(\w+)\.", printed, re.MULTILINE))


def test_neither_a_run_nor_a_command_loads_pandas(filled: Clinic, tmp_path: Path) -> None:
    both = [filled.raw, filled.released]
    settings = {**filled.settings, "INFLUX_VERIFY_TOKEN": filled.server.make_token(read=both)}

    code, log = run_service(tmp_path, {**settings, **FIRST_MINUTE}, environment=PRINTS_IMPORTS)
    command = [sys.executable, str(ROOT / "scripts" / "state.py"), "--env-file", str(tmp_path / ".env"), "verify"]
    verified = subprocess.run(command, env={**os.environ, **PRINTS_IMPORTS}, capture_output=True, encoding="utf-8", check=False)

    assert code == 0, log
    assert verified.returncode == 0, verified.stderr
    for printed in (log, verified.stderr):
        assert {"pyarrow", "service"} <= loaded(printed)
        assert "pandas" not in loaded(printed)
