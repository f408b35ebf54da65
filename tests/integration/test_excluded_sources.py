"""EXCLUDED_SOURCES_FILE on the real program: nothing of an excluded wearer leaves, and without the file nothing of anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.service_process import Service, run_service, state

ROWS = 400
CANARY = "Wearer-Canary-7"


def make_recording(path: Path, *, from_s: int = 0) -> None:
    rows = [
        f"{1_762_181_900_000 + from_s * 1000 + row * 50},{wearer},{(row * 37 + shift) % 300}"
        for row in range(ROWS)
        for shift, wearer in enumerate(("one", CANARY, "three"))
    ]
    path.write_text("timestamp,source_id,ecg\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize("method", ["optimal", "hierarchy"])
def test_a_run_waits_for_the_list_and_then_leaves_nothing_of_who_is_on_it_anywhere(tmp_path: Path, method: str) -> None:
    recording, listed = tmp_path / "recording.csv", tmp_path / "excluded.txt"
    make_recording(recording)
    settings = {
        "INPUT_FILE": recording,
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": tmp_path / "parquet",
        "EXCLUDED_SOURCES_FILE": listed,
        "METHOD": method,
        "LOG_FORMAT": "json",
    }
    code, said = run_service(tmp_path, settings, "--check")
    assert (code, f"EXCLUDED_SOURCES_FILE {listed} cannot be read" in said) == (78, True), said
    with Service(tmp_path, settings) as service:
        service.wait_for("no window is released while it is unknown who is excluded")
        assert not list((tmp_path / "csv").glob("*.csv"))
        listed.write_text(f"  {CANARY.lower()}  \n")
        code, log = service.exit_code(), service.log

    assert code == 0, log
    assert f'"rows_read": {3 * ROWS}, "rows_released": {2 * ROWS}' in log
    assert f'"excluded": {ROWS}' in log
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path not in (recording, listed)]
    assert written
    assert not [path for path in written if CANARY.lower().encode() in path.read_bytes().lower()]
    code, said = state(tmp_path, "verify")
    assert (code, f"{3 * ROWS} = {2 * ROWS} released + 0 withheld" in said, f"+ {ROWS} excluded" in said) == (0, True, True), said


def test_windows_left_open_never_release_what_was_measured_while_a_wearer_was_excluded(tmp_path: Path) -> None:
    recording, listed = tmp_path / "recording.csv", tmp_path / "excluded.txt"
    make_recording(recording)
    settings = {"INPUT_FILE": recording, "OUTPUT_TO_INFLUX": "false", "EXCLUDED_SOURCES_FILE": listed}
    listed.write_text(f"one\n{CANARY}\nthree\n")
    code, log = run_service(tmp_path, settings)
    assert (code, f"{3 * ROWS} excluded" in log) == (0, True), log
    listed.write_text("")
    code, log = run_service(tmp_path, settings)

    assert (code, "stay excluded until it has been unchanged for 60 s" in log) == (0, True), log
    assert not list((tmp_path / "csv").glob("*.csv"))
