"""The real program kills itself at a named step, and is started again: the outputs are those of a run that nothing disturbed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service import crash_points
from tests.integration.clinic import FIRST_MINUTE, Clinic, api_rows, csv_rows, load_first_minute
from tests.integration.service_process import Service, run_service
from tests.servers.api_server import ApiServer

pytestmark = pytest.mark.influxdb

#: All of it by `make test-faults`; in `make test` each place is hit once, with one of the two ways to name files.
FULL = bool(os.environ.get("FAULTS_FULL"))

#: Thirty seconds in windows of five make six chunks; a place is hit at the first, a middle and the last of them.
HITS = (1, 3, 6) if FULL else (2,)
SPAN = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:30Z"}
ROWS = 6 * 30 * 360

#: A file for each window, and one for all of them.
PATTERNS = ("w_%H%M%S.csv", "all_%Y%m%d.csv")
CASES = [
    (place, pattern) for i, place in enumerate(crash_points.ALL) for j, pattern in enumerate(PATTERNS) if FULL or (i + j) % 2 == 0
]

KILLED = -9


def settings_for(clinic: Clinic, api_server: ApiServer, pattern: str) -> dict[str, object]:
    return {
        **clinic.settings,
        **SPAN,
        "MAX_RECORDS_PER_QUERY": "1",
        "CSV_FILENAME_PATTERN": pattern,
        "OUTPUT_TO_API": "true",
        "API_ENDPOINT": api_server.endpoint,
    }


@pytest.mark.parametrize(("place", "pattern"), CASES)
def test_a_run_killed_at_any_step_and_started_again_ends_as_if_nothing_had_happened(
    clinic: Clinic, tmp_path: Path, api_server: ApiServer, place: str, pattern: str
) -> None:
    raw = load_first_minute(clinic)
    settings = settings_for(clinic, api_server, pattern)
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    run_service(undisturbed, {**settings, "OUTPUT_TO_INFLUX": "false", "OUTPUT_TO_API": "false"})
    expected = {path.name: path.read_bytes() for path in (undisturbed / "csv").iterdir()}

    codes = []
    for hit in HITS:
        code, log = run_service(tmp_path, settings, environment={crash_points.VARIABLE: f"{place}:{hit}"})
        codes.append(code)
        assert code in (0, KILLED), log
    code, log = run_service(tmp_path, settings)

    assert (code, codes[0]) == (0, KILLED), log
    assert {path.name: path.read_bytes() for path in (tmp_path / "csv").iterdir()} == expected
    stored = clinic.stored()
    assert len(stored) == ROWS
    assert set(stored) <= set(raw)
    assert stored == csv_rows(tmp_path / "csv") == api_rows(api_server.stored())
    assert list((tmp_path / "state" / "spool").iterdir()) == []
    assert "💥" not in log


def test_a_crash_point_that_is_armed_is_said_loudly(clinic: Clinic, tmp_path: Path) -> None:
    _, log = run_service(
        tmp_path, {**clinic.settings, **FIRST_MINUTE}, environment={crash_points.VARIABLE: crash_points.AFTER_SPOOL}
    )

    assert "CRITICAL - 💥 ECG_ANONYMIZER_CRASH_AT=after-spool: this process will kill itself there" in log


def test_a_second_instance_on_the_same_state_is_turned_away(clinic: Clinic, tmp_path: Path) -> None:
    with Service(tmp_path, {**clinic.settings, "STREAMING_MODE": "true"}) as first:
        first.wait_for("Connected to InfluxDB")
        second = tmp_path / "second"
        second.mkdir()
        code, log = run_service(second, {**clinic.settings, **FIRST_MINUTE, "STATE_DIR": tmp_path / "state"})

    assert (code, f"process {first.process.pid} already works on STATE_DIR" in log) == (75, True), log


def test_another_key_is_refused_until_it_is_accepted(clinic: Clinic, tmp_path: Path) -> None:
    load_first_minute(clinic)
    half = {**clinic.settings, "QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:30Z"}
    run_service(tmp_path, half)
    changed = {**clinic.settings, **FIRST_MINUTE, "PSEUDONYM_SALT": "another key of sixteen bytes and more"}

    refused, log = run_service(tmp_path, changed)
    accepted, _ = run_service(tmp_path, {**changed, "ACCEPT_NEW_PSEUDONYM_KEY": "true"})

    assert (refused, "the pseudonym key changed" in log) == (78, True), log
    assert "another key of sixteen" not in log
    assert accepted == 0
    assert len(csv_rows(tmp_path / "csv")) == 6 * 60 * 360


@pytest.mark.parametrize(
    "change", [{"K_VALUE": "20"}, {"BATCH_SIZE_SECONDS": "10"}, {"BATCH_SIZE_SECONDS": "7"}, {"DEVICE_FILTER": "mitbih-100"}]
)
def test_no_interval_is_released_twice_whatever_the_settings_of_the_second_run(
    clinic: Clinic, tmp_path: Path, change: dict[str, object]
) -> None:
    load_first_minute(clinic)
    run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE})
    before = clinic.stored()

    code, log = run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE, **change})

    assert code == 0, log
    assert "were released before (K=5 record, hierarchy" in log
    assert clinic.stored() == before == csv_rows(tmp_path / "csv")


def test_a_state_folder_of_another_data_set_is_refused(clinic: Clinic, tmp_path: Path) -> None:
    load_first_minute(clinic)
    run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE})

    code, log = run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE, "INFLUX_MEASUREMENT": "other"})

    assert (code, "belongs to another data set" in log) == (78, True), log
