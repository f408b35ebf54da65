"""Samples from a data set: Parquet files in a folder or an object store, with the columns `timestamp`, `source_id` and `ecg`.

Planning reads footers only (`inputs/data_set_index.py`). Rows are read one interval at a time, about a million rows, from the row groups
that overlap it, so that memory does not grow with the data set. The first interval is surveyed before the first release; cells of later
intervals as they are read. Each read checks that the part is unchanged since it was listed.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from threading import Lock, RLock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from anonymizer.errors import SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import NO_SOURCE, Inventory, RowsBeside, Samples, StoredSource, make_samples, picked
from anonymizer.windows import Window, WindowRange
from inputs.cell_parser import CellParser, between
from inputs.data_set_index import (
    BATCH_ROWS,
    HOW_TO_SORT,
    REFUSAL_AMPLIFICATION,
    WARNING_AMPLIFICATION,
    Footer,
    Index,
    footer_of,
    names_of,
    place_of,
    read_footers,
)
from inputs.data_set_parts import HOW_PARTS_ARE_COUNTED, WAS_CHANGED, Part, PartStore, sources_of_paths
from inputs.file_columns import source_ids
from inputs.file_survey import Cells, Survey
from inputs.file_text import without_values
from inputs.file_times import TimeKind, Times, times

#: Rows per interval, 20 bytes each. A data set of up to this many rows is surveyed whole.
ROWS_AT_A_TIME = 1_500_000

#: Bytes of a part's column that are fetched and decoded at a time. Arrow allocates this for each row group, so a smaller part gets less.
_FETCHED_BYTES = 1 << 22

#: Hex digits of the digest that names a data set.
_DIGEST_DIGITS = 12

#: Parsed footers that stay in memory, for parts that are read repeatedly.
_FOOTERS_IN_MEMORY = 32

#: Above this share of rows without a time, the source warns.
_WARNING_SHARE = 0.01

#: Errors of Arrow's parsers, of the disk, and of invalid UTF-8.
_BROKEN_PART = (pa.ArrowException, OSError, UnicodeDecodeError)


class Use(enum.Enum):
    """What a data set is opened for."""

    #: To count and read windows in order. Rows after a window are decoded with it.
    WHOLE = "whole"
    #: To survey the first rows, and count windows that other processes read: no value is decoded to count.
    PLAN = "plan"
    #: To read windows that another process has planned, and whose neighbours others read: nothing else is decoded.
    PARTS = "parts"


@dataclass(frozen=True, slots=True, eq=False)
class _Interval:
    """All wanted rows in `[start_ns, end_ns)`, sorted by time."""

    start_ns: int
    end_ns: int
    samples: Samples

    def holds(self, start_ns: int, end_ns: int) -> bool:
        return self.start_ns <= start_ns and end_ns <= self.end_ns


class DataSetSource(StoredSource):
    """Reads a data set of Parquet files, one interval after the other.

    Args:
        store: Where its parts are.
        sources: Source ids to read; empty: all.
        microvolts_per_unit: 1 when values are microvolts, 1000 when they are millivolts.
        start_ns, end_ns: The requested span; None: no bound.
        index_file: File that caches the index for the next run; None: no cache.
        rows_at_a_time: About how many rows to hold in memory.
        use: Who reads what is counted.
    """

    concurrent_reads = 1
    data_set_tells_samples = False
    name = "INPUT_FILE"

    def __init__(
        self,
        store: PartStore,
        *,
        sources: tuple[str, ...] = (),
        microvolts_per_unit: float = 1.0,
        start_ns: int | None = None,
        end_ns: int | None = None,
        index_file: Path | None = None,
        rows_at_a_time: int = ROWS_AT_A_TIME,
        use: Use = Use.WHOLE,
    ) -> None:
        self._store = store
        self._has_filter = bool(sources)
        self._parser = CellParser(sources, microvolts_per_unit)
        self._microvolts_per_unit = microvolts_per_unit
        self._span = start_ns, end_ns
        self._index_file = index_file
        self._rows_at_a_time = rows_at_a_time
        self._use = use
        self._lock = RLock()
        self._lock_of_footers = Lock()
        self._interval: _Interval | None = None
        self._parts: list[Part] = []
        self._sources: list[tuple[str | None] | None] = []
        self._footers_held: dict[int, pa_parquet.FileMetaData] = {}
        self._forget()
        # The address names the data set, not its content, which may change.
        self.data_set = hashlib.sha256(f"data set {store.address}".encode("utf-8", "surrogateescape")).hexdigest()[
            :_DIGEST_DIGITS
        ]
        self.data_set_address = self.data_set
        self.remarks: tuple[str, ...] = ()

    @property
    def is_surveyed(self) -> bool:
        """Whether `open` surveyed all rows."""
        return self._index.rows_in_all <= self._rows_at_a_time

    @property
    def inventory(self) -> Inventory:
        """The parts found by `open`."""
        return _Parts(self._index, self._store.request)

    def open(self) -> None:
        """List the parts, read their footers, and survey the first interval. Raises as `SampleSource.open` says."""
        with self._lock:
            self._forget()
            found = self._store.listing()
            self._parts = found.parts
            self._sources = sources_of_paths(self._parts, self._store.folders)
            footers, self.footers_read = read_footers(self._parts, self._footer, kept_in=self._index_file)
            self._index = Index.of(self._parts, footers)
            self._density = self._index.density()
            self._survey = Survey(*self._span)
            amplified = self._check_amplification()
            if self._use is not Use.PARTS:
                self._survey_first_rows()
            self.remarks = tuple(
                [
                    *found.remarks(),
                    *amplified,
                    *self._doubtful_times(),
                    *self._survey.conclude().remarks(),
                    *self._not_surveyed(),
                ]
            )

    def _forget(self) -> None:
        self._parts = []
        self._sources = []
        self._footers_held = {}
        self._index = Index.of([], [])
        self._density = self._index.density()
        self._survey = Survey()
        self._surveyed_to_ns = -(2**63)
        self._interval = None
        self.footers_read = 0

    def extent(self) -> tuple[int, int] | None:
        """Return the first time and the last time + 1 of all sources; None if no row has a time."""
        return self._index.extent()

    def rows_beside(self, start_ns: int, end_ns: int) -> RowsBeside:
        """Return how many rows lie in no window of a span, by reason.

        If the data set was not surveyed whole, rows of unrequested sources count like those of requested ones.
        """
        of_wanted = self._has_filter and self.is_surveyed
        inside = int(self._counted(np.array([start_ns, end_ns]), of_wanted=of_wanted).sum())
        without_time = self._without_time() if of_wanted else self._index.rows_without_time
        return RowsBeside(without_time=without_time, not_requested=self._index.rows_in_all - without_time - inside)

    def _without_time(self) -> int:
        """Return how many rows of requested sources have no time."""
        found = 0
        for _, _, table, timed in self._tables(np.flatnonzero(self._index.without_time), ("timestamp", "source_id")):
            is_wanted = self._parser.is_wanted_in(table.column("source_id"))
            found += int((is_wanted & (timed.kinds != TimeKind.CALENDAR)).sum())
        return found

    def next_row_ns(self, start_ns: int, end_ns: int) -> int | None:
        """Return a time before which a span has no row; None if it has none at all."""
        index = self._index
        begun = index.overlapping(start_ns, start_ns + 1)
        after = index.first_ns[(index.first_ns > start_ns) & (index.first_ns <= index.last_ns)]
        next_ns = int(after.min(initial=end_ns))
        for position in begun.tolist():
            next_ns = self._next_in(position, start_ns, next_ns)
        return next_ns if next_ns < end_ns else None

    def _next_in(self, position: int, start_ns: int, before_ns: int) -> int:
        """Return the earlier of `before_ns` and the first time in a row group that is not before `start_ns`."""
        for _, _, _, found in self._tables(np.array([position]), ("timestamp",)):
            before_ns = min(before_ns, int(found.times_ns[found.times_ns >= start_ns].min(initial=before_ns)))
            if before_ns == start_ns:
                break
        return before_ns

    def added_since(self, data_set: str) -> None:
        """Return None: a data set keeps its name when parts are added; `inventory` lists what is new."""
        return

    def earlier_version(self, is_known: Callable[[str], bool]) -> None:
        """Return None: a data set keeps its name when parts are added."""
        return

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows lie in each window, shape (len(windows),), int64."""
        if not len(windows):
            return np.zeros(0, np.int64)
        edges_ns = windows.start_ns + windows.length_ns * np.arange(len(windows) + 1)
        with self._lock:
            rows = self._density.rows_before(windows.end_ns) - self._density.rows_before(windows.start_ns)
            if rows <= self._rows_at_a_time and self._use is Use.WHOLE:
                # The caller reads them next, and then they need not be decoded again.
                interval = self._interval_with(windows.start_ns, windows.start_ns + windows.length_ns)
                if interval.holds(windows.start_ns, windows.end_ns):
                    return np.diff(np.searchsorted(interval.samples.times_ns, edges_ns))
            return self._counted(edges_ns, of_wanted=self._has_filter)

    def _counted(self, edges_ns: npt.NDArray[np.int64], *, of_wanted: bool) -> npt.NDArray[np.int64]:
        """Return how many rows lie between consecutive edges, shape (n,). A row group inside one bin is counted by its footer alone.

        Args:
            edges_ns: The edges, ascending, shape (n + 1,).
            of_wanted: Whether to count only rows of requested sources.
        """
        index, spans = self._index, len(edges_ns) - 1
        counts = np.zeros(spans + 2, np.int64)
        positions = index.overlapping(int(edges_ns[0]), int(edges_ns[-1]))
        first, last = (np.searchsorted(edges_ns, found[positions], side="right") for found in (index.first_ns, index.last_ns))
        is_inside = (first == last) & (not of_wanted)
        np.add.at(counts, first[is_inside], (index.rows - index.without_time)[positions[is_inside]])
        columns = ("timestamp", "source_id") if of_wanted else ("timestamp",)
        for _, _, table, found in self._tables(positions[~is_inside], columns):
            keep = found.kinds == TimeKind.CALENDAR
            if of_wanted:
                keep &= self._parser.is_wanted_in(table.column("source_id"))
            counts += np.bincount(np.searchsorted(edges_ns, found.times_ns[keep], side="right"), minlength=spans + 2)
        return counts[1:-1]

    def read(self, windows: WindowRange) -> Samples:
        """Return the rows of the windows, in order of time."""
        with self._lock:
            held = self._interval_with(windows.start_ns, windows.end_ns).samples
            found = between(held, windows.start_ns, windows.end_ns)
            # Copied, so that a few rows do not keep the whole interval in memory.
            return Samples(found.times_ns.copy(), found.source_codes.copy(), found.source_ids, found.values_uv.copy())

    def advice_when_empty(self) -> str:
        """Return a sentence on what the data set holds."""
        if not self._index.rows_in_all:
            return "INPUT_FILE has files without rows."
        if self.extent() is None:
            return "INPUT_FILE has no row with a time; check its column timestamp."
        filter_too = " and DEVICE_FILTER" if self._has_filter else ""
        return f"INPUT_FILE has rows, but none of what was asked for; check QUERY_START_TIME and QUERY_END_TIME{filter_too}."

    def hint_on_contradictions(self) -> str:
        """Return nothing: the files have only their three columns."""
        return ""

    def close(self) -> None:
        """Drop the rows."""
        with self._lock:
            self._forget()

    # Checks before the first release

    def _check_amplification(self) -> list[str]:
        """Return a warning if many rows must be decoded for each requested one; refuse very many."""
        extent = self.extent()
        if extent is None:
            return []
        start_ns = extent[0] if self._span[0] is None else max(extent[0], self._span[0])
        end_ns = extent[1] if self._span[1] is None else min(extent[1], self._span[1])
        if start_ns >= end_ns:
            return []
        times_as_many = self._density.amplification(start_ns, end_ns, rows_at_a_time=self._rows_at_a_time)
        if times_as_many <= WARNING_AMPLIFICATION:
            return []
        found = (
            "INPUT_FILE: rows that are asked for together lie far apart in its files, or its row groups are large: "
            f"{times_as_many:.0f} rows must be read for each of the data set"
        )
        if times_as_many > REFUSAL_AMPLIFICATION:
            raise SourceRefused(f"{found}, more than {REFUSAL_AMPLIFICATION:.0f}. Sort it once: {HOW_TO_SORT}")
        return [f"{found}. To make that faster, sort it once: {HOW_TO_SORT}"]

    def _survey_first_rows(self) -> None:
        """Read the first interval that was requested, or all of a small data set, so that its cells are surveyed."""
        extent = self.extent()
        if extent is None:
            return
        if self.is_surveyed:
            self._interval_with(*extent)
            return
        start_ns = extent[0] if self._span[0] is None else max(extent[0], self._span[0])
        if start_ns < extent[1]:
            self._interval_with(start_ns, start_ns + 1)

    def _not_surveyed(self) -> list[str]:
        if self.is_surveyed:
            return []
        return [
            f"INPUT_FILE is a data set of {self._index.rows_in_all:,} rows: only {self._survey.rows:,} of them, the first that are asked "
            "for, were surveyed before the first release; the others are judged as they are read"
        ]

    def _doubtful_times(self) -> Iterator[str]:
        index = self._index
        zoned, parts = index.zoned_parts, len(np.unique(index.part))
        if 0 < zoned < parts:
            yield (
                f"INPUT_FILE: the times of {parts - zoned} of {parts} parts name no zone and are taken as UTC, those of the others do; "
                "if they are local, they are hours wrong: write all times with their zone"
            )
        if index.rows_without_time > _WARNING_SHARE * index.rows_in_all:
            share = 100 * index.rows_without_time / index.rows_in_all
            first = int(index.part[np.flatnonzero(index.without_time)[0]])
            yield (
                f"INPUT_FILE: {index.rows_without_time} of {index.rows_in_all} rows ({share:.1f} %) are invalid: they have no readable "
                f"time, such as in {self._place(first)}"
            )

    # Rows

    def _interval_with(self, start_ns: int, end_ns: int) -> _Interval:
        """Return an interval that contains a span, and usually much that follows it."""
        held = self._interval
        if held is not None and held.holds(start_ns, end_ns):
            return held
        # Dropped first, so that two are never in memory.
        held = self._interval = None
        self._interval = self._read_interval(start_ns, end_ns)
        return self._interval

    def _read_interval(self, start_ns: int, end_ns: int) -> _Interval:
        until_ns, extent = end_ns, self.extent()
        if self._use is not Use.PARTS:
            until_ns = max(end_ns, self._density.time_after(start_ns, self._rows_at_a_time))
        if extent is not None and until_ns >= extent[1] - 1:
            until_ns = max(end_ns, extent[1])
        gathered = _Gathered(self._microvolts_per_unit)
        for position, begin, table, found in self._tables(
            self._index.overlapping(start_ns, until_ns), ("timestamp", "source_id", "ecg")
        ):
            cells = self._asked_cells(self._parser.cells(table, found), position, begin, start_ns, until_ns)
            gathered.add(cells)
            if gathered.rows > 2 * self._rows_at_a_time and until_ns > end_ns:
                # Rows are denser here than the footers suggest.
                until_ns = gathered.cut(end_ns, self._rows_at_a_time)
        self._surveyed_to_ns = max(self._surveyed_to_ns, until_ns)
        self._survey.conclude()
        return _Interval(start_ns, until_ns, gathered.samples())

    def _asked_cells(self, cells: Cells, position: int, begin: int, start_ns: int, until_ns: int) -> Cells:
        """Return a table's wanted rows in a span, and survey the rows that were not surveyed before."""
        times_ns = cells.samples.times_ns
        is_inside = (cells.time_kinds == TimeKind.CALENDAR) & (times_ns >= start_ns) & (times_ns < until_ns)
        new = np.flatnonzero(is_inside & (times_ns >= self._surveyed_to_ns))
        if len(new):
            self._survey.add(_some(cells, new), lambda row: self._place_of_row(position, begin + int(new[row])))
        rows = np.flatnonzero(is_inside & cells.is_wanted)
        return cells if len(rows) == len(times_ns) else _some(cells, rows)

    def _tables(self, positions: npt.NDArray[np.int64], columns: Sequence[str]) -> Iterator[tuple[int, int, pa.Table, Times]]:
        """Yield row groups in batches: the row group's position in the index, its rows before this batch, the batch, and its times."""
        for part, group in groupby(positions.tolist(), key=lambda position: int(self._index.part[position])):
            with self._opened(part) as (file, check):
                names = names_of(file.schema_arrow, has_source_of_path=self._sources[part] is not None)
                for position in group:
                    begin = 0
                    for batch in self._batches(file, position, [names[column] for column in columns if column in names]):
                        table = self._named(batch, names, columns, part)
                        yield position, begin, table, self._times(table, position)
                        begin += len(table)
                    if begin != self._index.rows[position]:
                        raise SourceRefused(WAS_CHANGED)
                    check()

    def _batches(self, file: pa_parquet.ParquetFile, position: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        group, is_large = int(self._index.group[position]), bool(self._index.rows[position] > BATCH_ROWS)
        yield from file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=list(names), use_threads=is_large)

    def _named(self, batch: pa.RecordBatch, names: dict[str, str], columns: Sequence[str], part: int) -> pa.Table:
        """Return a batch with the requested columns under their canonical names; `source_id` may come from the part's path."""
        table, of_path = pa.Table.from_batches([batch]), self._sources[part]
        made = {column: table.column(names[column]) for column in columns if column in names}
        if of_path is not None and "source_id" in columns:
            if "source_id" in made:
                self._check_source(made["source_id"], of_path[0])
            codes = np.zeros(len(table), np.int32)
            # Arrow would convert a list through pandas, if that is installed.
            ids = pa.array(np.array([of_path[0] or ""], object), pa.string())
            made["source_id"] = pa.chunked_array([pa.DictionaryArray.from_arrays(codes, ids)])
        return pa.table({column: made[column] for column in columns})

    def _check_source(self, column: pa.ChunkedArray, of_path: str | None) -> None:
        """Refuse a part whose rows and folder name different sources."""
        codes, ids = source_ids(column)
        if not {ids[code] if code != NO_SOURCE else "" for code in np.unique(codes).tolist()} <= {of_path or ""}:
            raise SourceRefused("INPUT_FILE: rows name another source than their folder, source_id=…, does")

    def _times(self, table: pa.Table, position: int) -> Times:
        """Return a batch's times; refuse a part with times outside its footer's statistics: rows would be missed."""
        found = times(table.column("timestamp"))
        timed = found.times_ns[found.kinds == TimeKind.CALENDAR]
        if len(timed) and not (self._index.first_ns[position] <= timed.min() and timed.max() <= self._index.last_ns[position]):
            raise SourceRefused(
                "INPUT_FILE: the statistics of column timestamp are wrong, rows have times that lie outside of them; write the file anew"
            )
        return found

    # Parts

    def _footer(self, part: int) -> Footer:
        with self._opened(part) as (file, check):
            found = footer_of(file, has_source_of_path=self._sources[part] is not None)
            check()
            return found

    @contextmanager
    def _opened(self, part: int) -> Iterator[tuple[pa_parquet.ParquetFile, Callable[[], None]]]:
        """Yield an open part, and a function that checks that it is unchanged since it was listed."""
        try:
            opened = self._store.opened(self._parts[part])
            try:
                file = pa_parquet.ParquetFile(
                    opened.file,
                    metadata=self._footers_held.get(part),
                    page_checksum_verification=True,
                    buffer_size=min(_FETCHED_BYTES, self._parts[part].size or 1),
                    pre_buffer=False,
                )
                self._hold_footer(part, file.metadata)
                yield file, opened.check
            except _BROKEN_PART:
                # What could not be parsed may be half of the old file and half of the new one.
                opened.check()
                raise
            finally:
                opened.close()
        except SourceRefused as error:
            raise SourceRefused(str(error) if str(error) == WAS_CHANGED else f"{error} ({self._place(part)})") from None
        except _BROKEN_PART as error:
            raise self._as_source_error(error, part) from None

    def _hold_footer(self, part: int, footer: pa_parquet.FileMetaData) -> None:
        with self._lock_of_footers:
            self._footers_held[part] = footer
            while len(self._footers_held) > _FOOTERS_IN_MEMORY:
                del self._footers_held[next(iter(self._footers_held))]

    def _as_source_error(self, error: Exception, part: int) -> SourceError:
        # Arrow may raise a parse error as an OSError, but without an errno.
        if isinstance(error, OSError) and error.errno is not None:
            return SourceUnavailable(f"INPUT_FILE cannot be read ({error.strerror})")
        return SourceRefused(
            f"INPUT_FILE holds a file that is not readable Parquet: {without_values(error)} ({self._place(part)})"
        )

    def _place(self, part: int) -> str:
        return place_of(part, len(self._parts))

    def _place_of_row(self, position: int, row: int) -> str:
        part, group = int(self._index.part[position]), int(self._index.group[position])
        before = int(self._index.rows[(self._index.part == part) & (self._index.group < group)].sum())
        return f"row {before + row + 1} of part {part + 1} (row group {group + 1}; {HOW_PARTS_ARE_COUNTED})"


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a data set."""

    index: Index
    request: str

    def states(self) -> dict[str, str]:
        return {part.key: f"{part.size} {part.version}" for part in self.index.parts}

    def times_of(self, paths: Collection[str]) -> list[Window]:
        asked, index = set(paths), self.index
        is_requested = np.array([part.key in asked for part in index.parts], np.bool_)
        found = np.flatnonzero(is_requested[index.part] & (index.first_ns <= index.last_ns))
        return sorted(
            Window(*one) for one in zip(index.first_ns[found].tolist(), (index.last_ns[found] + 1).tolist(), strict=True)
        )


class _Gathered:
    """Collects rows from many tables.

    Args:
        microvolts_per_unit: Factor for the values.
    """

    def __init__(self, microvolts_per_unit: float) -> None:
        self._microvolts_per_unit = microvolts_per_unit
        self._codes: dict[str, int] = {}
        self._times: list[npt.NDArray[np.int64]] = []
        self._sources: list[npt.NDArray[np.int32]] = []
        self._values: list[npt.NDArray[np.float64]] = []
        self.rows = 0

    def add(self, cells: Cells) -> None:
        samples = cells.samples
        # The extra last entry is for rows without a source: NO_SOURCE is -1.
        codes = [*(self._codes.setdefault(one, len(self._codes)) for one in samples.source_ids), NO_SOURCE]
        self._times.append(samples.times_ns)
        self._sources.append(np.array(codes, np.int32)[samples.source_codes])
        self._values.append(samples.values_uv * self._microvolts_per_unit)
        self.rows += len(samples)

    def cut(self, least_end_ns: int, rows: int) -> int:
        """Keep about the first `rows` rows by time, and all before `least_end_ns`; return the time before which all are kept."""
        times_ns, sources, values = self._together()
        end_ns = max(least_end_ns, int(np.partition(times_ns, rows)[rows]))
        keep = times_ns < end_ns
        self._times, self._sources, self._values = [times_ns[keep]], [sources[keep]], [values[keep]]
        self.rows = int(keep.sum())
        return end_ns

    def samples(self) -> Samples:
        """Return the rows sorted by time, and drop them."""
        times_ns, sources, values = self._together()
        self._times, self._sources, self._values = [], [], []
        if not (times_ns[1:] >= times_ns[:-1]).all():
            order = np.argsort(times_ns, kind="stable")
            times_ns, sources, values = times_ns[order], sources[order], values[order]
        return make_samples(times_ns, sources, list(self._codes), values)

    def _together(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        return (
            np.concatenate([np.empty(0, np.int64), *self._times]),
            np.concatenate([np.empty(0, np.int32), *self._sources]),
            np.concatenate([np.empty(0, np.float64), *self._values]),
        )


def _some(cells: Cells, rows: npt.NDArray[np.intp]) -> Cells:
    return Cells(picked(cells.samples, rows), cells.time_kinds[rows], cells.value_kinds[rows], cells.is_wanted[rows])
