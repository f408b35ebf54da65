"""RETENTION_DAYS in the real program: killed while it removes, compared with the journal, in a stream, in an object store."""

from __future__ import annotations

import csv
import hashlib
import hmac
import time
from pathlib import Path

import pytest

from testbed.s3_server import S3Server
from tests.faults.test_clocks import Clock
from tests.integration.clinic import Clinic, load_first_minute
from tests.integration.service_process import KEY, Service, run_script, run_service, state

HOUR_S = 3600

#: Where the service is killed, one run after another; it removes six CSV files, a Parquet file, and reports.
STEPS = ("removal-begun", "removal-halfway:4", "removal-done", "removal-halfway")


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "offset")


def recording(folder: Path, *, seconds: int = 30) -> Path:
    path = folder / "recording.csv"
    rows = [(1_762_180_200_000 + row * 20, f"w{source}", row * 7 % 200) for row in range(seconds * 50) for source in range(3)]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("timestamp", "source_id", "ecg"), *rows])
    return path


def pseudonym(source_id: str, key: str) -> str:
    return hmac.new(key.encode(), source_id.encode(), hashlib.sha256).hexdigest()


def rows_files(folder: Path) -> list[Path]:
    return [*(folder / "csv").glob("*.csv"), *(folder / "parquet" / "rows").rglob("*.parquet")]


def test_a_service_that_is_killed_while_it_removes_old_files_goes_on_and_loses_nothing(tmp_path: Path, clock: Clock) -> None:
    settings = {
        "INPUT_FILE": recording(tmp_path),
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": tmp_path / "parquet",
        "AUDIT_LOG": tmp_path / "audit.jsonl",
        "RETENTION_DAYS": 1,
    }
    code, log = run_service(tmp_path, settings, environment=clock.environment)
    assert (code, "RETENTION_DAYS=" in log, len(rows_files(tmp_path))) == (0, False, 7), log
    clock.jump_to(30 * HOUR_S)
    for step in STEPS:
        code, log = run_service(tmp_path, settings, environment={**clock.environment, "ECG_ANONYMIZER_CRASH_AT": step})
        assert code == -9, (step, log)
        code, said = state(tmp_path, "verify")
        assert (code, "OK: journal, source and outputs agree" in said) == (0, True), (step, said)

    code, log = run_service(tmp_path, settings, environment=clock.environment)

    assert code == 0, log
    assert "6 windows of" in log
    assert "were released before" in log
    assert rows_files(tmp_path) == []
    code, said = state(tmp_path, "verify")
    assert (code, said.count("4500 taken (4500 of them removed by RETENTION_DAYS)")) == (0, 2), said
    code, said = state(tmp_path, "show")
    assert said.count("4500 rows taken (4500 of them removed by RETENTION_DAYS)") == 2, said
    done = run_script("scripts/verify_output.py", "parquet", folder=tmp_path)
    assert (done.returncode, "REMOVED: rows of 6 windows" in done.stdout) == (0, True), done.stdout
    # The entries are of a time that this machine's clock has not reached.
    arguments = ("audit.jsonl", "--state-dir", "state")
    done = run_script("scripts/check_audit_log.py", *arguments, folder=tmp_path, environment=clock.environment)
    assert done.returncode == 0, done.stdout
    assert '"event":"removed"' in (tmp_path / "audit.jsonl").read_text()
    # One person is erased from what is left, which is nothing but counts: so nothing is found.
    code, said = state(tmp_path, "erase", "--source", "w1", "--yes")
    assert (code, "Nothing of this source was found" in said) == (1, True), said
    code, said = state(tmp_path, "verify")
    assert code == 0, said
    # The summaries still keep another STATE_DIR from releasing the windows again.
    changed = {"STATE_DIR": tmp_path / "other", "AUDIT_LOG": "", "RETENTION_DAYS": ""}
    code, log = run_service(tmp_path, {**settings, **changed})
    assert (code, "PARQUET_URL" in log) == (78, True), log


