"""Records the figures for the report of a run: sums over time, never a single window."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Sequence

from anonymizer.batch import Promise
from anonymizer.ports import Output
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service.clock import Clock
from service.report.figures import Attacked, Delivered, Detail, Figures, Promised
from service.report.time_bins import TimeBins
from service.settings.declared import Settings
from service.settings.shown import shown_settings
from service.state.intervals import merged
from service.state.journal import Released
from service.state.output_positions import OutputPosition
from service.telemetry.events import Events, Sweep, Unit
from service.telemetry.totals import FEWEST_WINDOWS, Sums
from service.version import VERSION


class RunRecorder(Events):
    """Records a run.

    Args:
        settings: Shown in the report, without secrets.
        clock: The service's clock.
        sums: The totals of the run.
    """

    def __init__(self, settings: Settings, clock: Clock, sums: Sums) -> None:
        self._settings = settings
        self._clock = clock
        self._began_s = clock.monotonic_s()
        length_ns = settings.batch_size_seconds * NANOSECONDS
        self._over_time = TimeBins(FEWEST_WINDOWS * length_ns)
        self._throughput = TimeBins(NANOSECONDS // 10)
        self._sums = sums
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._spans: list[Window] = []
        self._covered: list[Window] = []
        self._smallest_groups: Counter[int] = Counter()
        self._is_complete = False
        self._ended_s = 0.0
        self._workers = 0
        self._attacked: Attacked | None = None
        self._removed: Sweep | None = None
        #: The head of the audit log at the end of the run; empty without one.
        self.head = ""

    def figures(self, positions: Sequence[OutputPosition], promise: Promise) -> Figures:
        """Return the report so far.

        Args:
            positions: The positions of the outputs.
            promise: The promise of released windows.
        """
        totals = self._sums.totals
        covered = merged(sorted(self._covered))
        released = tuple(merged(sorted(self._spans)))
        return Figures(
            made_ns=self._clock.now_ns(),
            of="a one-shot run",
            asked=Window(covered[0].start_ns, covered[-1].end_ns) if covered else None,
            promised=(Promised(promise, self._settings.batch_size_seconds, released),),
            windows_in_all=totals.windows + totals.skipped_windows,
            windows_released=totals.released_windows,
            counts=totals.counts.without_excluded(),
            rows_late=totals.late,
            outputs_since="in this run",
            outputs=tuple(Delivered(one.name, self._taken[one.name], self._refused[one.name], one.pending) for one in positions),
            over_time=self._over_time.plot("released", "withheld", "empty", "rows_released", "rows_withheld", "rows_late"),
            detail=self._detail(has_groups=promise.k is not None),
            settings=(*shown_settings(self._settings), *([("Head of AUDIT_LOG", self.head)] if self.head else [])),
            version=VERSION,
            pseudonyms=self._settings.pseudonymize_source_id,
        )

    def attacked(self, found: Attacked) -> None:
        """Record how often attackers are right."""
        self._attacked = found

    # Events

    def nothing_in(self, windows: WindowRange) -> None:
        """Count empty windows."""
        self._cover(windows)
        # Years may be empty: count by interval, not by window.
        for start_ns, end_ns in self._over_time.intervals(windows.start_ns, windows.end_ns):
            before, begun = (-(-(time_ns - windows.start_ns) // windows.length_ns) for time_ns in (start_ns, end_ns))
            self._over_time.add(start_ns, {"empty": begun - before})

    def expired(self, windows: WindowRange) -> None:
        """Count expired windows as covered."""
        self._cover(windows)

    def skipped(self, count: int, windows: WindowRange, released: Sequence[Released]) -> None:
        """Count skipped windows as covered."""
        self._cover(windows)

    def anonymized(self, unit: Unit) -> None:
        """Add the unit's windows."""
        self._cover(unit.windows)
        for result in unit.results:
            counts = result.counts
            outcome = "released" if result.has_batch else "withheld" if counts.read > counts.excluded else "empty"
            rows = {"rows_released": counts.released, "rows_withheld": counts.withheld}
            self._over_time.add(result.window.start_ns, {outcome: 1, **rows})
            if result.certificate is not None:
                self._spans.append(result.window)
                self._smallest_groups[result.certificate.smallest_group] += 1
        self._spans = merged(sorted(self._spans))

    def took(self, seconds: float, rows: int, windows: int = 1) -> None:
        """Spread the rows over their processing time."""
        end_s = self._clock.monotonic_s() - self._began_s
        steps = max(1, min(20, int(seconds * 10)))
        for step in range(steps):
            middle_s = end_s - seconds * (step + 0.5) / steps
            self._throughput.add(int(middle_s * NANOSECONDS), {"rows": rows / steps})

    def wrote(self, output: Output, rows: int) -> None:
        """Count the rows."""
        with self._lock:
            self._taken[output.name] += rows

    def rejected(self, output: Output, batch: object, rows: int, reason: Exception) -> None:
        """Count the rows."""
        with self._lock:
            self._refused[output.name] += rows

    def workers(self, count: int) -> None:
        """Remember the most."""
        self._workers = max(self._workers, count)

    def swept(self, sweep: Sweep) -> None:
        """Record what was removed."""
        self._removed = sweep

    def finished(self, seconds: float) -> None:
        """Record that the run ended by itself, unless it was asked to stop."""
        self._is_complete = not self._clock.is_stopping()
        self._ended_s = self._clock.monotonic_s()

    def _cover(self, windows: WindowRange) -> None:
        self._covered = merged(sorted([*self._covered, Window(windows.start_ns, windows.end_ns)]))

    def _detail(self, *, has_groups: bool) -> Detail:
        totals = self._sums.totals
        enough = has_groups and totals.released_windows >= FEWEST_WINDOWS
        throughput = self._throughput.plot("rows")
        ((_, rows_at_a_time),), per_second = throughput.series, NANOSECONDS / throughput.width_ns
        return Detail(
            windows_withheld=totals.withheld_windows,
            windows_empty=totals.empty_windows,
            windows_expired=totals.expired_windows,
            windows_skipped=totals.skipped_windows,
            violations=totals.violations,
            rows_outside=totals.outside,
            invalid_by_reason=totals.invalid_by_reason,
            rows_contradictory=totals.contradictory,
            rows_noisy=totals.noisy,
            smallest_group=totals.smallest_group,
            groups=totals.groups,
            smallest_groups=_by_size(self._smallest_groups, self._settings.k_value) if has_groups else (),
            rows_at_level=tuple(int(rows) for rows in self._sums.rows_at_level[1:]) if enough else None,
            unchanged=self._sums.unchanged if enough else None,
            took_s=(self._ended_s or self._clock.monotonic_s()) - self._began_s,
            throughput=dataclasses.replace(throughput, series=(("rows", tuple(rows * per_second for rows in rows_at_a_time)),)),
            is_complete=self._is_complete,
            workers=self._workers,
            attacked=self._attacked,
            removed=self._removed,
        )


def _by_size(windows: Counter[int], k: int) -> tuple[tuple[str, int], ...]:
    """Return windows by the size of their smallest group, in steps of k."""
    bounds = [(f"{k}", k, k), (f"{k + 1} … {2 * k - 1}", k + 1, 2 * k - 1), (f"{2 * k} … {5 * k - 1}", 2 * k, 5 * k - 1)]
    found = [(label, sum(number for size, number in windows.items() if low <= size <= high)) for label, low, high in bounds]
    below = sum(number for size, number in windows.items() if size < k)
    above = sum(number for size, number in windows.items() if size >= 5 * k)
    return ((f"fewer than {k}", below), *found, (f"{5 * k} or more", above))
