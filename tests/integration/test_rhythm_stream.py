"""METHOD=rhythm on a real InfluxDB: after a change of settings, streamed, killed and resumed; the bucket as an outsider finds it."""

from __future__ import annotations

import calendar
import re
import time
from pathlib import Path

import pytest

from service import crash_points
from testbed.replay import load
from testbed.wearers import Wearers
from tests.integration.clinic import Clinic
from tests.integration.service_process import Service, run_service
from tests.scripts.verifying import run_check

pytestmark = pytest.mark.influxdb

WINDOW_S, WINDOWS = 10, 7

#: Of these, windows that are released with k before the method is changed.
BY_K = 2

#: The exit code of a process that a signal killed, as Python tells it.
KILLED = -9


def test_after_a_change_from_k_a_stream_that_is_killed_and_resumed_ends_as_if_nothing_had_happened(
    clinic: Clinic, tmp_path: Path
) -> None:
    # Older than a minute: the outside check leaves younger rows, whose summary may be on its way, for the next time.
    end_s = int(time.time()) // WINDOW_S * WINDOW_S - 70
    begin_s = end_s - WINDOWS * WINDOW_S
    load(clinic.server, clinic.raw, Wearers(2, hertz=128), start_ns=begin_s * 10**9, end_ns=end_s * 10**9)
    begin, changed, end = (utc(at_s) for at_s in (begin_s, begin_s + BY_K * WINDOW_S, end_s))
    common = {**clinic.settings, "BATCH_SIZE_SECONDS": WINDOW_S, "CSV_FILENAME_PATTERN": "all_%H%M%S.csv"}
    rhythm = {**common, "METHOD": "rhythm", "QUERY_START_TIME": begin}
    stream = {**rhythm, "STREAMING_MODE": "true", "MAX_RECORDS_PER_QUERY": "1"}
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    for folder in (killed, calm):
        folder.mkdir()

    assert run_service(killed, {**common, "QUERY_START_TIME": begin, "QUERY_END_TIME": changed})[0] == 0
    logs: list[str] = []
    for place in (crash_points.MID_SPOOL, crash_points.AFTER_WRITE):
        with Service(killed, stream, environment={crash_points.VARIABLE: place}) as service:
            assert service.exit_code() == KILLED, service.log
            logs.append(service.log)
    with Service(killed, stream) as service:
        service.wait_for("No data in this batch, skipping...")
        assert service.stop() == 0
    undisturbed = {**rhythm, "OUTPUT_TO_INFLUX": "false", "QUERY_START_TIME": changed, "QUERY_END_TIME": end}
    assert run_service(calm, undisturbed)[0] == 0
    assert "Settings changed since the last release: they apply to windows that are not yet released" in logs[0]
    assert re.search(r"2 windows of .* were released before \(K=5 record, .*\) and are skipped", logs[0]), logs[0]

    by_rhythm = {path.name: path.read_bytes() for path in (calm / "csv").iterdir()}
    files = {path.name: path.read_bytes() for path in (killed / "csv").iterdir()}
    assert len(files) == WINDOWS
    assert {name: files[name] for name in by_rhythm} == by_rhythm
    assert len(by_rhythm) == WINDOWS - BY_K
    rows = {tuple(line.split(",")) for content in files.values() for line in content.decode().splitlines()[1:]}
    assert {(time, name, str(value)) for (time, name), value in clinic.stored().items()} == rows
    token = {"INFLUX_VERIFY_TOKEN": clinic.server.make_token(read=[clinic.released])}
    of_env = "--env-file", str(killed / ".env")
    code, said = run_check(*of_env, "--start", changed, environment=token)
    assert (code, f"{WINDOWS - BY_K} windows, {sum(map(lines_in, by_rhythm.values()))} rows." in said) == (0, True), said
    code, said = run_check(*of_env, environment=token)
    assert code == 1
    assert f"VIOLATION in {BY_K} windows, the first {begin}: its summary promises k = 5: check it with --k 5" in said
    # The first row of the last window is raised by a microvolt.
    (at, name), value = min(one for one in clinic.stored().items() if one[0][0] >= utc(end_s - WINDOW_S)[:-1] and one[1] < 999)
    at_ns = calendar.timegm(time.strptime(at[:19], "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(at[20:29])
    clinic.server.write_lines(clinic.released, f"ecg_anonymized,source_id={name} ecg={value + 1} {at_ns}".encode())
    code, said = run_check(*of_env, "--start", changed, environment=token)
    assert code == 1
    assert f"VIOLATION in 1 windows, the first {utc(end_s - WINDOW_S)}: rows that are not of the public beat" in said


def lines_in(content: bytes) -> int:
    return content.count(b"\n") - 1


def utc(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
