"""Sums over a run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch, WindowCounts
from anonymizer.hierarchy import SUPPRESSED_LEVEL
from anonymizer.ports import Output
from anonymizer.windows import WindowRange
from service.state.journal import Released
from service.telemetry.events import Events, Unit

#: No figure that is not part of a release is told of fewer windows than this, in the log, on a page or in a report.
FEWEST_WINDOWS = 12


@dataclass(slots=True)
class Totals:
    """Sums over the run. `counts` is replaced as a whole, so that whoever reads it from another thread reads what adds up."""

    counts: WindowCounts = field(default_factory=WindowCounts)
    rows_at_level: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(SUPPRESSED_LEVEL + 1, dtype=np.int64))
    windows: int = 0
    empty_windows: int = 0
    withheld_windows: int = 0
    skipped_windows: int = 0
    unchanged: int = 0
    contradictory: int = 0
    outside: int = 0
    without_time: int = 0
    without_source: int = 0
    violations: int = 0
    set_aside: int = 0
    expired_windows: int = 0
    late: int = 0

    @property
    def invalid_by_reason(self) -> dict[str, int]:
        """Invalid rows by what they lack; a row that lacks several counts under the first."""
        without_number = self.counts.invalid - self.without_time - self.without_source
        return {"time": self.without_time, "source": self.without_source, "number": without_number}

    @property
    def released_windows(self) -> int:
        """Windows of which something was released."""
        return self.windows - self.empty_windows - self.withheld_windows - self.expired_windows


class Sums(Events):
    """Adds up what happens."""

    def __init__(self) -> None:
        self.totals = Totals()
        self._lock = threading.Lock()

    def nothing_in(self, windows: WindowRange) -> None:
        """Count them as windows and as empty ones."""
        self.totals.windows += len(windows)
        self.totals.empty_windows += len(windows)

    def expired(self, windows: WindowRange) -> None:
        """Count them as windows and as expired ones."""
        self.totals.windows += len(windows)
        self.totals.expired_windows += len(windows)

    def late(self, *, rows: int, windows: int, of_rows: int, sufficient_lateness_s: int) -> None:
        """Count the rows."""
        self.totals.late += rows

    def added_too_late(self, rows: int) -> None:
        """Count them as late."""
        self.totals.late += rows

    def skipped(self, count: int, windows: WindowRange, released: Sequence[Released]) -> None:
        """Count the windows."""
        self.totals.skipped_windows += count

    def anonymized(self, unit: Unit) -> None:
        """Count its windows and rows."""
        totals = self.totals
        totals.counts = totals.counts + unit.counts
        totals.rows_at_level = totals.rows_at_level + unit.rows_at_level
        totals.windows += len(unit.results)
        totals.empty_windows += sum(result.counts.read == 0 for result in unit.results)
        totals.withheld_windows += sum(result.counts.read > 0 and result.batch is None for result in unit.results)
        totals.unchanged += sum(result.statistics.unchanged for result in unit.results)
        totals.contradictory += sum(result.statistics.contradictory for result in unit.results)

    def rejected(self, output: Output, batch: Batch, rows: int, reason: Exception) -> None:
        """Count the rows; several outputs may be refusing at once."""
        with self._lock:
            self.totals.set_aside += rows

    def chunk_failed_verification(self, violations: int) -> None:
        """Count the batches."""
        self.totals.violations += violations

    def rows_outside(self, rows: int) -> None:
        """Count the rows."""
        self.totals.outside += rows

    def rows_beside(self, *, without_time: int, not_asked_for: int) -> None:
        """Count rows without a time as read and invalid: they are of no window, and of the run all the same."""
        totals = self.totals
        totals.counts = totals.counts + WindowCounts(read=without_time, invalid=without_time)
        totals.without_time += without_time
        totals.outside += not_asked_for

    def rows_without_source(self, rows: int) -> None:
        """Count the rows."""
        self.totals.without_source += rows
