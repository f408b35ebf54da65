"""A state that the version before wrote (commit 0bacf23, journal of form 2) opens, is delivered, verified, and goes on.

It was made of `recording.csv`, twenty seconds of three wearers, with windows of a second. Seconds 0 … 5 went to a file and to an API, which
refused the third for good. Then, with another k, seconds 9 … 13 went to the API alone, for the file could not be written; they wait.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from anonymizer.batch import WindowCounts
from anonymizer.errors import JournalDamaged, StateUnavailable
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service.state.fence import Fence, Fenced
from service.state.journal import Journal
from service.state.journal_file import FORMAT_VERSION, JournalFile
from service.state.output_positions import Spooled
from service.state.set_aside import SetAside
from service.state.spool import Spool
from tests.integration.service_process import run_service
from tests.integration.service_process import state as state_command

STATE = Path(__file__).with_name("state_of_form_2")

START_NS = 1_762_180_200 * NANOSECONDS

RELEASED = [Window(START_NS + first * NANOSECONDS, START_NS + stop * NANOSECONDS) for first, stop in ((0, 6), (9, 14))]

SETTINGS = {
    "INPUT_FILE": "recording.csv",
    "OUTPUT_TO_INFLUX": "false",
    "CSV_OUTPUT_DIR": "./csv",
    "CSV_FILENAME_PATTERN": "all_%Y%m%d.csv",
    "STATE_DIR": "./memory",
    "BATCH_SIZE_SECONDS": "1",
    "K_VALUE": "4",
    "PSEUDONYMIZE_SOURCE_ID": "true",
    # Weak, and accepted because the state was made under it.
    "PSEUDONYM_SALT": "0123456789abcdef-integration",
    "QUERY_START_TIME": "2025-11-03T14:30:00Z",
    "QUERY_END_TIME": "2025-11-03T14:30:20Z",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(STATE, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_all_that_it_remembers_is_there(folder: Path) -> None:
    state = folder / "memory"
    for _ in range(2):  # as it was left, and as it was brought up to date
        journal = Journal(state, data_set="dfd8a85796e5")

        assert journal.released_intervals() == RELEASED
        assert journal.totals() == WindowCounts(read=132, released=132)
        promised = journal.released_within(WindowRange(START_NS, START_NS + 20 * NANOSECONDS, NANOSECONDS))
        assert [one.promise.k for one in promised if one.promise] == [5, 4, 4, 4, 4, 4], "old neighbours were made one"
        assert journal.stream_position_ns() == START_NS + 14 * NANOSECONDS
        by_kind = {one.name.partition(":")[0]: one for one in journal.outputs.positions()}
        csv, api = by_kind["csv"], by_kind["api"]
        assert (csv.position, csv.taken, csv.set_aside, csv.pending) == (6, 72, 0, 60)
        assert (api.position, api.taken, api.set_aside, api.pending) == (11, 120, 12, 0)
        assert journal.outputs.receipts(csv.name)["all_20251103.csv"]["length"] == 7284
        assert list(journal.outputs.set_aside_for(api.name).values()) == [12]
        assert journal.outputs.spooled() == Spooled(5, 5200)
        assert (journal.outputs.next_pending(csv.name), journal.outputs.next_pending(api.name)) == (7, None)
        assert journal.outputs.next_chunk() == 12
        journal.close()
    assert sum(len(batch) for number in range(7, 12) for batch in Spool(state / "spool").read(number)) == 60
    (kept,) = SetAside(state / "set_aside").all()
    assert len(kept.batch()) == 12
    assert Fence(state / "fence").read() == Fenced(RELEASED)
    with closing(sqlite3.connect(state / "journal.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)


def test_a_spool_on_a_disk_that_is_not_mounted_is_waited_for_and_then_delivered(folder: Path) -> None:
    spool, away = folder / "memory" / "spool", folder / "away"
    spool.rename(away)

    code, log = run_service(folder, {**SETTINGS, "RETRY_BUDGET_SECONDS": "0"})

    assert (code, spool.exists()) == (69, False), log
    assert "memory/spool is gone, and outputs wait for 5 of its files" in log
    assert "give-up-lost" not in log
    away.rename(spool)
    os.mkfifo(spool / "000000000007.spool.unfinished")
    test_what_waits_is_delivered_and_the_rest_released_once(folder)


def test_who_only_looks_leaves_it_to_the_version_that_wrote_it(folder: Path) -> None:
    state = folder / "memory"
    fence = (state / "fence").read_bytes()

    code, said = state_command(folder, "--state-dir", str(state), "show")

    assert code == 0, said
    assert "released   132 rows of 132 read" in said
    assert "72 rows taken, 0 set aside, 60 pending" in said
    assert f"form       2, of an earlier version; the service upgrades it to form {FORMAT_VERSION} at its next start" in said
    assert (state / "fence").read_bytes() == fence
    with closing(sqlite3.connect(state / "journal.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def test_what_waits_is_delivered_and_the_rest_released_once(folder: Path) -> None:
    before = (folder / "csv" / "all_20251103.csv").read_bytes()

    code, log = run_service(folder, SETTINGS)

    assert code == 0, log
    assert "were released before" in log
    after = (folder / "csv" / "all_20251103.csv").read_bytes()
    assert after.startswith(before)
    rows = Counter(line[:19] for line in after.decode().splitlines()[1:])
    assert rows == {f"2025-11-03T14:30:{second:02d}": 12 for second in range(20)}, "every window once"
    verified, said = state_command(folder, "verify")
    assert (verified, "240 released = 240 taken + 0 set aside + 0 pending" in said) == (0, True), said


@pytest.mark.parametrize(
    "change",
    ["UPDATE outputs SET position = position + 1", "DELETE FROM chunks WHERE chunk = 9", "DELETE FROM facts WHERE name = 'seal'"],
)
def test_one_that_is_damaged_is_refused_before_it_is_brought_up_to_date(folder: Path, change: str) -> None:
    with closing(sqlite3.connect(folder / "memory" / "journal.sqlite")) as db:
        db.execute(change)
        db.commit()

    for _ in range(2):
        with pytest.raises(JournalDamaged, match="its digest differs"):
            Journal(folder / "memory", data_set=None)


def test_a_disk_that_fails_while_it_is_brought_up_to_date_leaves_it_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_values: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "_put_seal", fail)
        with pytest.raises(StateUnavailable, match="No space left"):
            Journal(folder / "memory", data_set=None)
    with closing(sqlite3.connect(folder / "memory" / "journal.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)

    test_all_that_it_remembers_is_there(folder)


def test_an_older_copy_of_it_is_refused_as_one_of_today_is(folder: Path) -> None:
    fence = folder / "memory" / "fence"
    newer = fence.read_bytes().replace(str(RELEASED[1].end_ns).encode(), str(RELEASED[1].end_ns + NANOSECONDS).encode())
    fence.write_bytes(newer)

    with pytest.raises(JournalDamaged, match=r"1 released intervals are missing .*accept-gap"):
        Journal(folder / "memory", data_set=None)
