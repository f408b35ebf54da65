"""Erases from InfluxDB 1 and 2: rows by deletions, summaries by overwriting. InfluxDB 3 Core deletes no rows.

Rows of others go first and the source's own last: what is left of them tells an erasure that is run again which windows are not done.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from anonymizer.errors import OutputDenied, OutputUnavailable
from anonymizer.windows import MOST_WINDOWS, WindowRange
from inputs.influx_dialect import InfluxSeries
from inputs.influx_source import InfluxSource
from operations.audit import runs_of_neighbours
from operations.erasure.parquet_place import changes
from operations.erasure.rows import Cut, Rows, Rule
from outputs.influx_lines import InfluxTarget, escaped_measurement
from service import crash_points
from service.state.journal import Entry, Journal
from transport.influx_connection import InfluxConnection
from transport.influx_faults import InfluxFault

#: The times that InfluxDB can hold points at.
_ALL_TIME = (-(2**63) + 2, 2**63 - 2)


class BucketRows:
    """The released rows of a bucket.

    Args:
        reading: A connection that may read the output bucket.
        writing: One that may write to it and delete from it.
        target: Where rows and summaries are.
        journal: Records what is taken.
        owns_all: Whether no other service writes to the measurement, so that rows of the source go wherever they are.
    """

    def __init__(
        self, reading: InfluxConnection, writing: InfluxConnection, target: InfluxTarget, journal: Journal, *, owns_all: bool
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._target = target
        self._journal = journal
        self._owns_all = owns_all
        self._series = InfluxSeries(
            bucket=target.bucket, measurement=target.rows_measurement, field=target.field, source_tag=target.source_tag
        )

    @property
    def is_out_of_reach(self) -> bool:
        """Whether the server's version deletes no rows."""
        return not self._writing.version.deletes_rows

    def erase(self, rule: Rule, entries: Sequence[Entry], ids: Iterable[str], *, is_dry: bool) -> Iterator[Cut]:
        """Erase from every window that holds rows of the ids, or only look; yield what is taken.

        Args:
            rule: Whose rows go.
            entries: All releases of the journal, in order.
            ids: The source's, as they may stand in the bucket.
            is_dry: Whether to change nothing.

        Raises:
            OutputDenied: The credentials may not delete, or the server's version cannot.
            OutputUnavailable: The server does not answer now.
            SourceError: The bucket cannot be read.
        """
        wanted = sorted(ids)
        everybody, only = (
            InfluxSource(self._reading, self._series),
            InfluxSource(self._reading, replace(self._series, sources=tuple(wanted))),
        )
        everybody.open()
        for windows in _ranges(entries):
            held = only.count(windows)
            for run in _runs(np.flatnonzero(held)):
                yield self._erase_windows(everybody, windows.part(*run), rule, is_dry=is_dry)
        if not is_dry and self._owns_all:
            for one in wanted:
                self._delete(one, *_ALL_TIME)

    def rows_left(self, entries: Sequence[Entry], ids: Iterable[str]) -> int:
        """Return how many rows of the ids the released windows still hold."""
        only = InfluxSource(self._reading, replace(self._series, sources=tuple(sorted(ids))))
        return sum(int(only.count(windows).sum()) for windows in _ranges(entries))

    def _erase_windows(self, source: InfluxSource, windows: WindowRange, rule: Rule, *, is_dry: bool) -> Cut:
        samples = source.read(windows)
        rows = Rows(samples.times_ns, samples.source_codes, samples.source_ids, samples.values_uv)
        cut = rule.cut(rows)
        if is_dry or not cut.is_gone.any():
            return cut
        self._journal.erasures.record("influxdb", cut.taken)
        crash_points.reached(crash_points.ERASURE_FOUND)
        self._overwrite_summaries(cut, rule)
        mine = rule.person.codes(rows.ids)[rows.codes]
        for source_id, first_ns, last_ns in self._spans_of_others(rows, cut.is_gone & ~mine):
            self._delete(source_id, first_ns, last_ns)
        crash_points.reached(crash_points.ERASURE_HALFWAY)
        for code in np.unique(rows.codes[mine]).tolist():
            self._delete(rows.ids[code], windows.start_ns, windows.end_ns - 1)
        crash_points.reached(crash_points.ERASURE_REPLACED)
        return cut

    def _overwrite_summaries(self, cut: Cut, rule: Rule) -> None:
        recorded = self._journal.erasures.recorded()
        lines = []
        for start_ns, left in cut.left.items():
            entry = rule.windows.entry_at(start_ns)
            if entry is None or entry.windows > 1:
                # The journal has only sums of old windows; their summaries keep their counts, and say that rows were erased.
                lines.append(self._line({"erased": True, "partial": True}, start_ns))
                continue
            lines.append(self._line(changes(rule, recorded[start_ns], left, {}), start_ns))
        with self._only_output_errors():
            self._writing.write(self._target.bucket, "".join(lines).encode())

    def _line(self, fields: dict[str, int | bool], start_ns: int) -> str:
        told = ",".join(
            f"{name}={str(value).lower()}" if isinstance(value, bool) else f"{name}={value}i" for name, value in fields.items()
        )
        tags = "".join(f",{_key(tag)}={_key(value)}" for tag, value in self._target.summary_tags)
        return f"{escaped_measurement(self._target.windows_measurement)}{tags} {told} {start_ns}\n"

    def _spans_of_others(self, rows: Rows, is_gone: npt.NDArray[np.bool_]) -> Iterator[tuple[str, int, int]]:
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


def _runs(indices: npt.NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield the first and the end of each run of neighbouring indices."""
    breaks = np.flatnonzero(np.diff(indices) > 1) + 1
    edges = [0, *breaks.tolist(), len(indices)]
    for first, stop in itertools.pairwise(edges):
        if first < stop:
            yield int(indices[first]), int(indices[stop - 1]) + 1


def _key(text: str) -> str:
    return escaped_measurement(text).replace("=", "\\=")
