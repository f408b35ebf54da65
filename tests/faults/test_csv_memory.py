"""What the service remembers of a CSV file is held against the file: a disk that was away, an old journal, a wrong digit in it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service import exit_codes
from tests.integration.service_process import run_on_file, state

START = datetime(2025, 11, 3, 14, 30, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three minutes of three wearers at 10 Hz."""
    times = [START + timedelta(milliseconds=100 * index) for index in range(1800)]
    rows = [f"{at:%Y-%m-%dT%H:%M:%S.%f}Z,w{source},{index % 7}\n" for index, at in enumerate(times) for source in range(3)]
    (tmp_path / "in.csv").write_text("timestamp,source_id,ecg\n" + "".join(rows), encoding="utf-8")
    return tmp_path


def release(folder: Path, minute: int, **changes: object) -> tuple[int, str]:
    """Release one minute into the file of its hour."""
    settings = {
        "CSV_FILENAME_PATTERN": "ecg_%Y%m%d_%H.csv",
        "QUERY_START_TIME": f"2025-11-03T14:{30 + minute}:00Z",
        "QUERY_END_TIME": f"2025-11-03T14:{31 + minute}:00Z",
        "RETRY_BUDGET_SECONDS": "1",
        **changes,
    }
    return run_on_file(folder, folder / "in.csv", **settings)


def minutes_in(path: Path) -> list[int]:
    """Return how many rows of each minute a file holds; every line must be whole."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    assert all(line.count(",") == 2 and line.startswith("2025-11-03T14:3") for line in lines)
    assert len(set(lines)) == len(lines)
    return [sum(line.startswith(f"2025-11-03T14:{30 + minute}") for line in lines) for minute in range(3)]


def test_a_disk_that_is_away_for_one_start_costs_no_row_and_mixes_none(folder: Path) -> None:
    hour = folder / "csv" / "ecg_20251103_14.csv"
    assert release(folder, 0)[0] == 0
    (folder / "csv").rename(folder / "away")

    code, said = release(folder, 1)

    assert code == exit_codes.UNREACHABLE, said
    assert "is its disk missing" in said
    assert not (folder / "csv").exists()
    (folder / "away").rename(folder / "csv")
    assert release(folder, 2)[0] == 0
    assert release(folder, 1)[0] == 0
    assert minutes_in(hour) == [1800, 1800, 1800]
    assert list((folder / "csv").iterdir()) == [hour]


def test_rows_that_an_older_journal_forgot_stay_in_their_file_once_the_gap_is_accepted(folder: Path) -> None:
    hour, memory = folder / "csv" / "ecg_20251103_14.csv", folder / "state"
    release(folder, 0)
    with contextlib.closing(sqlite3.connect(memory / "journal.sqlite")) as db:
        db.execute("VACUUM INTO ?", (str(folder / "backup.sqlite"),))
    release(folder, 1)
    for path in memory.glob("journal.sqlite*"):
        path.unlink()
    shutil.move(folder / "backup.sqlite", memory / "journal.sqlite")
    assert release(folder, 2)[0] == exit_codes.CONFIGURATION

    accepted, said = state(folder, "--state-dir", str(memory), "accept-gap")

    assert accepted == 0, said
    assert release(folder, 2)[0] == 0
    assert minutes_in(hour) == [1800, 1800, 1800]
    assert list((folder / "csv").iterdir()) == [hour]


def test_a_wrong_length_in_the_journal_cuts_no_line(folder: Path) -> None:
    hour = folder / "csv" / "ecg_20251103_14.csv"
    release(folder, 0)
    with contextlib.closing(sqlite3.connect(folder / "state" / "journal.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE receipts SET receipt = json_set(receipt, '$.length', json_extract(receipt, '$.length') - 40000)")
    before = hour.read_bytes()

    code, said = release(folder, 1)

    assert code == exit_codes.CONFIGURATION, said
    assert "is damaged (its digest differs)" in said
    assert hour.read_bytes() == before


def test_another_copy_of_the_state_is_not_silent_about_rows_it_moves(folder: Path) -> None:
    release(folder, 0)
    shutil.copytree(folder / "state", folder / "copy")
    release(folder, 1)
    shutil.rmtree(folder / "state")
    (folder / "copy").rename(folder / "state")

    _, said = release(folder, 2)

    assert "held rows that STATE_DIR does not know of; they were moved to ecg_20251103_14.csv.tail-1" in said
