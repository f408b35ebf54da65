"""Fidelity is said of twelve windows together or more, never of fewer, and only when asked for."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from examples.demo import RECORDS
from service.sums import FEWEST_WINDOWS
from tests.integration.service_process import run_service

LINE = re.compile(r"Fidelity over (\d+) windows, (\d+) rows: r ([\d.]+), PRDN ([\d.]+) %")


@pytest.mark.parametrize("rows_a_query", ["1", "100000"])
def test_enough_windows_are_put_together_however_they_are_read(tmp_path: Path, rows_a_query: str) -> None:
    settings = {
        "INPUT_FILE": RECORDS,
        "OUTPUT_TO_INFLUX": "false",
        "UTILITY_METRICS": "true",
        "MAX_RECORDS_PER_QUERY": rows_a_query,
    }

    code, log = run_service(tmp_path, settings)

    found = LINE.findall(log)
    assert code == 0, log
    assert found
    for windows, rows, correlation, prdn in found:
        assert int(windows) >= FEWEST_WINDOWS
        assert int(rows) == int(windows) * 6 * 360 * 5
        assert float(correlation) > 0.999
        assert float(prdn) < 3.5
    assert sum(int(windows) for windows, *_ in found) > 60 - FEWEST_WINDOWS


def test_nothing_is_said_unless_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    _, log = run_service(tmp_path, {"INPUT_FILE": RECORDS, "OUTPUT_TO_INFLUX": "false"})

    assert "Fidelity" not in log
