"""A report on a time span, from the journal: for streams, which have no end."""

from __future__ import annotations

from collections.abc import Sequence

from anonymizer.batch import Promise, WindowCounts
from anonymizer.windows import NANOSECONDS, Window
from service.report.figures import Delivered, Figures, Plot, Promised
from service.report.time_bins import TimeBins
from service.state.intervals import merged
from service.state.journal import Entry, Journal
from service.version import VERSION

#: The initial length of an interval; it grows with the span.
_FIRST_WIDTH_NS = 60 * NANOSECONDS

#: A merged entry of old windows is spread over at most this many intervals.
_MOST_PARTS = 200


def figures_of(
    journal: Journal, span: Window, *, now_ns: int, pseudonyms: bool, settings: tuple[tuple[str, str], ...]
) -> Figures:
    """Return the report of all windows that begin in a span.

    Args:
        journal: The journal.
        span: The span of the report.
        now_ns: The time.
        pseudonyms: Whether source ids are replaced.
        settings: The settings as they may be shown.
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
    """Return the number of windows from the first released one to the last; a gap counts in windows of the following length."""
    windows, end_ns = 0, None
    for entry in entries:
        assert entry.window_ns is not None, "accepted gaps are left out"
        gap_ns = 0 if end_ns is None else entry.interval.start_ns - end_ns
        windows += entry.windows + gap_ns // entry.window_ns
        end_ns = entry.interval.end_ns
    return windows


def _promised(entries: Sequence[Entry]) -> tuple[Promised, ...]:
    """Return each promise with the times that it covers."""
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
