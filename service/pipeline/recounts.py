"""Late rows: released windows are counted again later, and rows that arrived since are counted as late.

A window is never released again: a second release with one more row would reveal that row. So the service can only report how many rows
were late, and which ALLOWED_LATENESS_SECONDS would have waited for them.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import numpy as np

from anonymizer.errors import SourceError
from anonymizer.samples import SampleSource
from anonymizer.windows import MOST_WINDOWS, NANOSECONDS, WindowRange
from service.clock import Clock
from service.log_event import LogEvent
from service.state.journal import Journal
from service.state.late_rows import Recount
from service.telemetry.hub import Telemetry

_RECOUNT_POSTPONED = LogEvent("recount_postponed", "Counting late rows is postponed: %s", "reason", logging.DEBUG)

#: The shortest time between two rounds of recounts. Each round counts many windows in one query.
RECOUNT_EVERY_S = 30.0

#: Windows with at most this many others between them are counted in one query.
_LONGEST_GAP = 60

#: At most this many windows per query that seem to have late rows are counted again individually.
_MOST_CHECKED = 64


class Recounts:
    """Counts released windows again when due.

    Args:
        source: Counts rows.
        journal: Knows how many rows were read, and records how many were late.
        telemetry: Receives the late rows.
        clock: The service's clock.
        after_s: How long after a release to count again, in seconds; one recount each.
    """

    def __init__(
        self, source: SampleSource, journal: Journal, telemetry: Telemetry, clock: Clock, *, after_s: Sequence[int]
    ) -> None:
        self._source = source
        self._journal = journal
        self._telemetry = telemetry
        self._clock = clock
        self._after_ns = [seconds * NANOSECONDS for seconds in sorted(after_s)]

    def count_due_windows(self) -> None:
        """Count the windows that are due, up to a limit. If the source does not answer, they are counted later."""
        now_ns = self._clock.now_ns()
        due = self._journal.late_rows.due(self._after_ns, now_ns=now_ns, most=MOST_WINDOWS)
        for run in _runs(due):
            try:
                self._count(run, now_ns)
            except SourceError as error:
                _RECOUNT_POSTPONED.log(error)
                return

    def _count(self, run: Sequence[Recount], now_ns: int) -> None:
        length_ns = run[0].window.end_ns - run[0].window.start_ns
        windows = WindowRange(run[0].window.start_ns, run[-1].window.end_ns, length_ns)
        counted = self._source.count(windows)
        index = windows.index_of(np.array([one.window.start_ns for one in run]))
        known = np.array([one.read + one.late for one in run])
        for at in index[counted[index] > known][:_MOST_CHECKED].tolist():
            # InfluxDB up to 2.7.12 may count rows twice in a long range (decision 016), but hardly ever in a single window.
            counted[at] = self._source.count(windows.part(at, at + 1))[0]
        late_now = [max(one.late, int(rows) - one.read) for one, rows in zip(run, counted[index], strict=True)]
        found = [dataclasses.replace(one, late=late) for one, late in zip(run, late_now, strict=True)]
        self._journal.late_rows.record_recounts(found, after_ns=self._after_ns, now_ns=now_ns)
        self._report(run, found, now_ns)

    def _report(self, before: Sequence[Recount], after: Sequence[Recount], now_ns: int) -> None:
        changed = [one for one, was in zip(after, before, strict=True) if one.late > was.late]
        rows = sum(one.late for one in after) - sum(one.late for one in before)
        # By now the late rows have arrived: this long after the end of their oldest window.
        sufficient_s = -(-max((now_ns - one.window.end_ns for one in changed), default=0) // NANOSECONDS)
        self._telemetry.late(
            rows=rows, windows=len(changed), of_rows=sum(one.read for one in after), sufficient_lateness_s=sufficient_s
        )


def _runs(due: Sequence[Recount]) -> Iterator[Sequence[Recount]]:
    """Yield runs of windows of the same length that are close together."""
    first = 0
    for index in range(1, len(due) + 1):
        if index == len(due) or not _are_close(due[index - 1], due[index]):
            if index > first:
                yield due[first:index]
            first = index


def _are_close(one: Recount, other: Recount) -> bool:
    length_ns = one.window.end_ns - one.window.start_ns
    same_length = other.window.end_ns - other.window.start_ns == length_ns
    return same_length and other.window.start_ns - one.window.end_ns <= _LONGEST_GAP * length_ns
