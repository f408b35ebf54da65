"""What no tool can do with its arguments is a sentence and exit code 64: times beyond the calendar, spans without length, paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import exit_codes
from tests.integration.service_process import run_script

HUGE = "9" * 5000


def refusal_of(folder: Path, script: str, *arguments: str, code: int = exit_codes.USAGE) -> str:
    """Run a tool that must refuse its arguments and make nothing; return what it said."""
    (folder / "ecg.csv").write_text("timestamp,source_id,ecg\n2025-11-03T14:30:00Z,a,1\n", encoding="utf-8")
    (folder / "heart_ledger.jsonl").write_text("", encoding="utf-8")
    done = run_script(script, *arguments, folder=folder, environment={"HOME": str(folder / "home")})
    assert done.returncode == code, done.stdout + done.stderr
    assert {path.name for path in folder.iterdir()} == {"ecg.csv", "heart_ledger.jsonl"}
    assert len(done.stderr) < 4000
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("scripts/state.py", ["verify", "--start"]),
        ("scripts/state.py", ["verify", "--end"]),
        ("scripts/report.py", ["--since"]),
        ("scripts/report.py", ["--since=2025-11-03", "--until"]),
        ("scripts/advise.py", ["ecg.csv", "--start"]),
        ("scripts/verify_output.py", ["--org=o", "--start"]),
        ("scripts/verify_output.py", ["--org=o", "--stop"]),
    ],
)
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_nothing_here_can_hold_is_refused(tmp_path: Path, script: str, arguments: list[str], time: str) -> None:
    assert f"expected a time in the years 1700 to 2239, got '{time}'" in refusal_of(tmp_path, script, *arguments, time)


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("scripts/state.py", ["verify", "--start=2025-11-04", "--end=2025-11-03"], "--end must be after --start"),
        ("scripts/state.py", ["verify", "--end=1969-12-31"], "and after 1970-01-01 if there is no --start"),
        ("scripts/report.py", ["--since=2025-11-04", "--until=2025-11-04"], "--until must be after --since"),
        ("scripts/report.py", ["--since=2239-01-01"], "without it, --since must be in the past"),
        ("scripts/verify_output.py", ["--org=o", "--start=2025-11-04", "--stop=2025-11-03"], "--stop must be after --start"),
        ("scripts/verify_output.py", ["--org=o", "--start=2239-01-01"], "--stop must be after --start"),
        ("scripts/aggregate_heart.py", ["--until=9999-12-31T23:59:60Z"], "--until lies outside the years 1 to 9999"),
        ("scripts/aggregate_heart.py", ["--until=0001-01-01T00:00:00+14:00"], "--until lies outside the years 1 to 9999"),
        ("scripts/aggregate_heart.py", ["--until=0001-01-07T00:00:00Z"], "--days 7 reaches back beyond the year 1"),
        ("scripts/aggregate_heart.py", ["--days=9999999"], "--days 9999999 reaches back beyond the year 1"),
        ("scripts/aggregate_heart.py", ["--days=１２"], "must be a whole number of days"),
        ("scripts/advise.py", ["ecg.csv", "--k=５"], "expected numbers of at least 2 between commas"),
        ("scripts/advise.py", ["ecg.csv", f"--windows=5,{HUGE}"], "expected seconds of at least 1 between commas"),
        ("scripts/advise.py", ["ecg.csv", "--minutes=１２"], "expected whole minutes from 1 to 1440"),
        ("scripts/advise.py", ["ecg.csv", "--most-error=nan"], "expected a number above 0"),
        ("scripts/verify_output.py", ["ecg.csv", "--k=1_0", "--batch-seconds=5"], "invalid int value: '1_0'"),
        ("scripts/verify_output.py", ["--org=o", "--url=http://u:p@h"], "without password, ? and #"),
    ],
)
def test_what_makes_no_sense_together_is_said(tmp_path: Path, script: str, arguments: list[str], sentence: str) -> None:
    assert sentence in refusal_of(tmp_path, script, *arguments)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("central_anonymizer.py", ["--env-file=~/x"]),
        ("scripts/state.py", ["--state-dir=~/x", "show"]),
        ("scripts/state.py", ["--env-file=$HOME/x", "show"]),
        ("scripts/report.py", ["--since=2025-11-03", "--to=~/x.html"]),
        ("scripts/advise.py", ["--env-file=~/x"]),
        ("scripts/advise.py", ["~/ecg.csv"]),
        ("scripts/advise.py", ["ecg.csv", "--plot=~/x.html"]),
        ("scripts/verify_output.py", ["--env-file=~/x"]),
        ("scripts/verify_output.py", ["--ca-file=~/x"]),
        ("scripts/ingest_heartbeat.py", ["--ledger=~/x"]),
        ("scripts/ingest_heartbeat.py", ["--anonymize", "--env-file=~/x"]),
        ("scripts/anonymize.py", ["--env-file=$HOME/x"]),
    ],
)
def test_a_home_folder_that_the_shell_did_not_write_out_is_refused(tmp_path: Path, script: str, arguments: list[str]) -> None:
    assert "path without ~, $NAME or %NAME%" in refusal_of(tmp_path, script, *arguments)


@pytest.mark.parametrize("command", ["show", "accept-gap"])
def test_a_name_that_no_disk_takes_is_said_as_such(tmp_path: Path, command: str) -> None:
    said = refusal_of(tmp_path, "scripts/state.py", "--state-dir", "x" * 300, command, code=exit_codes.CONFIGURATION)

    assert "File name too long" in said
