"""What a power cut must not take is on the disk before anything builds on it: file, then name, then what says that it is there."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Mapping
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
    return watched(ward, CSV_ONLY, {crash_points.VARIABLE: place}, KILLED)


def watched(ward: Ward, changes: Changes, environment: Mapping[str, str], ends_with: int) -> list[str]:
    """Return what a run had synced and named, in order, from the ward's folder."""
    notes = ward.folder / "syncs"
    notes.unlink(missing_ok=True)
    watching = {"PYTHONPATH": str(Path(__file__).with_name("syncs")), "ECG_SYNCS_FILE": str(notes)}
    code, log = ward.run(changes, environment={**watching, **environment})
    assert code == ends_with, log
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


def test_a_disk_that_is_slow_with_the_fence_delays_what_is_offered(ward: Ward) -> None:
    """Row 1, power cut: workers see the journal's entry a second before the fence is synced, and wait for the fence."""
    four_windows = {**CSV_ONLY, "QUERY_END_TIME": "2025-11-03T14:30:04Z"}

    # The run is killed when its second release is in the journal, and not in the fence.
    asked = watched(ward, four_windows, {**SLOW_FENCE, crash_points.VARIABLE: f"{crash_points.BEFORE_FENCE}:2"}, KILLED)
    assert "sync csv/w_143001.csv" not in asked
    asked = watched(ward, four_windows, SLOW_FENCE, 0)

    assert_in_turn(asked, files=["w_143001.csv", "w_143002.csv", "w_143003.csv"])
    assert sum(line == "sync state/fence" for line in asked) == 2, "one line for each of the last two, synced"


#: A chunk is offered within half a second of its entry in the journal, if nothing holds it back.
SLOW_FENCE = {"ECG_SLOW_SYNC": "fence:0.8"}


def assert_in_turn(asked: list[str], *, files: list[str]) -> None:
    """Fail unless the fence was synced once for each file of a window, the file after it."""
    fenced = [at for at, line in enumerate(asked) if line.startswith("sync state/fence")]
    written = [asked.index(f"sync csv/{name}") for name in files]
    assert len(fenced) == len(written), asked
    assert all(fence < file for fence, file in zip(fenced, written, strict=True)), asked


def test_rows_are_on_the_disk_before_the_journal_says_that_the_file_has_them(ward: Ward) -> None:
    """Row 1, power cut: CSV file and folder are synced before the batch counts as taken."""
    asked = asked_of_the_disk(ward, crash_points.AFTER_WRITE)

    assert "sync csv/w_143000.csv" in asked
    assert asked.index("sync csv/w_143000.csv") < asked.index("sync csv")
    assert in_journal(ward, "SELECT sum(taken) FROM outputs") == 0
