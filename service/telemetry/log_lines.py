"""The log lines of a run (`documentation/OPERATIONS.md`), and its warnings. Counts only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import WindowResult
from anonymizer.batch import Batch, Promise, WindowCounts
from anonymizer.hierarchy import STAR_LEVEL
from anonymizer.ports import Output
from anonymizer.windows import WindowRange
from service.log_event import LogEvent
from service.state.journal import Released
from service.telemetry.events import Events, Unit
from service.telemetry.totals import Sums, totals_of
from service.time_texts import as_datetime

_DAY = LogEvent("day", "📅 %s (UTC)", "day")
_PROCESSING = LogEvent("processing", "📦 Processing batch: %s", "windows")
_FETCHED = LogEvent("fetched", "  Fetched %d records from batch", "rows")
_ANONYMIZING = LogEvent("anonymizing", "🔒 Anonymizing batch: %d records (K=%d)", "rows k")
_EXCLUDED = LogEvent("excluded", "🚫 %d records of excluded sources are not released", "rows")
_REMOVING_SHAPES = LogEvent("removing_shapes", "🔒 Anonymizing batch: %d records (rhythm: the shape is removed)", "rows")
_SATISFIED = LogEvent("satisfied", "  %s", "summary")
_ANONYMIZED = LogEvent("anonymized", "  Anonymization complete: %d records", "rows")
_LEVELS = LogEvent("levels", "📈 Level distribution: %s", "rows_at_level")
_WINDOW_STATISTICS = LogEvent(
    "window_statistics",
    "📊 Window %s: levels %s, %d groups, smallest %s, mean level %s",
    "window rows_at_level groups smallest_group mean_level",
)
_NO_DATA = LogEvent("no_data", "No data in this batch, skipping...")
_WINDOWS_EXPIRED = LogEvent(
    "windows_expired", "⌛ %d windows expired: %s is older than what the source keeps", "count windows", logging.WARNING
)
_WINDOWS_SKIPPED = LogEvent(
    "windows_skipped", "⏭️ %d windows of %s were released before (%s) and are skipped", "count windows promises"
)
_ROWS_LATE = LogEvent(
    "rows_late",
    "⏰ %d rows came after their windows were released (%d windows) and are not released; ALLOWED_LATENESS_SECONDS=%d would have "
    "waited for them",
    "rows windows sufficient_lateness_seconds",
)
_PARTS_CHANGED = LogEvent(
    "parts_changed",
    "🗂️ INPUT_FILE since the last start: %d files are new, %d have changed, %d are gone; released windows do not change",
    "added changed gone",
)
_ADDED_TOO_LATE = LogEvent(
    "added_too_late",
    "⏰ %d rows that were added to INPUT_FILE belong to windows that were released before, and are not released",
    "rows",
    logging.WARNING,
)
_ROWS_OUTSIDE = LogEvent(
    "rows_outside", "%d rows had times outside the requested span; they are not released", "rows", logging.WARNING
)
MUCH_WITHHELD = LogEvent(
    "much_withheld",
    "⚠️ %.0f %% of records suppressed, dropped or withheld; raise BATCH_SIZE_SECONDS, lower K_VALUE or add sources",
    "percent",
    logging.WARNING,
)
_MUCH_NOISE = LogEvent(
    "much_noise",
    "⚠️ %.0f %% of records withheld as noise: heartbeats cannot be told from it; check electrodes and cables",
    "percent",
    logging.WARNING,
)
_MUCH_BEATLESS = LogEvent(
    "much_beatless",
    "⚠️ %.0f %% of records withheld: no two heartbeats were found in parts of 2 s or more without a gap; check electrodes and gaps",
    "percent",
    logging.WARNING,
)
_WIDE_LEVELS = LogEvent(
    "wide_levels",
    "⚠️ Mean level %.1f: values are blurred widely; raise BATCH_SIZE_SECONDS or lower K_VALUE",
    "mean_level",
    logging.WARNING,
)
MUCH_CLIPPED = LogEvent(
    "much_clipped",
    "⚠️ %.1f %% of records are beyond the hierarchy's ends and were clipped; check VALUE_UNIT",
    "percent",
    logging.WARNING,
)
_SLOW = LogEvent(
    "slow", "⚠️ %d records took %.1f s, more than a second per %d", "rows seconds rows_per_second_limit", logging.WARNING
)
_SET_ASIDE = LogEvent(
    "set_aside",
    "❌ %d of %d rows of batch %s were refused by %s and set aside: %s",
    "rows of_rows batch_id output reason",
    logging.ERROR,
)
_READING_PAUSED = LogEvent(
    "reading_paused", "⏸️ Reading pauses: %d bytes wait for outputs (SPOOL_MAX_BYTES=%d)", "bytes limit_bytes", logging.WARNING
)
_READING_RESUMED = LogEvent("reading_resumed", "▶️ Reading resumes")
_PENDING_AT_START = LogEvent("pending_at_start", "↩️ %d released rows still wait for %s", "rows output")
_DONE = LogEvent(
    "done",
    "🏁 Done: %d windows (%d empty, %d expired, %d withheld, %d skipped) in %.1f s; "
    "%d rows read = %d released + %d withheld + %d invalid + %d duplicate%s",
    "windows empty_windows expired_windows withheld_windows skipped_windows seconds rows_read rows_released rows_withheld "
    "rows_invalid rows_duplicate rows_beside",
)
_LEVELS_IN_ALL = LogEvent(
    "levels_in_all", "📈 Level distribution: %s; %.0f %% of released rows keep their value", "rows_at_level percent_unchanged"
)

#: Above this share of suppressed, dropped or withheld rows, the log warns: an operator should review k and the window length.
SUPPRESSION_LIMIT = 0.15

#: Above this mean level, values are blurred far more than usual.
MEAN_LEVEL_LIMIT = 6.0

#: This many rows, or a smaller window, should take at most a second.
ROWS_PER_SECOND_LIMIT = 2000

#: Above this share of rows beyond the hierarchy's ends, the log warns.
CODED_LIMIT = 0.01

#: Above this share of late rows, windows should wait longer.
LATE_LIMIT = 0.001

#: What is logged before and after a write, by kind of output.
_DELIVERY_LINES = {
    "csv": (
        LogEvent("writing", "💾 Saving %s records to CSV: %s", "rows target"),
        LogEvent("wrote", "  ✅ CSV saved"),
    ),
    "influxdb": (
        LogEvent("writing", "📤 Pushing %s records to InfluxDB: %s", "rows target"),
        LogEvent("wrote", "  ✅ Successfully pushed %s points", "rows"),
    ),
    "api": (
        LogEvent("writing", "🌐 Sending %s records to API: %s", "rows target"),
        LogEvent("wrote", "  ✅ API accepted %s records", "rows"),
    ),
}
_OTHER_LINES = (
    LogEvent("writing", "📤 Writing %s records to %s", "rows target"),
    LogEvent("wrote", "  ✅ Wrote %s records", "rows"),
)


class LogLines(Events):
    """Logs the events of a run.

    Args:
        k: For the log lines.
        verbose: Whether to log details and the statistics of each window too.
        sums: The totals of the run, logged at its end. They receive each event first.
    """

    def __init__(self, *, k: int | None, verbose: bool, sums: Sums) -> None:
        self._k = k
        self._verbose = verbose
        self._sums = sums
        self._day: str | None = None

    def nothing_in(self, windows: WindowRange) -> None:
        """Log windows without rows."""
        self._log_new_day(windows.start_ns)
        _PROCESSING.log(_times(windows))
        _NO_DATA.log()

    def expired(self, windows: WindowRange) -> None:
        """Log windows that are older than the source's retention."""
        self._log_new_day(windows.start_ns)
        _WINDOWS_EXPIRED.log(len(windows), _times(windows))

    def late(self, *, rows: int, windows: int, of_rows: int, sufficient_lateness_s: int) -> None:
        """Log late rows, as a warning if there are many."""
        if not rows:
            return
        level = logging.WARNING if rows > LATE_LIMIT * of_rows else logging.INFO
        _ROWS_LATE.log(rows, windows, sufficient_lateness_s, level=level)

    def parts_changed(self, *, added: int, changed: int, gone: int) -> None:
        """Log changed files, as a warning unless files were only added."""
        _PARTS_CHANGED.log(added, changed, gone, level=logging.WARNING if changed or gone else logging.INFO)

    def added_too_late(self, rows: int) -> None:
        """Warn of rows that were added too late."""
        if rows:
            _ADDED_TOO_LATE.log(rows)

    def skipped(self, count: int, windows: WindowRange, released: Sequence[Released]) -> None:
        """Log windows that are not released again, with the promises of their release."""
        self._log_new_day(windows.start_ns)
        promises = {"an accepted gap" if one.promise is None else _promise(one.promise) for one in released}
        _WINDOWS_SKIPPED.log(count, _times(windows), "; ".join(sorted(promises)))

    def anonymized(self, unit: Unit) -> None:
        """Log a unit that was read, anonymized and verified."""
        counts, levels = unit.counts, unit.rows_at_level
        self._log_new_day(unit.windows.start_ns)
        _PROCESSING.log(_times(unit.windows))
        self._detail(_FETCHED, counts.read)
        if counts.excluded:
            _EXCLUDED.log(counts.excluded)
            counts = counts.without_excluded()
        if self._k is None:
            _REMOVING_SHAPES.log(counts.read)
            self._detail(_SATISFIED, _shapes_removed(counts, totals_of(unit).noisy))
        else:
            _ANONYMIZING.log(counts.read, self._k)
            self._detail(_SATISFIED, _satisfaction(levels, counts))
        self._detail(_ANONYMIZED, counts.released)
        if self._k is not None:
            _LEVELS.log(_distribution(levels))
        if self._verbose and self._k is not None:
            for result in unit.results:
                self._log_new_day(result.window.start_ns)
                _log_statistics(result)
        self._warn(unit, counts, levels)

    def writing(self, output: Output, batches: Sequence[Batch]) -> None:
        """Log that batches are about to be written."""
        before, _ = _DELIVERY_LINES.get(output.kind, _OTHER_LINES)
        before.log(sum(map(len, batches)), _targets(output, batches))

    def wrote(self, output: Output, rows: int) -> None:
        """Log how many rows an output has taken."""
        _, after = _DELIVERY_LINES.get(output.kind, _OTHER_LINES)
        self._detail(after, *([rows] if after.fields else []))

    def rejected(self, output: Output, batch: Batch, rows: int, reason: Exception) -> None:
        """Log that an output refused rows of a batch for good."""
        _SET_ASIDE.log(rows, len(batch), batch.batch_id, output.name, reason)

    def reading_pauses(self, waiting_bytes: int, most_bytes: int) -> None:
        """Warn that the service waits for outputs."""
        _READING_PAUSED.log(waiting_bytes, most_bytes)

    def reading_resumes(self) -> None:
        """Log that the spool has room again."""
        _READING_RESUMED.log()

    def pending_at_start(self, output: str, rows: int) -> None:
        """Log how many rows of earlier runs still wait for an output."""
        _PENDING_AT_START.log(rows, output)

    def rows_outside(self, rows: int) -> None:
        """Warn of rows outside the requested windows."""
        if rows:
            _ROWS_OUTSIDE.log(rows)

    def took(self, seconds: float, rows: int, windows: int = 1) -> None:
        """Warn if a chunk took longer than it should."""
        limit_s = max(1.0, rows / ROWS_PER_SECOND_LIMIT)
        if seconds > limit_s:
            _SLOW.log(rows, seconds, ROWS_PER_SECOND_LIMIT)

    def finished(self, seconds: float) -> None:
        """Log the totals of a finished run."""
        totals, counts = self._sums.totals, self._sums.totals.counts
        _DONE.log(
            totals.windows,
            totals.empty_windows,
            totals.expired_windows,
            totals.withheld_windows,
            totals.skipped_windows,
            seconds,
            counts.read,
            counts.released,
            counts.withheld,
            counts.invalid,
            counts.duplicate,
            _Beside(totals.invalid_by_reason, totals.contradictory, totals.noisy, totals.outside, counts.excluded),
        )
        if counts.released and self._k is not None:
            share = 100 * self._sums.unchanged / counts.released
            _LEVELS_IN_ALL.log(_distribution(self._sums.rows_at_level), share)

    def _log_new_day(self, start_ns: int) -> None:
        """Log the date once per day, since the lines of windows contain only the time."""
        day = as_datetime(start_ns).strftime("%Y-%m-%d")
        if day != self._day:
            self._day = day
            _DAY.log(day)

    def _detail(self, event: LogEvent, *values: object) -> None:
        if self._verbose:
            event.log(*values)

    def _warn(self, unit: Unit, counts: WindowCounts, levels: npt.NDArray[np.int64]) -> None:
        # Contradictions have their own warning: longer windows or another k do not help against them.
        contradictory, noisy = totals_of(unit).contradictory, totals_of(unit).noisy
        usable = counts.read - counts.invalid - counts.duplicate - contradictory
        if usable and noisy / usable >= SUPPRESSION_LIMIT:
            _MUCH_NOISE.log(100 * noisy / usable)
        kept_back = counts.suppressed + counts.withheld - contradictory - noisy
        if usable and kept_back / usable >= SUPPRESSION_LIMIT:
            (_MUCH_BEATLESS if self._k is None else MUCH_WITHHELD).log(100 * kept_back / usable)
        mean_level = _mean_level(levels)
        if mean_level is not None and mean_level > MEAN_LEVEL_LIMIT:
            _WIDE_LEVELS.log(mean_level)
        coded = sum(result.statistics.coded for result in unit.results)
        if usable and coded / usable > CODED_LIMIT:
            MUCH_CLIPPED.log(100 * coded / usable)


