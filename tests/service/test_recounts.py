"""What comes after a window's release is counted, said, and never released."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from anonymizer.errors import SourceUnavailable, StateUnavailable
from anonymizer.windows import Window, WindowRange
from service.pipeline.recounts import RECOUNT_EVERY_S, Recounts
from service.pipeline.upkeep import MERGED_AFTER_NS, Upkeep
from service.telemetry.hub import Telemetry
from tests.service.fakes import FakeClock, FakeSource
from tests.service.journals import S, new_journal, release

AFTER_S = (30, 300)


class Desk:
    """Twelve windows of five seconds, each with two rows a second of two wearers, all released ten seconds after the last one's end."""

    def __init__(self, folder: Path) -> None:
        self.source = FakeSource([(second, name, 1.0) for second in range(60) for name in ("a", "b")])
        self.clock = FakeClock(70.0)
        self.journal = new_journal(folder)
        self.release(*range(12))
        self.telemetry = Telemetry(k=2, verbose=False)
        self.recounts = Recounts(self.source, self.journal, self.telemetry, self.clock, after_s=AFTER_S)
        self.upkeep = Upkeep(self.source, self.journal, self.recounts, self.clock, most_recounts=len(AFTER_S))

    def release(self, *indexes: int, rows: int = 10) -> None:
        release(self.journal, *((i * 5, i * 5 + 5) for i in indexes), rows=rows, now_s=self.clock.now_s)

    def look(self, now_s: float) -> None:
        self.clock.now_s = now_s
        self.recounts.count_due_windows()

    def late(self) -> dict[int, int]:
        """Return the seconds at which windows with late rows begin, and how many each has."""
        entries = self.journal.entries_within(Window(0, 6000 * S))
        return {one.interval.start_ns // S: one.late for one in entries if one.late}

    def counts(self) -> int:
        return sum(kind == "count" for kind, _ in self.source.questions)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.journal.close()


def test_late_rows_are_counted_for_their_window_and_named_with_the_lateness_that_would_have_sufficed(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.source.rows += [(12.5, "a", 7.0), (13.5, "a", 7.0), (57.5, "b", 7.0)]

    desk.look(100)

    assert desk.late() == {10: 2, 55: 1}
    # At second 100 they were there; the older of their windows ended at second 15.
    assert (
        "3 rows came after their windows were released (2 windows) and are not released; ALLOWED_LATENESS_SECONDS=85"
        in caplog.text
    )
    assert caplog.records[-1].levelno == logging.WARNING
    assert desk.telemetry.totals.late == 3


def test_rows_that_the_source_counts_twice_in_a_long_range_are_not_late(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.source.rows += [(12.5, "a", 7.0)]
    count = desk.source.count

    def counts_some_twice(windows: WindowRange) -> npt.NDArray[np.int64]:
        counted = count(windows)
        counted[7:8] += 3
        return counted

    monkeypatch.setattr(desk.source, "count", counts_some_twice)

    desk.look(100)

    assert desk.late() == {10: 1}


def test_a_few_late_rows_among_very_many_are_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    telemetry = Telemetry(k=2, verbose=False)

    telemetry.late(rows=1, windows=1, of_rows=1000, sufficient_lateness_s=9)
    telemetry.late(rows=2, windows=1, of_rows=1000, sufficient_lateness_s=9)
    telemetry.late(rows=0, windows=0, of_rows=1000, sufficient_lateness_s=0)

    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.WARNING]


@pytest.mark.parametrize(("removed", "late"), [(False, 2), (True, 1)])
def test_rows_are_late_once_however_often_they_are_counted_and_even_if_the_source_removes_them(
    removed: bool, late: int, desk: Desk
) -> None:
    desk.source.rows.append((12.5, "a", 7.0))
    desk.look(100)
    # All of them in one question, and by itself the window that was found to have late rows.
    assert [(kind, len(windows)) for kind, windows in desk.source.questions] == [("count", 12), ("count", 1)]
    desk.source.rows = [] if removed else [*desk.source.rows, (12.6, "a", 7.0)]
    desk.look(370)
    desk.look(10_000)

    assert (desk.journal.late_rows.total(), desk.telemetry.totals.late) == (late, late)
    assert desk.counts() == 2 + (1 if removed else 2)


def test_windows_far_apart_are_counted_apart_and_others_between_them_do_not_matter(desk: Desk) -> None:
    desk.release(20, 1000)
    desk.source.rows += [(101.0, "a", 1.0)] + [(100 + i / 10, "b", 1.0) for i in range(10)] + [(76.0, "x", 1.0)]

    desk.look(6000)

    # The second is the window that was found to have a late row, by itself.
    assert [len(windows) for _, windows in desk.source.questions] == [21, 1, 1]
    assert desk.late() == {100: 1}


def test_a_source_that_does_not_answer_is_asked_another_time(desk: Desk) -> None:
    desk.source.rows.append((12.5, "a", 7.0))
    desk.source.failures.append(SourceUnavailable("down"))
    desk.look(100)
    assert desk.journal.late_rows.total() == 0
    desk.look(100)
    assert desk.journal.late_rows.total() == 1


def test_upkeep_counts_no_more_often_than_its_pace_however_often_it_is_called(desk: Desk) -> None:
    for step in range(100):
        desk.clock.now_s = 100.0 + step / 10
        desk.release(100 + step)
        desk.upkeep()

    assert desk.counts() == 1
    assert RECOUNT_EVERY_S > 10


def test_upkeep_makes_old_entries_one(desk: Desk) -> None:
    desk.look(10_000)
    desk.clock.now_s = 60 + MERGED_AFTER_NS / S
    desk.journal.outputs.forget_chunks_all_have()

    desk.upkeep()

    (entry,) = desk.journal.entries_within(Window(0, 60 * S))
    assert (entry.windows, entry.counts.read) == (12, 120)


@pytest.mark.parametrize(("kept_since_s", "is_said"), [(-1000, False), (10, False), (55, True), (90, True)])
def test_a_warning_comes_before_the_source_removes_what_was_not_released(
    desk: Desk, caplog: pytest.LogCaptureFixture, kept_since_s: int, is_said: bool
) -> None:
    desk.journal.move_stream(60 * S)
    desk.source.kept_since = kept_since_s * S

    desk.upkeep()
    desk.upkeep()

    assert caplog.text.count("what is not released within") == int(is_said)


def test_upkeep_that_the_disk_does_not_take_now_is_done_later_and_stops_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.source.rows.append((12.5, "a", 7.0))
    desk.clock.now_s = 100.0
    really_record, failures = desk.journal.late_rows.record_recounts, [StateUnavailable("disk full")]

    def full_at_first(*values: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        really_record(*values, **options)

    monkeypatch.setattr(desk.journal.late_rows, "record_recounts", full_at_first)

    desk.upkeep()
    assert desk.journal.late_rows.total() == 0
    desk.clock.now_s += RECOUNT_EVERY_S
    desk.upkeep()

    assert desk.journal.late_rows.total() == 1


def test_what_the_disk_does_not_take_is_done_at_the_next_call_and_not_a_day_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Exception | None] = [StateUnavailable("no room"), None, AssertionError("it was done already")]

    def merge_before(time_ns: int, *, recounts: int) -> int:
        if answer := answers.pop(0):
            raise answer
        return 0

    monkeypatch.setattr(desk.journal, "merge_before", merge_before)

    for _ in range(3):
        desk.upkeep()

    assert len(answers) == 1
