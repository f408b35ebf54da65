"""The totals of a run: one set for the log, the status page, the metrics and the report."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch, WindowCounts
from anonymizer.hierarchy import SUPPRESSED_LEVEL
from anonymizer.ports import Output
from anonymizer.windows import WindowRange
from service.state.journal import Released
from service.telemetry.events import Events, Unit

#: Figures that are not part of a release (levels, fidelity) are reported only over at least this many windows.
FEWEST_WINDOWS = 12


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of a run, or of a part of it; `+` adds parts. None of them needs `FEWEST_WINDOWS`.

    Args:
        counts: Rows by outcome.
        windows: Windows that were read, empty and expired ones included.
        empty_windows: Windows without rows.
        withheld_windows: Windows with rows, none of which were released.
        expired_windows: Windows older than the source's retention.
        skipped_windows: Windows that were released before; not among `windows`.
        violations: Batches that failed verification and were withheld.
        contradictory: Withheld rows whose source has two different values for one time.
        noisy: Withheld rows of sources whose beats cannot be told from noise (METHOD=rhythm).
        without_time: Invalid rows without a usable time.
        without_source: Invalid rows that name no source.
        outside: Rows of times or sources that were not asked for; they do not count as read.
        late: Rows that arrived after their window was released.
        set_aside: Rows that an output refused for good.
        groups: Different released values, summed over windows.
        smallest_group: The fewest rows of a window that share a value; 0 before the first release.
    """

    counts: WindowCounts = field(default_factory=WindowCounts)
    windows: int = 0
    empty_windows: int = 0
    withheld_windows: int = 0
    expired_windows: int = 0
    skipped_windows: int = 0
    violations: int = 0
    contradictory: int = 0
    noisy: int = 0
    without_time: int = 0
    without_source: int = 0
    outside: int = 0
    late: int = 0
    set_aside: int = 0
    groups: int = 0
    smallest_group: int = 0

    def __add__(self, more: Totals) -> Totals:
        """Return the totals of both parts."""
        sums = {one.name: getattr(self, one.name) + getattr(more, one.name) for one in fields(self)}
        sums["smallest_group"] = min(filter(None, (self.smallest_group, more.smallest_group)), default=0)
        return Totals(**sums)

    @property
    def released_windows(self) -> int:
        """Windows with at least one released row."""
        return self.windows - self.empty_windows - self.withheld_windows - self.expired_windows

    @property
    def windows_by_outcome(self) -> dict[str, int]:
        """Windows by outcome, skipped ones included."""
        return {
            "released": self.released_windows,
            "withheld": self.withheld_windows,
            "empty": self.empty_windows,
            "expired": self.expired_windows,
            "skipped": self.skipped_windows,
        }

    @property
    def rows_by_outcome(self) -> dict[str, int]:
        """Rows that were read, and their outcomes; without those of excluded sources, which only log and journal count."""
        counts = self.counts.without_excluded()
        return {
            "read": counts.read,
            "released": counts.released,
            "withheld": counts.withheld,
            "invalid": counts.invalid,
            "duplicate": counts.duplicate,
        }

    @property
    def invalid_by_reason(self) -> dict[str, int]:
        """Invalid rows by what they lack; a row that lacks several things counts under the first."""
        without_number = self.counts.invalid - self.without_time - self.without_source
        return {"time": self.without_time, "source": self.without_source, "number": without_number}

    @property
    def unaccounted(self) -> int:
        """Rows that were read and have no outcome; must be 0."""
        counts = self.counts
        return counts.read - counts.released - counts.withheld - counts.invalid - counts.duplicate - counts.excluded


def totals_of(unit: Unit) -> Totals:
    """Return the totals of a unit that was read, anonymized and verified."""
    certificates = [result.certificate for result in unit.results if result.certificate is not None]
    return Totals(
        counts=unit.counts,
        windows=len(unit.results),
        empty_windows=sum(result.counts.read == result.counts.excluded for result in unit.results),
        withheld_windows=sum(result.counts.read > result.counts.excluded and not result.has_batch for result in unit.results),
        contradictory=sum(result.statistics.contradictory for result in unit.results),
        noisy=sum(result.statistics.noisy for result in unit.results),
        groups=sum(one.distinct_values for one in certificates),
        smallest_group=min((one.smallest_group for one in certificates), default=0),
    )


class Sums(Events):
    """Adds up the events of a run. `totals` is replaced as a whole, so that other threads read consistent figures.

    `rows_at_level` (released rows by level 0 … 9) and `unchanged` (released rows that keep their value) are for the log, and for a
    report of `FEWEST_WINDOWS` or more.
    """

    def __init__(self) -> None:
        self.totals = Totals()
        self.rows_at_level: npt.NDArray[np.int64] = np.zeros(SUPPRESSED_LEVEL + 1, dtype=np.int64)
        self.unchanged = 0
        self._lock = threading.Lock()

    def _add(self, more: Totals) -> None:
        # The threads of outputs report set-aside rows; all else comes from the release loop.
        with self._lock:
            self.totals = self.totals + more

    def nothing_in(self, windows: WindowRange) -> None:
        """Count empty windows."""
        self._add(Totals(windows=len(windows), empty_windows=len(windows)))

    def expired(self, windows: WindowRange) -> None:
        """Count expired windows."""
        self._add(Totals(windows=len(windows), expired_windows=len(windows)))

    def skipped(self, count: int, windows: WindowRange, released: Sequence[Released]) -> None:
        """Count windows that were released before."""
        self._add(Totals(skipped_windows=count))

    def anonymized(self, unit: Unit) -> None:
        """Count a unit's windows, rows and groups."""
        self._add(totals_of(unit))
        self.rows_at_level = self.rows_at_level + unit.rows_at_level
        self.unchanged += sum(result.statistics.unchanged for result in unit.results)

    def chunk_failed_verification(self, violations: int) -> None:
        """Count batches that failed verification."""
        self._add(Totals(violations=violations))

    def rows_outside(self, rows: int) -> None:
        """Count rows that were not asked for."""
        self._add(Totals(outside=rows))

    def rows_beside(self, *, without_time: int, not_requested: int) -> None:
        """Count rows without a time as read and invalid although they belong to no window."""
        self._add(Totals(WindowCounts(read=without_time, invalid=without_time), without_time=without_time, outside=not_requested))

    def rows_without_source(self, rows: int) -> None:
        """Count invalid rows that name no source."""
        self._add(Totals(without_source=rows))

    def late(self, *, rows: int, windows: int, of_rows: int, sufficient_lateness_s: int) -> None:
        """Count late rows."""
        self._add(Totals(late=rows))

    def added_too_late(self, rows: int) -> None:
        """Count rows that a file gained too late."""
        self._add(Totals(late=rows))

    def rejected(self, output: Output, batch: Batch, rows: int, reason: Exception) -> None:
        """Count rows that an output refused for good."""
        self._add(Totals(set_aside=rows))