def _log_statistics(result: WindowResult) -> None:
    statistics, certificate = result.statistics, result.certificate
    mean_level = _mean_level(statistics.rows_at_level)
    _WINDOW_STATISTICS.log(
        _Time(as_datetime(result.window.start_ns)),
        _distribution(statistics.rows_at_level),
        certificate.distinct_values if certificate else 0,
        certificate.smallest_group if certificate else "-",
        "-" if mean_level is None else f"{mean_level:.1f}",
    )


def _shapes_removed(counts: WindowCounts, noisy: int) -> str:
    withheld = f", {counts.withheld} withheld ({noisy} as noise)" if counts.withheld else ""
    return f"{'⚠️' if withheld else '✅'} {counts.released} records are of the public beat{withheld}"


def _satisfaction(levels: npt.NDArray[np.int64], counts: WindowCounts) -> str:
    placed = np.flatnonzero(levels[1:STAR_LEVEL]) + 1
    widest = int(placed[-1]) if len(placed) else 0
    past = int(levels[STAR_LEVEL]) - counts.starred
    notes = [
        f"{number} {what}"
        for number, what in (
            (past, "regrouped past it (level 8)"),
            (counts.starred, "given the window's mean (level 8)"),
            (counts.suppressed, "suppressed (level 9)"),
            (counts.withheld, "withheld"),
        )
        if number
    ]
    if counts.released and not notes:
        return f"✅ All records satisfied at level {widest}"
    first = f"{int(levels[1:STAR_LEVEL].sum())} records satisfied at level {widest}"
    mark = "✅" if not (counts.suppressed or counts.withheld) else "⚠️"
    return f"{mark} {', '.join([first, *notes])}"


