"""Which windows come next: all of a span (one-shot), or each as it falls due (streaming).

A window is due once its end is `lateness_ns` ago by both the service's clock and the source's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from anonymizer.samples import SampleSource
from anonymizer.windows import MOST_WINDOWS, NANOSECONDS, WindowRange, covering_windows, whole_windows
from service.clock import Clock
from service.log_event import LogEvent

_END_CLIPPED = LogEvent(
    "end_clipped", "QUERY_END_TIME is later than the last window that is due; clipped to that window's end", level=logging.WARNING
)
_SPAN_CUT = LogEvent("span_cut", "Only whole windows of %d s are read; the span was cut to their edges", "window_seconds")

#: Hours in nanoseconds, for DEFAULT_QUERY_HOURS.
_HOUR_NS = 3600 * NANOSECONDS

#: Counting costs one query per hour. For a span at least this long, the service first asks the source for its next row.
_LONG_NS = 6 * _HOUR_NS


class Schedule(Protocol):
    """Yields runs of windows that are due, in order of time."""

    @property
    def windows_in_all(self) -> int | None:
        """How many windows there will be; None: no end."""

    @property
    def start_ns(self) -> int:
        """Where the next window begins."""

    @property
    def due_end_ns(self) -> int:
        """Where the last due window ends, as of the last poll."""

    def continue_at(self, time_ns: int) -> None:
        """Continue with the window that begins then."""

    def __iter__(self) -> Iterator[WindowRange]:
        """Yield due windows, and an empty range at intervals while none is due; end after the last window or a stop request."""


@dataclass(slots=True)
class Span:
    """A schedule with an end: the windows of one run.

    Args:
        windows: All of them.
        is_by_hour: Whether the runs that it yields end at UTC hours, if possible.
    """

    windows: WindowRange
    is_by_hour: bool = False
    _position_ns: int = 0

    @property
    def windows_in_all(self) -> int:
        """How many windows there are."""
        return len(self.windows)

    @property
    def start_ns(self) -> int:
        """Where the first window begins."""
        return self.windows.start_ns

    @property
    def due_end_ns(self) -> int:
        """Where the last window ends."""
        return self.windows.end_ns

    def continue_at(self, time_ns: int) -> None:
        """Continue with the window that begins then."""
        self._position_ns = time_ns

    def __iter__(self) -> Iterator[WindowRange]:
        """Yield all windows, in runs short enough for one count."""
        self._position_ns = self.windows.start_ns
        while self._position_ns < self.windows.end_ns:
            run = _run_of_windows(self._position_ns, self.windows.end_ns, self.windows.length_ns)
            if self.is_by_hour and run.end_ns < self.windows.end_ns:
                run = _up_to_an_hour(run)
            self._position_ns = run.end_ns
            yield run


@dataclass(slots=True)
class Stream:
    """A schedule without an end.

    Args:
        source: Supplies its clock.
        clock: The service's clock.
        position_ns: Start of the next window.
        length_ns: Length of a window.
        lateness_ns: How long after its end a window falls due.
        interval_s: The longest pause between two polls.
        due_end_ns: Where the last due window ended, as of the last poll.
        aged_ns: The latest time that is `lateness_ns` ago, as of the last poll.
        part_ns: Polls also when a part of this length of the next window is `lateness_ns` old; divides `length_ns`.
    """

    source: SampleSource
    clock: Clock
    position_ns: int
    length_ns: int
    lateness_ns: int
    interval_s: float
    due_end_ns: int = 0
    aged_ns: int = 0
    part_ns: int = 0

    def __post_init__(self) -> None:
        self.part_ns = self.part_ns or self.length_ns

    @property
    def next_window(self) -> WindowRange:
        """The window that falls due next."""
        return WindowRange(self.position_ns, self.position_ns + self.length_ns, self.length_ns)

    @property
    def windows_in_all(self) -> None:
        """None: there is no end."""
        return

    @property
    def start_ns(self) -> int:
        """Where the next window begins."""
        return self.position_ns

    def continue_at(self, time_ns: int) -> None:
        """Continue with the window that begins then."""
        self.position_ns = time_ns

    def __iter__(self) -> Iterator[WindowRange]:
        """Yield windows as they fall due, many at once when behind; when none is due, an empty range, then wait."""
        while not self.clock.is_stopping():
            now_ns = _now_ns(self.source, self.clock)
            self.aged_ns = now_ns - self.lateness_ns
            self.due_end_ns = _due_end_ns(now_ns, self.length_ns, self.lateness_ns)
            if self.due_end_ns > self.position_ns:
                due = _run_of_windows(self.position_ns, self.due_end_ns, self.length_ns)
                self.position_ns = due.end_ns
                yield due
            else:
                next_part_ns = (max(self.aged_ns, self.position_ns) // self.part_ns + 1) * self.part_ns
                next_part_s = (next_part_ns - self.aged_ns) / NANOSECONDS
                next_poll_s = self.clock.monotonic_s() + min(next_part_s, self.interval_s, self.source.clock_check_in_s())
                yield WindowRange(self.position_ns, self.position_ns, self.length_ns)
                self.clock.wait(next_poll_s - self.clock.monotonic_s())


def empty_windows_ahead(source: SampleSource, schedule: Schedule, windows: WindowRange) -> WindowRange:
    """Return the windows from the start of `windows` to the source's next row, which need not be counted.

    The source is asked only if many windows are due at once, such as after a wrongly set clock or when a stream begins years ago.
    Otherwise, or if the next row is near, the result is empty.

    Args:
        source: Looks up its next row.
        schedule: Knows which windows are due.
        windows: The windows that the schedule yielded.
    """
    due_end_ns, length_ns = schedule.due_end_ns, windows.length_ns
    row_ns: int | None = windows.start_ns
    due_ns = due_end_ns - windows.start_ns
    if due_ns >= min(MOST_WINDOWS * length_ns, _LONG_NS):
        row_ns = source.next_row_ns(windows.start_ns, due_end_ns)
    end_ns = due_end_ns if row_ns is None else max(windows.start_ns, row_ns // length_ns * length_ns)
    return WindowRange(windows.start_ns, end_ns, length_ns)


def first_position_ns(source: SampleSource, clock: Clock, *, length_ns: int) -> int:
    """Return where a new stream begins: at the next window start."""
    return -(-_now_ns(source, clock) // length_ns) * length_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRequest:
    """The requested span of a one-shot run; times in nanoseconds since the Unix epoch."""

    start_ns: int | None
    end_ns: int | None
    hours: float
    length_ns: int
    lateness_ns: int
    is_by_hour: bool = False


def make_span(request: SpanRequest, source: SampleSource, clock: Clock) -> Span:
    """Return the windows of a one-shot run: only whole and due ones; for a file, all of them unless a span is set."""
    bounds = source.extent()
    if source.now_ns() is None:
        return Span(_windows_of_file(request, bounds), request.is_by_hour)
    due_end_ns = _due_end_ns(_now_ns(source, clock), request.length_ns, request.lateness_ns)
    end_ns = due_end_ns if request.end_ns is None else request.end_ns
    if end_ns > due_end_ns:
        _END_CLIPPED.log()
        end_ns = due_end_ns
    start_ns = end_ns - int(request.hours * _HOUR_NS) if request.start_ns is None else request.start_ns
    return Span(_whole(start_ns, end_ns, request.length_ns), request.is_by_hour)


def _run_of_windows(start_ns: int, end_ns: int, length_ns: int) -> WindowRange:
    return WindowRange(start_ns, min(end_ns, start_ns + MOST_WINDOWS * length_ns), length_ns)


def _up_to_an_hour(run: WindowRange) -> WindowRange:
    """Return a run cut at the last hour that begins in it; the whole run if none does."""
    first_ns = -(-(run.end_ns // _HOUR_NS * _HOUR_NS) // run.length_ns) * run.length_ns
    return WindowRange(run.start_ns, first_ns if run.start_ns < first_ns < run.end_ns else run.end_ns, run.length_ns)


def _windows_of_file(request: SpanRequest, bounds: tuple[int, int] | None) -> WindowRange:
    if bounds is None:
        return WindowRange(0, 0, request.length_ns)
    held = covering_windows(*bounds, request.length_ns)
    start_ns = held.start_ns if request.start_ns is None else max(request.start_ns, held.start_ns)
    end_ns = held.end_ns if request.end_ns is None else min(request.end_ns, held.end_ns)
    return _whole(start_ns, end_ns, request.length_ns)


def _whole(start_ns: int, end_ns: int, length_ns: int) -> WindowRange:
    windows = whole_windows(start_ns, end_ns, length_ns)
    if len(windows) and (windows.start_ns, windows.end_ns) != (start_ns, end_ns):
        _SPAN_CUT.log(length_ns // NANOSECONDS)
    return windows


def _now_ns(source: SampleSource, clock: Clock) -> int:
    """Return the earlier time of the two clocks: a window must not seem complete because one of them is ahead."""
    source_now_ns = source.now_ns()
    return clock.now_ns() if source_now_ns is None else min(clock.now_ns(), source_now_ns)


def _due_end_ns(now_ns: int, length_ns: int, lateness_ns: int) -> int:
    return (now_ns - lateness_ns) // length_ns * length_ns
