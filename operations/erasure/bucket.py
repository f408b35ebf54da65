"""Erases from InfluxDB 1 and 2: rows by deletions, summaries by overwriting. InfluxDB 3 Core deletes no rows.

Rows of others go first and the source's own last: what is left of them tells an erasure that is run again which windows are not done.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from anonymizer.errors import OutputDenied, OutputUnavailable
from anonymizer.windows import MOST_WINDOWS, WindowRange
from inputs.influx_dialect import OUTPUT_REMEDY, InfluxSeries
from inputs.influx_source import InfluxSource
from operations.audit import runs_of_neighbours
from operations.erasure.parquet_place import AsideRows, changes
from operations.erasure.rows import Cut, Person, Rows, Rule
from outputs.influx_lines import InfluxTarget, escaped_measurement
from service import crash_points
from service.state.journal import Entry, Journal
from transport.influx_connection import InfluxConnection
from transport.influx_faults import InfluxFault

#: The times that InfluxDB can hold points at.
_ALL_TIME = (-(2**63) + 2, 2**63 - 2)

#: What summaries say of windows, by field.
_TOLD = ("rows_read", "rows_released")

#: What a summary says of the rows themselves, not of their number.
_COUNTED_FROM_ROWS = ("distinct_sources", "distinct_values", "smallest_group")


#: More rows are not read at once, unless a window has more.
_MOST_ROWS = 2_000_000

_Told = dict[int, dict[str, int]]


class CohortRows(Protocol):
    """Tells which rows of a bucket that several cohorts' services write to were released by which."""

    def of(self, rows: Rows, windows: WindowRange) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which rows are this cohort's, and which are known to be others', each of shape (n,)."""


class BucketRows:
    """The released rows of a bucket.

    Args:
        reading: A connection that may read the output bucket.
        writing: One that may write to it and delete from it.
        target: Where rows and summaries are.
        output: The output's name in the journal.
        journal: Records what is taken.
        cohort_rows: Tells whose rows are whose; None: no other service writes to the measurement, so that rows of the source go wherever
            they are.
    """

    def __init__(
        self,
        reading: InfluxConnection,
        writing: InfluxConnection,
        target: InfluxTarget,
        output: str,
        journal: Journal,
        *,
        cohort_rows: CohortRows | None,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._target = target
        self._journal = journal
        self._aside = AsideRows(output, journal)
        self._cohort_rows = cohort_rows
        #: Rows of the source that other cohorts' services released, as far as they were met.
        self.of_other_cohorts = 0
        #: Windows whose rows can no longer be told from those of other cohorts.
        self.unclear_windows = 0
        self._series = InfluxSeries(
            bucket=target.bucket,
            measurement=target.rows_measurement,
            field=target.field,
            source_tag=target.source_tag,
            remedy=OUTPUT_REMEDY,
        )

    @property
    def is_out_of_reach(self) -> bool:
        """Whether the server's version deletes no rows."""
        return not self._writing.version.deletes_rows

    @property
    def is_shared(self) -> bool:
        """Whether services of other cohorts write to the bucket."""
        return self._cohort_rows is not None

    def erase(self, rule: Rule, entries: Sequence[Entry], *, is_dry: bool) -> Iterator[Cut]:
        """Erase from every window that holds rows of the source, or only look; yield what is taken.

        Args:
            rule: Whose rows go.
            entries: All releases of the journal, in order.
            is_dry: Whether to change nothing.

        Raises:
            OutputDenied: The credentials may not delete, or the server's version cannot.
            OutputUnavailable: The server does not answer.
            SourceError: The bucket cannot be read.
        """
        everybody = InfluxSource(self._reading, self._series)
        everybody.open()
        wanted = self._ids_of(rule.person, everybody)
        only = InfluxSource(self._reading, replace(self._series, sources=wanted))
        self.of_other_cohorts = self.unclear_windows = 0
        for windows in _ranges(entries):
            held = only.count(windows)
            for run in _runs(np.flatnonzero(held)):
                for part in _parts(windows.part(*run), everybody):
                    yield self._erase_windows(everybody, part, rule, is_dry=is_dry)
        if not is_dry and not self.is_shared:
            for one in wanted:
                self._delete(one, *_ALL_TIME)

    def _ids_of(self, person: Person, everybody: InfluxSource) -> tuple[str, ...]:
        """Return the source's ids: as they may be written, and as the bucket has them."""
        return tuple(sorted(person.exact | {one for one in everybody.source_ids() if person.is_named_by(one)}))

    def rows_left(self, person: Person, entries: Sequence[Entry]) -> int:
        """Return how many rows of the source the released windows still hold."""
        everybody = InfluxSource(self._reading, self._series)
        everybody.open()
        only = InfluxSource(self._reading, replace(self._series, sources=self._ids_of(person, everybody)))
        return sum(int(only.count(windows).sum()) for windows in _ranges(entries))

    def _erase_windows(self, source: InfluxSource, windows: WindowRange, rule: Rule, *, is_dry: bool) -> Cut:
        samples = source.read(windows)
        rows = Rows(samples.times_ns, samples.source_codes, samples.source_ids, samples.values_uv)
        mine = rule.person.codes(rows.ids)[rows.codes]
        told = self._told(rule, windows)
        is_own, is_clear = self._own(rows, mine, windows, told)
        cut = rule.cut(Rows(rows.times_ns[is_own], rows.codes[is_own], rows.ids, rows.values_uv[is_own]))
        if is_dry or not cut.is_gone.any():
            return cut
        is_gone = np.zeros(len(mine), dtype=np.bool_)
        is_gone[is_own] = cut.is_gone
        self._journal.erasures.record("influxdb", cut.taken)
        crash_points.reached(crash_points.ERASURE_FOUND)
        self._overwrite_summaries(cut, rule, told, is_clear)
        for source_id, first_ns, last_ns in self._spans(rows, is_gone & ~mine):
            self._delete(source_id, first_ns, last_ns)
        crash_points.reached(crash_points.ERASURE_HALFWAY)
        for source_id, first_ns, last_ns in self._spans(rows, is_gone & mine):
            self._delete(source_id, first_ns, last_ns)
        crash_points.reached(crash_points.ERASURE_REPLACED)
        return cut

    def _own(
        self, rows: Rows, mine: npt.NDArray[np.bool_], windows: WindowRange, told: _Told
    ) -> tuple[npt.NDArray[np.bool_], frozenset[int]]:
        """Return which rows this cohort released, and the starts of windows of which that is known of all rows.

        A row of the source that the raw bucket does not have any more counts as this cohort's: it must go in any case.
        """
        starts_ns = [window.start_ns for window in windows]
        if self._cohort_rows is None:
            return np.ones(len(mine), dtype=np.bool_), frozenset(starts_ns)
        index = windows.index_of(rows.times_ns)
        held = np.bincount(index, minlength=len(windows))
        own, others = self._cohort_rows.of(rows, windows)
        released = np.array([self._should_hold(start_ns, told) for start_ns in starts_ns], dtype=np.int64)
        # Where the bucket has no more rows than this cohort released, all of them are its own.
        is_alone = held <= released
        own = (own | (mine & ~others)) | (is_alone[index] & ~others)
        is_clear = np.bincount(index[own], minlength=len(windows)) >= released
        self.of_other_cohorts += int((mine & ~own).sum())
        with_mine = np.bincount(index[mine & own], minlength=len(windows)) > 0
        self.unclear_windows += int((with_mine & ~is_clear).sum())
        return own, frozenset(start_ns for start_ns, clear in zip(starts_ns, is_clear.tolist(), strict=True) if clear)

    def _should_hold(self, start_ns: int, told: _Told) -> int:
        """Return how many rows of a window the cohort's summary says that the bucket holds; more than any without one."""
        return told[start_ns]["rows_released"] - self._aside.before(start_ns) if start_ns in told else 2**62

    def _overwrite_summaries(self, cut: Cut, rule: Rule, told: _Told, is_clear: frozenset[int]) -> None:
        recorded = self._journal.erasures.recorded()
        lines = []
        for start_ns, left in cut.left.items():
            if start_ns not in told and not _is_single(rule, start_ns):
                continue  # its summary is lost
            fields = changes(rule, recorded[start_ns], left, told.get(start_ns, {}), self._aside.left(start_ns))
            if start_ns not in is_clear:
                fields = {name: value for name, value in fields.items() if name not in _COUNTED_FROM_ROWS} | {"partial": True}
            lines.append(self._line(fields, start_ns))
        with self._only_output_errors():
            self._writing.write(self._target.bucket, "".join(lines).encode())

    def _told(self, rule: Rule, windows: WindowRange) -> _Told:
        """Return what the cohort's summaries say of windows, where the journal does not say it of each by itself."""
        told: _Told = {}
        if not self.is_shared and all(_is_single(rule, window.start_ns) for window in windows):
            return told
        for field in _TOLD:
            series = InfluxSeries(
                bucket=self._target.bucket,
                measurement=self._target.windows_measurement,
                field=field,
                source_tag=self._target.source_tag,
                tags=self._target.summary_tags,
                has_sources=False,
                remedy=OUTPUT_REMEDY,
            )
            found = InfluxSource(self._reading, series).read(windows)
            for start_ns, value in zip(found.times_ns.tolist(), found.values_uv.tolist(), strict=True):
                told.setdefault(start_ns, {})[field] = int(value)
        return {start_ns: one for start_ns, one in told.items() if len(one) == len(_TOLD)}

    def _line(self, fields: dict[str, int | bool], start_ns: int) -> str:
        told = ",".join(
            f"{name}={str(value).lower()}" if isinstance(value, bool) else f"{name}={value}i" for name, value in fields.items()
        )
        tags = "".join(f",{_key(tag)}={_key(value)}" for tag, value in self._target.summary_tags)
        return f"{escaped_measurement(self._target.windows_measurement)}{tags} {told} {start_ns}\n"

    def _spans(self, rows: Rows, is_gone: npt.NDArray[np.bool_]) -> Iterator[tuple[str, int, int]]:
        """Yield, by source, the spans of rows that go with none between them that stays; both ends are included."""
        for code in np.unique(rows.codes[is_gone]).tolist():
            of_source = np.flatnonzero(rows.codes == code)
            of_source = of_source[np.argsort(rows.times_ns[of_source], kind="stable")]
            for first, stop in _runs(np.flatnonzero(is_gone[of_source])):
                times_ns = rows.times_ns[of_source[first:stop]]
                yield rows.ids[code], int(times_ns[0]), int(times_ns[-1])

    def _delete(self, source_id: str, first_ns: int, last_ns: int) -> None:
        target = self._target
        with self._only_output_errors():
            self._writing.delete_series(target.bucket, (target.rows_measurement, target.source_tag, source_id), first_ns, last_ns)

    def _only_output_errors(self) -> _Translated:
        return _Translated()