def _mean_level(levels: npt.NDArray[np.int64]) -> float | None:
    placed = levels[1:STAR_LEVEL]
    return float((placed * np.arange(1, STAR_LEVEL)).sum() / placed.sum()) if placed.any() else None


def _distribution(levels: npt.NDArray[np.int64]) -> dict[int, int]:
    return {level: int(rows) for level, rows in enumerate(levels) if level and rows}


def _promise(promise: Promise) -> str:
    how = promise.method if promise.k is None else f"K={promise.k} {promise.k_unit}, {promise.method}"
    return f"{how}, settings {promise.settings_digest}"


def _targets(output: Output, batches: Sequence[Batch]) -> str:
    targets = list(dict.fromkeys(map(output.target, batches)))
    return targets[0] if len(targets) == 1 else f"{targets[0]} … {targets[-1]} ({len(targets)} files)"


@dataclass(frozen=True, slots=True)
class _Times:
    """The times of windows: short in text, complete in JSON."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        time_format = "%H:%M:%S" if self.end - self.start <= _ONE_DAY else "%Y-%m-%d %H:%M:%S"
        return f"{self.start.strftime(time_format)} - {self.end.strftime(time_format)}"

    def as_json(self) -> dict[str, str]:
        return {"start": self.start.strftime(_WHOLE), "end": self.end.strftime(_WHOLE)}


@dataclass(frozen=True, slots=True)
class _Time:
    """The start of a window, likewise."""

    start: datetime

    def __str__(self) -> str:
        return self.start.strftime("%H:%M:%S")

    def as_json(self) -> str:
        return self.start.strftime(_WHOLE)


@dataclass(frozen=True, slots=True)
class _Beside:
    """Why rows are invalid or withheld, and how many were not asked for. Text leaves zeros out; JSON has all numbers."""

    invalid_by_reason: dict[str, int]
    contradictory: int
    noisy: int
    not_requested: int
    excluded: int

    def __str__(self) -> str:
        reasons = [f"{rows} without a {what}" for what, rows in self.invalid_by_reason.items() if rows]
        notes = [f"invalid: {', '.join(reasons)}"] if reasons else []
        notes += [f"withheld: {self.contradictory} contradictory"] if self.contradictory else []
        notes += [f"withheld: {self.noisy} noise"] if self.noisy else []
        notes += [f"{self.not_requested} more rows were not asked for"] if self.not_requested else []
        excluded = f" + {self.excluded} excluded" if self.excluded else ""
        return excluded + (f" ({'; '.join(notes)})" if notes else "")

    def as_json(self) -> dict[str, int]:
        without = {f"without_{what}": rows for what, rows in self.invalid_by_reason.items()}
        others = {"contradictory": self.contradictory, "noisy": self.noisy, "not_asked_for": self.not_requested}
        return {**without, **others, "excluded": self.excluded}


def _times(windows: WindowRange) -> _Times:
    return _Times(as_datetime(windows.start_ns), as_datetime(windows.end_ns))


_ONE_DAY = timedelta(days=1)

_WHOLE = "%Y-%m-%dT%H:%M:%SZ"