def test_files_of_an_earlier_pseudonym_key_are_the_services_too(tmp_path: Path, clock: Clock) -> None:
    settings = {
        "INPUT_FILE": recording(tmp_path, seconds=10),
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": tmp_path / "parquet",
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": KEY,
        "QUERY_END_TIME": "2025-11-03T14:30:05Z",
    }
    code, log = run_service(tmp_path, settings, environment=clock.environment)
    assert code == 0, log
    clock.jump_to(30 * HOUR_S)
    changed = {"PSEUDONYM_SALT": KEY[::-1], "ACCEPT_NEW_PSEUDONYM_KEY": "true", "QUERY_END_TIME": "", "RETENTION_DAYS": 2}
    code, log = run_service(tmp_path, {**settings, **changed}, environment=clock.environment)
    assert (code, len(rows_files(tmp_path))) == (0, 4), log

    code, said = state(tmp_path, "verify")
    assert code == 0, said
    code, said = state(tmp_path, "erase", "--pseudonym", pseudonym("w1", KEY))
    assert said.count("would be erased: 250 rows") == 2, said
    clock.jump_to(50 * HOUR_S)
    code, log = run_service(tmp_path, {**settings, **changed}, environment=clock.environment)
    assert (code, "removed 1 Parquet files, 750 rows" in log, len(rows_files(tmp_path))) == (0, True, 2), log
    # An output that is turned off and on again has taken nothing, so that nothing of that was removed.
    for is_on in ("false", "true"):
        run_service(tmp_path, {**settings, **changed, "OUTPUT_TO_CSV": is_on}, environment=clock.environment)
    code, said = state(tmp_path, "show")
    assert f"csv:{tmp_path / 'csv'}: 0 rows taken, 0 set aside, 0 pending" in said


def test_a_stream_removes_old_files_while_its_outputs_are_down(clinic: Clinic, tmp_path: Path, clock: Clock) -> None:
    load_first_minute(clinic, seconds=10)
    once = {
        **clinic.settings,
        "OUTPUT_TO_INFLUX": "false",
        "QUERY_START_TIME": "2025-11-03T14:30:00Z",
        "QUERY_END_TIME": "2025-11-03T14:30:10Z",
    }
    # Clocks that are more than a day from the server's are refused.
    clock.jump_to(-20 * HOUR_S)
    code, log = run_service(tmp_path, once, environment=clock.environment)
    assert (code, len(rows_files(tmp_path))) == (0, 2), log
    clock.jump_to(10 * HOUR_S)
    stream = {
        **{name: value for name, value in once.items() if not name.startswith("QUERY_")},
        "STREAMING_MODE": "true",
        "RETENTION_DAYS": 1,
        "OUTPUT_TO_API": "true",
        "API_ENDPOINT": "http://127.0.0.1:9",
    }
    with Service(tmp_path, stream, environment=clock.environment) as service:
        deadline_s = time.monotonic() + 60
        while rows_files(tmp_path):
            assert time.monotonic() < deadline_s, service.log
            time.sleep(0.02)
        service.wait_for("removed 2 CSV files")
        assert service.stop() == 0


def test_old_files_go_from_an_object_store(s3_server: S3Server, s3_bucket: str, tmp_path: Path, clock: Clock) -> None:
    settings = {
        "INPUT_FILE": recording(tmp_path, seconds=10),
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_CSV": "false",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": f"s3://{s3_bucket}/released",
        **s3_server.variables(),
        "RETENTION_DAYS": 1,
    }
    code, log = run_service(tmp_path, settings, environment=clock.environment)
    assert code == 0, log
    clock.jump_to(30 * HOUR_S)
    code, log = run_service(tmp_path, settings, environment=clock.environment)
    assert (code, "removed 1 Parquet files, 1500 rows" in log) == (0, True), log
    code, said = state(tmp_path, "verify")
    assert (code, "holds 0" in said) == (0, True), said
