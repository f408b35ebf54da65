"""Rows added to a file or data set since its release: which ones are new, and how to release only those of a file.

The journal knows the data set, so no released window is released again. But withheld windows of a file must not be retried unless the
operator asks for it: QUERY_START_TIME must name the first window with added rows.

Files added to a data set are treated like rows added to a bucket: open windows are released, and rows of released windows count as late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from anonymizer.errors import ConfigurationError
from anonymizer.samples import SampleSource
from anonymizer.windows import MOST_WINDOWS, NANOSECONDS, Window, WindowRange
from service.settings.declared import Settings
from service.state.intervals import merged
from service.state.journal import Entry, Journal
from service.telemetry.events import Events
from service.telemetry.hub import Telemetry
from service.time_texts import date_and_time, moment_text


def account_for_added_rows(settings: Settings, source: SampleSource, journal: Journal, telemetry: Telemetry) -> None:
    """Check that a run over a grown file starts at the first window with added rows; count added rows that are too late.

    Raises:
        ConfigurationError: QUERY_START_TIME is missing or too early. The message says which part is new and what to set.
    """
    added_ns = None if journal.facts.data_set == source.data_set else source.added_since(journal.facts.data_set)
    if added_ns is None or not len(added_ns):
        return
    length_ns = settings.batch_size_seconds * NANOSECONDS
    starts_ns = np.unique(added_ns // length_ns * length_ns)
    is_free = _is_free(starts_ns, length_ns, journal.released_intervals())
    late = _late(source, journal, starts_ns[~is_free], length_ns)
    if is_free.any():
        first_ns = int(starts_ns[is_free].min())
        if settings.query_start_time is None or settings.query_start_time < first_ns:
            raise ConfigurationError(_advice(added_ns, late, first_ns))
    telemetry.added_too_late(late)


def account_for_parts(source: SampleSource, journal: Journal, telemetry: Events) -> None:
    """Report which files of a data set are new, changed or gone since the last start, and count their late rows.

    Released windows stay as they are. Open windows are released with their current rows, since nothing of them was released.
    """
    if source.inventory is None:
        return
    now, request = source.inventory.states(), source.inventory.request
    found = journal.parts.compare(now, request=request)
    late = _late_in(source, journal, merged(source.inventory.times_of([*found.added, *found.changed])))
    if not found.is_first and (found.added or found.changed or found.gone):
        telemetry.parts_changed(added=len(found.added), changed=len(found.changed), gone=len(found.gone))
    telemetry.added_too_late(sum(rows - entry.late for entry, rows in late))
    journal.late_rows.record({entry.interval.start_ns: rows for entry, rows in late})
    journal.parts.record(now, request=request, gone=found.gone)


def _late_in(source: SampleSource, journal: Journal, spans: list[Window]) -> list[tuple[Entry, int]]:
    """Return released intervals in the spans that now have more late rows than recorded, each with its number of late rows."""
    entries = {
        entry.interval.start_ns: entry
        for span in spans
        for entry in journal.entries_within(span)
        if entry.window_ns is not None and entry.is_comparable
    }
    found = []
    for run in _runs(list(entries.values())):
        length_ns = run[0].window_ns or 1
        windows = WindowRange(run[0].interval.start_ns, run[-1].interval.end_ns, length_ns)
        counted = source.count(windows)
        for entry in run:
            first, stop = ((at - windows.start_ns) // length_ns for at in (entry.interval.start_ns, entry.interval.end_ns))
            late = int(counted[first:stop].sum()) - entry.rows_read
            if late > entry.late:
                found.append((entry, late))
    return found


def _runs(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield runs of neighbouring entries with the same window length, each short enough for one count unless it is a single entry."""
    first = 0
    for index in range(1, len(entries) + 1):
        is_end = index == len(entries)
        if is_end or not _are_one_run(entries[first], entries[index - 1], entries[index]):
            if index > first:
                yield entries[first:index]
            first = index


def _are_one_run(first: Entry, last: Entry, following: Entry) -> bool:
    windows = (following.interval.end_ns - first.interval.start_ns) // (first.window_ns or 1)
    is_next = following.interval.start_ns == last.interval.end_ns
    return is_next and following.window_ns == first.window_ns and windows <= MOST_WINDOWS


def _late(source: SampleSource, journal: Journal, starts_ns: npt.NDArray[np.int64], length_ns: int) -> int:
    """Return how many rows released windows have gained since they were read. Only windows with added rows are counted."""
    if not len(starts_ns):
        return 0
    late = 0
    for entry in journal.entries_within(Window(int(starts_ns[0]), int(starts_ns[-1]) + length_ns)):
        start_ns, end_ns = entry.interval.start_ns, entry.interval.end_ns
        first, stop = np.searchsorted(starts_ns, (start_ns - length_ns + 1, end_ns))
        if entry.window_ns is not None and first < stop:
            now = int(source.count(WindowRange(start_ns, end_ns, entry.window_ns)).sum())
            late += max(0, now - entry.rows_read)
    return late


def _is_free(starts_ns: npt.NDArray[np.int64], length_ns: int, released: list[Window]) -> npt.NDArray[np.bool_]:
    """Return which windows overlap no released interval; the intervals ascend."""
    ends = np.array([one.end_ns for one in released], dtype=np.int64)
    begins = np.array([one.start_ns for one in released] + [np.iinfo(np.int64).max], dtype=np.int64)
    # If the first interval that ends after a window's start begins after the window's end, no interval overlaps the window.
    free: npt.NDArray[np.bool_] = begins[np.searchsorted(ends, starts_ns, side="right")] >= starts_ns + length_ns
    return free


def _advice(added_ns: npt.NDArray[np.int64], late: int, first_ns: int) -> str:
    too_late = f" {late} of them belong to released windows: they are too late and are not released." if late else ""
    first, last = date_and_time(int(added_ns.min())), date_and_time(int(added_ns.max()))
    return (
        f"INPUT_FILE has grown since it was released: {len(added_ns)} rows were added, with times from {first} to {last}.{too_late} To "
        f"release only new rows, set QUERY_START_TIME={moment_text(first_ns)} and keep STATE_DIR: with another one the rest is released "
        "twice"
    )
