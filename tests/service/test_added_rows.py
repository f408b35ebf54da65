"""What was added to a file or a data set since its release: a file keeps its name, only free windows are new, and late rows are counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import pytest

from anonymizer.errors import JournalDamaged
from anonymizer.windows import Window
from inputs.file_source import FileSource
from service.pipeline.added_rows import account_for_parts
from service.settings.declared import Settings
from service.settings.load import load
from service.state.data_set_parts import PartChanges
from service.state.epochs import Epoch
from service.state.journal import Journal
from service.telemetry.events import Events
from service.wiring.data_set import data_set_label
from service.wiring.sources import make_source
from tests.service.batches import PROMISE
from tests.service.fakes import FakeSource
from tests.service.journals import S, new_journal, release

FIRST = "timestamp,source_id,ecg\n2025-11-03T14:30:00Z,w,1\n"


def opened(path: Path) -> tuple[Settings, FileSource]:
    settings = load(path.parent / ".env", {"INPUT_FILE": str(path), "OUTPUT_TO_INFLUX": "false"}).settings
    source = make_source(settings)
    source.open()
    assert isinstance(source, FileSource)
    return settings, source


def label_of(path: Path) -> tuple[str, str]:
    """Return what a file is called in batch ids, and its digest."""
    settings, source = opened(path)
    journal = Journal(path.parent / "state", data_set=source.data_set, earlier_version=source.earlier_version)
    try:
        return data_set_label(settings, source, journal), source.data_set
    finally:
        journal.close()


def test_a_file_that_grew_keeps_its_name_in_batch_ids(tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"
    path.write_text(FIRST, encoding="utf-8")
    before, digest = label_of(path)

    with path.open("a", encoding="utf-8") as file:
        file.write("2025-11-03T14:30:10Z,w,2\n")

    after, other_digest = label_of(path)
    assert (after, other_digest != digest) == (before, True)
    assert label_of(path)[0] == before, "and keeps it"


def test_the_times_of_added_rows_are_told(tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"
    path.write_text(FIRST, encoding="utf-8")
    digest = opened(path)[1].data_set
    with path.open("a", encoding="utf-8") as file:
        file.write("2025-11-03T14:30:10Z,w,2\noops,w,2\n2025-11-03T14:29:00Z,w,2\n2025-11-03T14:31:00Z,w,2\n")

    added = opened(path)[1].added_since(digest)

    assert added is not None
    assert sorted((added // 10**9 - 1_762_180_200).tolist()) == [-60, 10, 60]
    assert opened(path)[1].added_since("0" * 12) is None


class Files:
    """An inventory of files, each with the seconds in which it has rows."""

    def __init__(self, **spans_s: tuple[int, int]) -> None:
        self.spans_s = spans_s
        self.versions = dict.fromkeys(spans_s, "1")
        self.request = ""

    def states(self) -> dict[str, str]:
        return self.versions

    def times_of(self, paths: Collection[str]) -> list[Window]:
        return sorted(Window(self.spans_s[path][0] * S, self.spans_s[path][1] * S) for path in paths)


class Told(Events):
    """What is told of files and late rows."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def parts_changed(self, *, added: int, changed: int, gone: int) -> None:
        self.said.append((added, changed, gone))

    def added_too_late(self, rows: int) -> None:
        self.said.append(rows)


def account(journal: Journal, source: FakeSource, files: Files) -> list[object]:
    source.inventory = files
    told = Told()
    account_for_parts(source, journal, told)
    return told.said


def test_rows_of_new_and_changed_files_in_released_windows_are_late_once(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    rows = [(second + 0.1, "w", 1.0) for second in range(20)]
    source, files = FakeSource(rows), Files(a=(0, 20))
    assert account(journal, source, files) == [0], "nothing was released before the first start"
    release(journal, (0, 5), (5, 10), rows=5)
    assert account(journal, source, files) == [0]

    source.rows += [(2.5, "x", 1.0), (7.5, "x", 1.0), (12.5, "x", 1.0)]
    files = Files(a=(0, 20), b=(2, 13))

    assert account(journal, source, files) == [(1, 0, 0), 2]
    assert journal.late_rows.total() == 2
    assert account(journal, source, files) == [0], "they are told once"
    source.rows += [(3.5, "y", 1.0)]
    files.versions["a"] = "2"
    assert account(journal, source, files) == [(0, 1, 0), 1]
    del files.versions["b"]
    files.request = "a*"
    assert account(journal, source, files) == [0], "a file that may not be asked for is not gone"
    files.request = ""
    assert account(journal, source, files) == [(0, 0, 1), 0]
    journal.close()
    reopened = Journal(tmp_path, data_set="data")
    assert (reopened.parts.compare({"a": "2"}, request=""), reopened.late_rows.total()) == (
        PartChanges((), (), (), is_first=False),
        3,
    )
    reopened.close()


def test_only_what_can_be_compared_is_counted_again(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    release(journal, *((start, start + 5) for start in range(0, 100, 5)), rows=5)
    journal.accept_gap([Window(200 * S, 300 * S)])
    source = FakeSource([(second + 0.1, "w", 1.0) for second in range(300)])
    files = Files(a=(0, 300))
    assert account(journal, source, files) == [0]
    counted = [windows for what, windows in source.questions if what == "count"]
    assert [(one.start_ns // S, one.end_ns // S) for one in counted] == [(0, 100)], "neighbours are counted together"

    # Of other sources fewer rows were read: what is there now says nothing about them.
    journal.epochs.begin(Epoch(PROMISE, 5 * S, "another selection"), now_ns=0)
    source.rows += [(2.5, "x", 1.0)]
    files.versions["a"] = "2"

    assert account(journal, source, files) == [(0, 1, 0), 0]
    journal.close()


def test_a_journal_of_before_knows_no_files_and_is_as_it_was_until_there_are_some(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    release(journal, (0, 5))
    journal.close()
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        db.execute("DROP TABLE parts")

    journal = Journal(tmp_path, data_set="data")

    assert (journal.parts.compare({}, request="").is_first, journal.released_intervals()) == (True, [Window(0, 5 * S)])
    journal.parts.record({"a": "1"}, request="", gone=())
    journal.close()
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        db.execute("UPDATE parts SET state = '2'")
        db.commit()
    with pytest.raises(JournalDamaged):
        Journal(tmp_path, data_set="data")