class _Translated:
    """Raises a fault of the server as an error of an output."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, InfluxFault):
            if fault.needs_setting or fault.status in (401, 403, 404):
                raise OutputDenied(
                    f"InfluxDB does not let us erase ({fault}): INFLUX_OUTPUT_TOKEN or INFLUX_TOKEN must be one that may write to the "
                    "output bucket"
                ) from None
            raise OutputUnavailable(f"InfluxDB cannot erase now ({fault}); run it again") from None


def _ranges(entries: Sequence[Entry]) -> Iterator[WindowRange]:
    """Yield all released windows, as many at a time as can be counted in one query."""
    for run in runs_of_neighbours(entries):
        windows = WindowRange(run[0].interval.start_ns, run[-1].interval.end_ns, run[0].window_ns or 1)
        for at in range(0, len(windows), MOST_WINDOWS):
            yield windows.part(at, min(at + MOST_WINDOWS, len(windows)))


def _parts(windows: WindowRange, source: InfluxSource) -> Iterator[WindowRange]:
    """Yield parts of some windows that have about as many rows as may be read at once."""
    rows_before = np.cumsum(source.count(windows))
    first = 0
    while first < len(windows):
        before = int(rows_before[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(rows_before, before + _MOST_ROWS, side="right")))
        yield windows.part(first, stop)
        first = stop


def _is_single(rule: Rule, start_ns: int) -> bool:
    """Return whether the journal knows a window by itself, not only in the sums of a merged entry."""
    entry = rule.windows.entry_at(start_ns)
    return entry is None or entry.windows == 1


def _runs(indices: npt.NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield the first and the end of each run of neighbouring indices."""
    breaks = np.flatnonzero(np.diff(indices) > 1) + 1
    edges = [0, *breaks.tolist(), len(indices)]
    for first, stop in itertools.pairwise(edges):
        if first < stop:
            yield int(indices[first]), int(indices[stop - 1]) + 1


def _key(text: str) -> str:
    return escaped_measurement(text).replace("=", "\\=")
