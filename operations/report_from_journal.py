"""A report from the journal for a span of time: for a stream, which has no end of its own."""

from __future__ import annotations

from collections.abc import Sequence

from anonymizer.batch import Promise, WindowCounts
from anonymizer.windows import NANOSECONDS, Window
from service.report.figures import Delivered, Figures, Plot, Promised
from service.report.time_bins import TimeBins
from service.state.intervals import merged
from service.state.journal import Entry, Journal
from service.version import VERSION

#: A bar is a minute at first, and grows with the span.
_FIRST_WIDTH_NS = 60 * NANOSECONDS

#: Old windows were made one entry; it is spread over this many bars at most.
_MOST_PARTS = 200


def figures_of(
    journal: Journal, span: Window, *, now_ns: int, pseudonyms: bool, settings: tuple[tuple[str, str], ...]
) -> Figures:
    """Return the report of all windows that begin in a span.

    Args:
        journal: The journal.
        span: From when to when.
        now_ns: The time.
        pseudonyms: Whether source ids are replaced.
        settings: As they may be shown.
    """
    entries = [entry for entry in journal.entries_within(span) if span.start_ns <= entry.interval.start_ns < span.end_ns]
    known = [entry for entry in entries if entry.window_ns is not None]
    return Figures(
        made_ns=now_ns,
        of="a stream" if ("STREAMING_MODE", "true") in settings else "what was released",
        asked=span,
        promised=_promised(entries),
        windows_in_all=_windows_from_first_to_last(known),
        windows_released=sum(entry.windows for entry in known),
        counts=sum((entry.counts for entry in known), WindowCounts()),
        rows_late=sum(entry.late for entry in known),
        outputs_since="since STATE_DIR was begun, whatever times the report is of",
        outputs=tuple(Delivered(one.name, one.taken, one.set_aside, one.pending) for one in journal.outputs.positions()),
        over_time=_over_time(known),
        detail=None,
        settings=settings,
        version=VERSION,
        pseudonyms=pseudonyms,
    )


def _windows_from_first_to_last(entries: Sequence[Entry]) -> int:
    """Return how many windows there are from the first released one to the last, gaps counted in windows as long as the next."""
    windows, end_ns = 0, None
    for entry in entries:
        assert entry.window_ns is not None, "gaps that were accepted are left out"
        gap_ns = 0 if end_ns is None else entry.interval.start_ns - end_ns
        windows += entry.windows + gap_ns // entry.window_ns
        end_ns = entry.interval.end_ns
    return windows


def _promised(entries: Sequence[Entry]) -> tuple[Promised, ...]:
    """Return each promise with the times it was made for."""
    found: dict[tuple[Promise | None, int], list[Window]] = {}
    for entry in entries:
        found.setdefault((entry.promise, (entry.window_ns or 0) // NANOSECONDS), []).append(entry.interval)
    return tuple(Promised(promise, window_s, tuple(merged(sorted(spans)))) for (promise, window_s), spans in found.items())


def _over_time(entries: Sequence[Entry]) -> Plot:
    bins = TimeBins(_FIRST_WIDTH_NS)
    for entry in entries:
        parts = min(entry.windows, _MOST_PARTS)
        length_ns = entry.interval.end_ns - entry.interval.start_ns
        share = {
            "released": entry.windows / parts,
            "rows_released": entry.counts.released / parts,
            "rows_withheld": entry.counts.withheld / parts,
            "rows_late": entry.late / parts,
        }
        for part in range(parts):
            bins.add(entry.interval.start_ns + part * length_ns // parts, share)
    return bins.plot("released", "rows_released", "rows_withheld", "rows_late")
