"""What a power cut must not take is on the disk before anything builds on it: file, then name, then what says that it is there."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path

import pytest

from service import crash_points
from tests.faults.ward import KILLED, Changes, Ward

pytestmark = [
    pytest.mark.influxdb,
    pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which file a descriptor is of"),
]

CSV_ONLY: Changes = {"OUTPUT_TO_INFLUX": "false", "OUTPUT_TO_API": "false"}


def asked_of_the_disk(ward: Ward, place: str) -> list[str]:
    """Return what a run that kills itself at a place had synced and named, in order, from the ward's folder."""
    notes = ward.folder / "syncs"
    environment = {
        "PYTHONPATH": str(Path(__file__).with_name("syncs")),
        "ECG_SYNCS_FILE": str(notes),
        crash_points.VARIABLE: place,
    }
    code, log = ward.run(CSV_ONLY, environment=environment)
    assert code == KILLED, log
    return [line.replace(f"{ward.folder}/", "") for line in notes.read_text().splitlines()]


def in_journal(ward: Ward, query: str) -> int:
    with contextlib.closing(sqlite3.connect(ward.state / "journal.sqlite")) as db:
        return int(db.execute(query).fetchone()[0])


def test_a_batch_is_on_the_disk_under_its_name_before_the_journal_says_that_it_is_released(ward: Ward) -> None:
    """Row 1, power cut: spool file, its name and its folder are synced before the journal's entry."""
    asked = asked_of_the_disk(ward, crash_points.AFTER_SPOOL)

    name = "state/spool/000000000001.spool"
    assert asked[-3:] == [f"sync {name}.unfinished", f"name {name}", "sync state/spool"]
    assert in_journal(ward, "SELECT count(*) FROM intervals") == 0


def test_the_fence_is_on_the_disk_before_a_release_is_offered_to_anybody(ward: Ward) -> None:
    """Row 1, power cut: the fence is synced before the first output sees a batch."""
    asked = asked_of_the_disk(ward, crash_points.AFTER_RELEASED)

    assert asked[-3:] == ["sync state/fence.unfinished", "name state/fence", "sync state"]
    assert in_journal(ward, "SELECT count(*) FROM intervals") == 1
    assert not list(ward.csv.glob("*.csv"))


def test_rows_are_on_the_disk_before_the_journal_says_that_the_file_has_them(ward: Ward) -> None:
    """Row 1, power cut: CSV file and folder are synced before the batch counts as taken."""
    asked = asked_of_the_disk(ward, crash_points.AFTER_WRITE)

    assert "sync csv/w_143000.csv" in asked
    assert asked.index("sync csv/w_143000.csv") < asked.index("sync csv")
    assert in_journal(ward, "SELECT sum(taken) FROM outputs") == 0
