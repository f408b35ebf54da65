"""Fidelity is said of twelve windows together or more, never of fewer, and only when asked for."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import requests

from examples.demo import RECORDS
from service.telemetry.totals import FEWEST_WINDOWS
from tests.integration.service_process import Service, free_address, run_on_file

LINE = re.compile(r"Fidelity over (\d+) windows, (\d+) rows: r ([\d.]+), PRDN ([\d.]+) %")


@pytest.mark.parametrize("rows_a_query", ["1", "100000"])
def test_enough_windows_are_put_together_however_they_are_read(tmp_path: Path, rows_a_query: str) -> None:
    code, log = run_on_file(tmp_path, RECORDS, UTILITY_METRICS="true", MAX_RECORDS_PER_QUERY=rows_a_query)

    found = LINE.findall(log)
    assert code == 0, log
    assert found
    for windows, rows, correlation, prdn in found:
        assert int(windows) >= FEWEST_WINDOWS
        assert int(rows) == int(windows) * 6 * 360 * 5
        assert float(correlation) > 0.999
        assert float(prdn) < 3.5
    assert sum(int(windows) for windows, *_ in found) > 60 - FEWEST_WINDOWS


@pytest.mark.parametrize("asked_for", [True, False])
def test_what_the_log_says_is_exported_too(tmp_path: Path, asked_for: bool) -> None:
    address = free_address()
    settings = {
        "INPUT_FILE": RECORDS,
        "OUTPUT_TO_INFLUX": "false",
        "UTILITY_METRICS": asked_for,
        "STATUS_ADDRESS": address,
        # Nobody is there, so that the run waits for us to look.
        "OUTPUT_TO_API": "true",
        "API_ENDPOINT": "http://127.0.0.1:9",
    }

    with Service(tmp_path, settings) as service:
        found = metrics_of_all_windows(address, service)

    if not asked_for:
        assert not [name for name in found if "fidelity" in name]
        assert "Fidelity" not in service.log
        return
    assert found["ecg_anonymizer_fidelity_windows"] >= FEWEST_WINDOWS
    assert 0.999 < found["ecg_anonymizer_fidelity_correlation"] <= 1
    assert 0 < found["ecg_anonymizer_fidelity_prdn_ratio"] < 0.035
    *_, (windows, _, correlation, prdn) = LINE.findall(service.log)
    assert found["ecg_anonymizer_fidelity_windows"] == int(windows)
    assert found["ecg_anonymizer_fidelity_correlation"] == pytest.approx(float(correlation), abs=6e-5)
    assert 100 * found["ecg_anonymizer_fidelity_prdn_ratio"] == pytest.approx(float(prdn), abs=6e-3)


def metrics_of_all_windows(address: str, service: Service) -> dict[str, float]:
    """Return every series without labels, once all windows are released."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            text = requests.get(f"http://{address}/metrics", timeout=10).text
        except requests.ConnectionError:
            text = ""
        if re.search(r'windows_total\{outcome="released"\} 60', text):
            return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}
        time.sleep(0.05)
    raise AssertionError(service.log)
