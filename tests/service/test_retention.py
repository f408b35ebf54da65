"""RETENTION_DAYS: what is old goes, what is young, foreign or not on record stays, and the journal always tells removed from lost."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from operations.audit import audit
from operations.output_readers import CsvReader, OutputReader, ParquetReader
from outputs.csv_files import CsvFiles
from outputs.csv_held import HeldCsv
from outputs.parquet_files import ParquetFiles
from outputs.parquet_held import HeldParquet
from outputs.parquet_places import Folder
from outputs.parquet_removal import OldParquet
from service import crash_points
from service.pipeline.released_elsewhere import ANY_TIME
from service.retention.places import CsvPlace, ParquetPlace, Place, ReportsPlace, SetAsidePlace
from service.retention.sweep import Retention
from service.state.erasures import OpenErasure, Taken
from service.state.journal import Journal, Release
from service.state.removals import HeldFile, Part
from service.state.set_aside import SetAside
from service.state.trail import Trail
from service.telemetry.hub import Telemetry
from tests.service.batches import make_batch
from tests.service.fakes import FakeClock
from tests.service.journals import new_journal

DAY_S = 24 * 3600

#: The first day of most tests, in days since the epoch: 1973-05-19, in windows of 5 s.
FIRST = 1234
PER_DAY = DAY_S // 5

TERM = 30


class Crash(BaseException):
    """The process dies here."""


class Site:
    """A journal, a CSV folder and Parquet files of one service."""

    def __init__(self, folder: Path, pattern: str = "ecg_%Y%m%d_%H%M%S.csv") -> None:
        self.folder = folder
        self.csv, self.parquet, self.state = folder / "csv", folder / "parquet", folder / "state"
        self.pattern = pattern
        self.outputs: list[CsvFiles | ParquetFiles] = [CsvFiles(self.csv, pattern), ParquetFiles(Folder(self.parquet), "hour")]
        self.names = [output.name for output in self.outputs]
        self.journal = new_journal(self.state, *self.names)
        self.batches: dict[int, Batch] = {}
        for output in self.outputs:
            output.open({})

    def release(self, *windows: int, day: float, takers: int = 2) -> None:
        """Release windows as one chunk on a day; `takers` outputs take it."""
        batches = [make_batch(window) for window in sorted(windows)]
        chunk = self.journal.outputs.next_chunk()
        self.journal.record_release(
            [Release(one.window, one.counts) for one in batches],
            chunk=chunk,
            size_bytes=1,
            now_ns=round(day * DAY_S) * NANOSECONDS,
            stream_to_ns=None,
        )
        self.journal.raise_fence()
        self.batches |= dict(zip(sorted(windows), batches, strict=True))
        for output in self.outputs[:takers]:
            receipts = []
            if isinstance(output, ParquetFiles):
                receipts.append(output.write_chunk(batches))
            else:
                for batch in batches:
                    if (intent := output.intent(batch)) is not None:
                        self.journal.outputs.record_receipt(output.name, intent)
                    receipts.append(output.write(batch))
            rows = sum(map(len, batches))
            self.journal.outputs.record_taken(output.name, chunk=chunk, receipts=receipts, rows=rows)

    def retention(self, day: float, *, days: int | None = TERM, stop: bool = False, is_stream: bool = False) -> Retention:
        places: list[Place] = [
            CsvPlace(HeldCsv(self.csv, self.pattern), self.journal, is_stream=is_stream),
            ParquetPlace(OldParquet(Folder(self.parquet), ["fake"]), self.journal),
            *(SetAsidePlace(self.state / "set_aside", name, self.journal) for name in self.names),
            ReportsPlace(self.state),
        ]
        trail = Trail(self.folder / "audit.jsonl", "owner", lambda: 0)
        clock = FakeClock(day * DAY_S, stop_after_s=0 if stop else float("inf"))
        telemetry = Telemetry(k=2, verbose=False)
        return Retention(days, places, self.journal, clock, telemetry, is_stream=is_stream, trail=lambda: trail)

    def sweep(self, day: float, *, days: int = TERM, is_stream: bool = False) -> None:
        """Sweep as a service does that looked a day before: its clock is believed."""
        known = self.journal.removals
        known.remember_clock(type(known.clock())(round((day - 1) * DAY_S) * NANOSECONDS))
        self.retention(day, days=days, is_stream=is_stream).sweep()

    @property
    def csv_files(self) -> list[str]:
        return sorted(path.name for path in self.csv.iterdir())

    @property
    def parquet_files(self) -> list[str]:
        return sorted(path.name for path in (self.parquet / "rows").rglob("*.parquet"))

    def disagreements(self) -> list[str]:
        """Return what `state.py verify` would find."""

        def count_raw(windows: WindowRange) -> npt.NDArray[np.int64]:
            return np.array([4 if one.start_ns // (5 * NANOSECONDS) in self.batches else 0 for one in windows], dtype=np.int64)

        readers: list[OutputReader] = [
            CsvReader(HeldCsv(self.csv, self.pattern)),
            ParquetReader(HeldParquet(Folder(self.parquet), ["fake"])),
        ]
        # Each entry by itself: days without windows between them would be counted one by one.
        found = []
        for one in self.journal.entries_within(ANY_TIME):
            found += audit(self.journal, one.interval, count_raw=count_raw, kept_since_ns=None, readers=readers).disagreements
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def window(day: int, index: int = 0) -> int:
    return (FIRST + day) * PER_DAY + index


def test_a_file_goes_a_term_after_its_release_whenever_it_was_measured_and_not_a_second_before(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site.release(window(0), window(0, 1), day=FIRST + 1)
    site.release(window(-900), day=FIRST + 2)
    site.release(window(60), day=FIRST + 3)
    before = site.csv_files

    site.sweep(FIRST + 1 + TERM - 1 / DAY_S)
    assert (site.csv_files, len(site.parquet_files)) == (before, 3)
    site.sweep(FIRST + 1 + TERM)

    # Measured 900 days before, released a day later; or measured after its release, by a clock that was wrong.
    assert (site.csv_files, len(site.parquet_files)) == ([before[0], before[3]], 2)
    assert "removed 2 CSV files, 8 rows" in caplog.text
    assert "removed 1 Parquet files, 8 rows" in caplog.text
    assert site.disagreements() == []
    site.sweep(FIRST + 2 + TERM)
    assert (site.csv_files, len(site.parquet_files)) == ([before[3]], 1)
    site.sweep(FIRST + 60 + TERM + 1)
    assert (site.csv_files, site.parquet_files) == ([], [])
    assert not list((site.parquet / "rows").iterdir()), "empty folders go too"
    assert len(list((site.parquet / "windows").rglob("*.parquet"))) == 3, "summaries stay: they remember what was released"
    assert site.disagreements() == []
    told = (site.folder / "audit.jsonl").read_text()
    assert told.count('"event":"removed"') == 12
    assert '"files":2,"rows":8,"state":"ended","what":"CSV files"' in told
    # Nothing of it can be released again.
    assert not site.journal.accept_gap([one.window for one in site.batches.values()])


def test_a_file_that_is_not_full_waits_for_its_last_window_and_for_rows_that_an_output_still_owes(tmp_path: Path) -> None:
    site = Site(tmp_path, "day_%Y%m%d.csv")
    site.release(window(0), day=FIRST + 1)
    site.release(window(0, 7), day=FIRST + 5)
    site.release(window(0, 9), day=FIRST + 6, takers=0)

    site.sweep(FIRST + 1 + TERM)
    assert len(site.csv_files) == 1, "one of its windows was released later"
    site.sweep(FIRST + 7 + TERM)
    assert len(site.csv_files) == 1, "rows of it wait in the spool"

    (csv, _), chunk, batch = site.outputs, 3, site.batches[window(0, 9)]
    assert isinstance(csv, CsvFiles)
    site.journal.outputs.record_taken(csv.name, chunk=chunk, receipts=[csv.write(batch)], rows=len(batch))
    (file,) = site.csv.iterdir()
    content = file.read_bytes()
    file.write_bytes(content + b"\n")
    site.sweep(FIRST + 7 + TERM)
    assert len(site.csv_files) == 1, "what follows the committed part is not ours"
    file.write_bytes(content)
    site.sweep(FIRST + 7 + TERM)
    assert site.csv_files == []
    assert site.journal.outputs.receipts(csv.name) == {}, "nothing is expected to be there any more"
    # A window that is released later begins the file anew.
    site.release(window(0, 11), day=FIRST + 40, takers=0)
    CsvFiles(site.csv, site.pattern).open(site.journal.outputs.receipts(csv.name))


def test_what_the_service_did_not_write_or_does_not_know_stays_and_is_counted(
    site: Site, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    days = range(7)
    site.release(*(window(day) for day in days), day=FIRST + 7)
    files = [site.csv / name for name in site.csv_files]
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_bytes(files[0].read_bytes())
    files[0].unlink()
    files[0].symlink_to(elsewhere)
    row = files[1].read_text().splitlines()[1]
    for file in files[1:3]:
        file.write_text(file.read_text() + row + "\n")
    files[3].write_text(files[3].read_text().replace("source_id,ecg", "id,value"))
    files[4].write_bytes(files[4].read_bytes() + b"\x00half a line")
    others = ["ecg_19730519_000000.csv.tail-1", "notes.txt", "ecg_21000101_000000.csv"]
    for name in others:
        (site.csv / name).write_text("x")
        os.utime(site.csv / name, (0, 0))
    (site.parquet / "rows" / "date=1973-05-19" / "of-another-0-5000000000.parquet").parent.mkdir(parents=True, exist_ok=True)
    (site.parquet / "rows" / "date=1973-05-19" / "of-another-0-5000000000.parquet").write_text("x")

    site.sweep(FIRST + 7 + TERM)

    assert site.csv_files == sorted([*others, *(path.name for path in files[:5])])
    assert elsewhere.exists()
    assert site.parquet_files == ["of-another-0-5000000000.parquet"]
    said = caplog.text
    assert f"{files[0].name} is old enough, but is not removed: it is a link or no regular file" in said
    assert f"{files[1].name} is old enough, but is not removed: it holds more rows than were released of its windows" in said
    assert "2 more CSV files are old enough, but are not removed" in said
    assert "3 other old files lie beside the CSV files" in said
    assert "1 other old files lie beside the Parquet files" in said
    for one in files[:5]:
        one.unlink()
    assert len(site.disagreements()) == 5, "what is lost is still missed"


def test_a_folder_behind_a_link_is_not_touched(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site.release(window(0), day=FIRST + 1)
    (date,) = (site.parquet / "rows").iterdir()
    (hour,) = date.iterdir()
    hour.rename(tmp_path / "elsewhere")
    hour.symlink_to(tmp_path / "elsewhere")
    (site.parquet / "rows").rename(tmp_path / "rows elsewhere")
    (site.parquet / "rows").symlink_to(tmp_path / "rows elsewhere")

    site.sweep(FIRST + 1 + TERM)
    assert list((tmp_path / "elsewhere").iterdir())
    hour_there = tmp_path / "rows elsewhere" / date.name / hour.name
    hour_there.unlink()
    (tmp_path / "elsewhere").rename(hour_there)
    site.sweep(FIRST + 2 + TERM)

    assert list(hour_there.iterdir())
    assert "what is behind links is not removed" in caplog.text
    assert site.disagreements() == []


def test_a_clock_that_jumps_by_years_removes_nothing_and_one_that_went_on_for_a_day_is_believed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.release(window(0), day=FIRST)
    known = site.csv_files
    for day in (FIRST, FIRST + 1, FIRST + 3000, FIRST + 3000.5, FIRST - 900, 0, FIRST + 2):
        site.retention(day).sweep()
        assert site.csv_files == known, day
    assert caplog.text.count("the clock says 1981-08-05 00:00:00, the last time on record is 1973-05-20") == 1
    # Every week, as a run from cron: each step is small enough.
    for day in range(FIRST + 10, FIRST + TERM, 7):
        site.retention(day).sweep()
    assert site.csv_files == known
    site.release(window(29), day=FIRST + 29)
    # Out of use for years, then a day of work.
    for day in (FIRST + 2000, FIRST + 2000.9):
        site.retention(day).sweep()
        assert len(site.csv_files) == 1, "what was old within a week of the last look goes"
    site.retention(FIRST + 2001).sweep()
    assert site.csv_files == []


def test_what_a_run_with_a_wrong_clock_releases_itself_does_not_vouch_for_that_clock(site: Site) -> None:
    site.release(window(0), day=FIRST)
    known = site.csv_files
    # RETENTION_DAYS is set for the first time, so that no sweep has seen a clock.
    retention = site.retention(FIRST + 3000)
    site.release(window(1), day=FIRST + 3000)

    retention.sweep()

    assert set(known) < set(site.csv_files)


def test_a_streams_clock_is_not_believed_as_long_as_the_servers_does_not_agree(site: Site) -> None:
    site.release(window(0), day=FIRST)
    site.journal.move_stream((FIRST + 5) * DAY_S * NANOSECONDS)
    for day in range(FIRST + 3000, FIRST + 3010):
        site.retention(day, is_stream=True).sweep()
    assert len(site.csv_files) == 1
    site.journal.move_stream((FIRST + 3010) * DAY_S * NANOSECONDS)
    site.retention(FIRST + 3010, is_stream=True).sweep()
    assert site.csv_files == []


def test_files_of_a_streams_position_stay_whatever_their_age(site: Site) -> None:
    """A stream that catches up may still write to them."""
    site.release(window(0), window(1), day=FIRST + 1)
    site.journal.move_stream(window(1) * 5 * NANOSECONDS)

    site.sweep(FIRST + 60, is_stream=True)

    assert len(site.csv_files) == 1


def test_a_file_that_cannot_be_removed_is_kept_and_said_and_the_others_go(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.release(*(window(0, index) for index in range(3)), day=FIRST + 1)
    stuck = site.csv_files[1]
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == stuck or "rows" in path.parts:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        site.sweep(FIRST + 1 + TERM)

    assert (site.csv_files, len(site.parquet_files)) == ([stuck], 1)
    assert f"{stuck} is old enough, but is not removed: it cannot be removed (Permission denied)" in caplog.text
    assert site.disagreements() == []
    site.sweep(FIRST + 1 + TERM)
    assert (site.csv_files, site.parquet_files) == ([], [])
    assert site.disagreements() == []


def test_rows_set_aside_go_after_a_days_warning_and_stay_counted_as_refused(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.release(window(0), day=FIRST + 1, takers=0)
    batch, name = site.batches[window(0)], site.names[0]
    set_aside = SetAside(site.state / "set_aside")
    count = set_aside.keep(batch, output=name, rejection=BatchRejected("no room", rows=[1, 2, 3]))
    site.journal.outputs.record_taken(name, chunk=1, receipts=[], rows=4, set_aside={batch.batch_id: count})

    site.sweep(FIRST + TERM - 1)
    assert "within a day" not in caplog.text
    site.sweep(FIRST + TERM + 0.5)
    assert f"within a day, 3 rows in 1 batches that were set aside are removed; if {name} is to get them" in caplog.text
    assert len(list(set_aside.all())) == 1
    site.sweep(FIRST + TERM + 1)

    assert f"3 rows in 1 batches that were set aside were removed; {name} will never get them" in caplog.text
    assert list((site.state / "set_aside").iterdir()) == []
    (position, _) = site.journal.outputs.positions()
    assert (position.taken, position.set_aside) == (1, 3)
    assert site.journal.removals.rows_by_place() == {f"set aside by {name}": 3}


@pytest.mark.parametrize("stuck", [".json", ".spool"])
def test_of_a_set_aside_batch_that_cannot_be_removed_or_whose_removal_is_killed_nothing_is_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    site.release(window(0), day=FIRST + 1, takers=0)
    batch, name = site.batches[window(0)], site.names[0]
    SetAside(site.state / "set_aside").keep(batch, output=name, rejection=BatchRejected("no room"))
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == stuck:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, missing_ok=missing_ok)

    def die(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == stuck:
            raise Crash
        unlink(path, missing_ok=missing_ok)

    for failing in (refuse, die):
        with monkeypatch.context() as patched, suppress(Crash):
            patched.setattr(Path, "unlink", failing)
            site.sweep(FIRST + 1 + TERM)
        site.retention(FIRST + 1 + TERM).settle()
        assert site.journal.removals.rows_by_place() == {}
        assert len(list(SetAside(site.state / "set_aside").all())) == 1, "it is found again"
    site.sweep(FIRST + 1 + TERM)

    assert list((site.state / "set_aside").iterdir()) == []
    assert site.journal.removals.rows_by_place() == {f"set aside by {name}": 4}


def test_reports_go_by_the_time_they_were_made_and_the_last_one_with_its_copy(site: Site) -> None:
    reports = site.state / "reports"
    reports.mkdir()
    for name in ("report-19730519T000000Z.html", "report-19730619T000000Z.html", "mine.html", "report-19731399T000000Z.html"):
        (reports / name).write_text(name)
    (site.state / "report.html").write_text("report-19730619T000000Z.html")

    site.sweep(FIRST + TERM)
    assert sorted(path.name for path in reports.iterdir()) == sorted(
        ["mine.html", "report-19730619T000000Z.html", "report-19731399T000000Z.html"]
    )
    assert (site.state / "report.html").exists()
    site.sweep(FIRST + TERM + 40)
    assert sorted(path.name for path in reports.iterdir()) == ["mine.html", "report-19731399T000000Z.html"]
    assert not (site.state / "report.html").exists()


def test_old_entries_that_are_merged_still_tell_each_day_of_release(site: Site) -> None:
    site.release(window(0), window(0, 1), day=FIRST + 1)
    site.release(window(0, 2), day=FIRST + 1.5)
    site.release(window(0, 3), day=FIRST + 4)
    site.journal.outputs.forget_chunks_all_have()
    assert site.journal.merge_before((FIRST + 9) * DAY_S * NANOSECONDS, recounts=0) == 2

    site.sweep(FIRST + TERM + 2)

    assert site.csv_files == [HeldCsv(site.csv, site.pattern).file_name(window(0, 3) * 5 * NANOSECONDS)]
    assert site.disagreements() == []
    site.journal.removals.merge_before((FIRST + 9) * DAY_S * NANOSECONDS)
    assert site.disagreements() == []
    site.sweep(FIRST + TERM + 5)
    assert site.csv_files == []
    assert site.disagreements() == []


def test_a_window_in_two_files_is_one_record_of_both_and_an_erasure_lowers_it(site: Site) -> None:
    removals, place, span = site.journal.removals, site.names[1], Window(0, 5 * NANOSECONDS)
    removals.begin(place, [HeldFile("hour=14/x", (Part(span, 3),)), HeldFile("hour=15/x", (Part(span, 1),))])
    assert removals.rows_in(place, span) == (0, 4)
    removals.finish(place, gone=["hour=14/x"])
    assert removals.rows_in(place, span) == (3, 1)
    removals.finish(place, gone=["hour=15/x"])
    assert removals.rows_in(place, span) == removals.sums(place)(span) == (4, 0)

    erasures = site.journal.erasures
    site.release(0, day=1)
    erasures.begin(OpenErasure("digest", 1, False))
    erasures.record("csv x", [Taken(0, 3)])
    erasures.book(spooled_bytes={})
    assert removals.rows_in(place, span) == (1, 0)


def test_nothing_is_removed_without_the_setting_or_after_a_request_to_stop(site: Site) -> None:
    site.release(window(0), day=FIRST + 1)
    site.retention(FIRST + 100, days=None).sweep()
    site.retention(FIRST + 2, stop=True).sweep()

    assert len(site.csv_files) == 1


@st.composite
def histories(draw: st.DrawFn) -> tuple[str, list[tuple[list[int], int]], list[int]]:
    pattern = draw(st.sampled_from(["%Y%m%d_%H%M%S.csv", "%Y-%m-%d_%H%M.csv", "%Y%m%d_%H.csv", "d%Y%j.csv"]))
    # Around midnight and a full hour, so that windows, files and folders of chunks meet.
    windows = draw(st.lists(st.integers(-25, 25), min_size=1, max_size=10, unique=True))
    cuts = sorted(draw(st.sets(st.integers(1, len(windows)), max_size=4)) | {0, len(windows)})
    days = draw(st.lists(st.integers(1, 6), min_size=len(cuts), max_size=len(cuts)))
    releases = [(windows[first:stop], day) for first, stop, day in zip(cuts[:-1], cuts[1:], days, strict=False)]
    return pattern, releases, draw(st.lists(st.integers(1, 12), max_size=4))


@given(histories(), st.integers(1, 7), st.booleans())
@settings(max_examples=15, deadline=None)
def test_however_often_sweeps_are_killed_what_is_old_goes_what_is_young_stays_and_nothing_looks_lost(
    tmp_path_factory: pytest.TempPathFactory,
    history: tuple[str, list[tuple[list[int], int]], list[int]],
    cutoff: int,
    merges: bool,
) -> None:
    pattern, releases, crashes = history
    # In memory, as other tests' folders are.
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
        site = Site(Path(folder), pattern)
        released_on = {}
        for windows, day in releases:
            # Chunks of consecutive windows only: a Parquet file is named by its span.
            for index in windows:
                site.release(window(0, index), day=FIRST + day)
                released_on[window(0, index)] = day
        if merges:
            site.journal.outputs.forget_chunks_all_have()
            site.journal.merge_before((FIRST + 9) * DAY_S * NANOSECONDS, recounts=0)
        held = HeldCsv(site.csv, pattern)
        of_file: dict[str, list[int]] = {}
        for index in released_on:
            of_file.setdefault(held.file_name(index * 5 * NANOSECONDS), []).append(index)
        for nth in crashes:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(crash_points, "reached", dying_at(nth))
                try:
                    site.sweep(FIRST + TERM + cutoff)
                except Crash:
                    assert site.disagreements() == [], "also before the next start"
                    site.journal.close()
                    site.journal = Journal(site.state, data_set="data")
                    site.retention(FIRST + TERM + cutoff).settle()
                    assert site.journal.removals.begun() == {}
            assert site.disagreements() == []
        site.sweep(FIRST + TERM + cutoff)

        assert site.csv_files == sorted(
            name for name, windows in of_file.items() if any(released_on[index] > cutoff for index in windows)
        )
        young = {index for index, day in released_on.items() if day > cutoff}
        assert {int(name.split("-")[-2]) // (5 * NANOSECONDS) for name in site.parquet_files} == young
        assert site.disagreements() == []
        assert site.journal.released_intervals() == merged_windows(released_on)
        site.journal.close()


def dying_at(nth: int) -> Callable[[str], None]:
    left = nth

    def reached(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Crash

    return reached


def merged_windows(released_on: dict[int, int]) -> list[Window]:
    found: list[Window] = []
    for index in sorted(released_on):
        start_ns = index * 5 * NANOSECONDS
        if found and found[-1].end_ns == start_ns:
            found[-1] = Window(found[-1].start_ns, start_ns + 5 * NANOSECONDS)
        else:
            found.append(Window(start_ns, start_ns + 5 * NANOSECONDS))
    return found
