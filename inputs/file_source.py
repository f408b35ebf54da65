"""Samples from a file: CSV, gzipped CSV or Parquet with the columns `timestamp`, `source_id` and `ecg`; or from recordings.

A CSV file is parsed in blocks and held in memory, 20 bytes per row. So is a Parquet file of a few million rows; of a larger one each row
group is read again when it is needed, so that memory does not grow with the file. A cell without a valid time, source or number makes its
row *invalid*, not the file. The whole file is surveyed before the first release: `inputs/file_survey.py` decides what of it is read. No
message names the file, which may be named after a wearer. Recordings (EDF, BDF, WFDB, DICOM; `inputs/recordings/`) are read in parts, like
Parquet; only one channel is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from anonymizer.errors import SourceDenied, SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import NO_SOURCE, RowsBeside, Samples, StoredSource, make_samples, picked, sort_key
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from inputs import csv_text
from inputs.cell_parser import CellParser, between
from inputs.file_format import format_of_file
from inputs.file_survey import Cells, Place, Survey, may_be_times
from inputs.file_text import without_values
from inputs.file_times import TimeKind
from inputs.input_file import HashingReader, InputFile, find_version, unpacked
from inputs.parquet_rows import ParquetRows, RowGroups

if TYPE_CHECKING:
    from inputs.recordings.folder import Recordings

#: A Parquet file of up to this many rows stays in memory: 80 MB.
MOST_ROWS_IN_MEMORY = 4_000_000

#: The longest CSV file: 4 GB of memory.
MOST_CSV_ROWS = 200_000_000

#: Parts of a larger file that stay in memory, so that a part which two chunks share is not read twice.
_PARTS_IN_MEMORY = 2

#: Parts with fewer rows per second are counted by reading them.
_FEWEST_ROWS_A_SECOND = 8

#: Hex digits of a file's digest that name its data set.
_DIGEST_DIGITS = 12

#: Errors of the disk, of Arrow's parsers, and of invalid UTF-8.
_BROKEN_FILE = (OSError, pa.ArrowException, UnicodeDecodeError)

#: A source and the second after a leap second, in nanoseconds.
_Second = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Rows of a file that are read together.

    Args:
        first_ns, last_ns: Their first and last time.
        rows: How many there are.
        may_repeat: Whether a source may have several rows for one time.
        seconds: The start of each second that has rows, and how many rows come before it; None if only the rows themselves tell.
        load: Returns them, sorted by time.
    """

    first_ns: int
    last_ns: int
    rows: int
    may_repeat: bool
    seconds: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None
    load: Callable[[], Samples]

    @classmethod
    def of(cls, samples: Samples, load: Callable[[], Samples] | None = None) -> _Part:
        """Return a part of rows that are sorted by time. `load` returns them again; without it they stay in memory."""
        first_ns, last_ns = int(samples.times_ns[0]), int(samples.times_ns[-1])
        seconds = None if load is None else _seconds_in(samples.times_ns)
        return cls(first_ns, last_ns, len(samples), _may_repeat(samples), seconds, load or partial(_same, samples))

    def rows_before(self, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return how many rows come before each time; they are loaded unless `seconds` tells."""
        if self.seconds is None or (times_ns % NANOSECONDS).any():
            return np.searchsorted(self.load().times_ns, times_ns)
        starts_ns, rows = self.seconds
        return rows[np.searchsorted(starts_ns, times_ns)]


def _seconds_in(times_ns: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Return `_Part.seconds` of sorted times; None if it would need about as much memory as the rows."""
    seconds = times_ns // NANOSECONDS
    first = np.flatnonzero(np.diff(seconds, prepend=seconds[0] - 1))
    if _FEWEST_ROWS_A_SECOND * len(first) > len(seconds):
        return None
    return seconds[first] * NANOSECONDS, np.append(first, len(seconds))


def _may_repeat(samples: Samples) -> bool:
    """Return False if no source has several rows for one time, for rows that are sorted by time."""
    first_ns, span_ns = samples.times_ns[0], int(samples.times_ns[-1] - samples.times_ns[0]) + 1
    key = np.sort(sort_key(samples.times_ns - first_ns, samples.source_codes, span_ns=span_ns, sources=len(samples.source_ids)))
    return bool((key[1:] == key[:-1]).any())


def _repeats(parts: Sequence[_Part]) -> list[Window]:
    """Return the spans in which a source may have several rows for one time: in one part, or in parts that overlap."""
    found, last_ns = [], -(2**63)
    for part in sorted(parts, key=lambda part: part.first_ns):
        if part.may_repeat:
            found.append(Window(part.first_ns, part.last_ns + 1))
        elif part.first_ns <= last_ns:
            found.append(Window(part.first_ns, min(part.last_ns, last_ns) + 1))
        last_ns = max(last_ns, part.last_ns)
    return found


class FileSource(StoredSource):
    """Reads one file, or recordings, once.

    Args:
        path: The file; its name or first bytes show its format.
        sources: Source ids to read; empty: all.
        microvolts_per_unit: 1 when values are microvolts, 1000 when they are millivolts.
        start_ns, end_ns: The requested span, in which the share of invalid rows is judged; None: no bound. Rows outside it are read too.
        recordings: Opens the recordings to read instead of the file. Their values are microvolts whatever `microvolts_per_unit`.
    """

    concurrent_reads = 1
    data_set_tells_samples = True
    is_surveyed = True
    inventory = None
    name = "INPUT_FILE"

    def __init__(
        self,
        path: Path,
        *,
        sources: tuple[str, ...] = (),
        microvolts_per_unit: float = 1.0,
        start_ns: int | None = None,
        end_ns: int | None = None,
        recordings: Callable[[], Recordings] | None = None,
    ) -> None:
        self._path = path
        self._recordings = recordings
        self._parser = CellParser(sources, 1.0 if recordings else microvolts_per_unit)
        self._cells = self._parser.cells
        self._microvolts_per_unit = 1.0 if recordings else microvolts_per_unit
        self._span = start_ns, end_ns
        self._input_file: InputFile | None = None
        self._parts: list[_Part] = []
        self.repeats: Sequence[Window] = ()
        self._conclusion = Survey().conclude()
        self._spoiled: frozenset[_Second] = frozenset()
        self._spoiled_rows = 0
        self.data_set = self.data_set_address = ""
        self.remarks: tuple[str, ...] = ()

    def open(self) -> None:
        """Read the file once. Raises as `SampleSource.open` says."""
        try:
            self.close()
            self._parts = self._opened(Survey(*self._span))
            self.repeats = _repeats(self._parts)
        except _BROKEN_FILE as error:
            raise self._as_source_error(error) from None

    def _opened(self, survey: Survey) -> list[_Part]:
        if self._recordings:
            return self._open_recordings(self._recordings(), survey)
        self._input_file = InputFile(self._path)
        return (self._open_parquet if self._format() == "Parquet" else self._open_csv)(self._input_file, survey)

    def extent(self) -> tuple[int, int] | None:
        """Return the first time and the last time + 1; None for a file without rows."""
        if not self._parts:
            return None
        return min(part.first_ns for part in self._parts), max(part.last_ns for part in self._parts) + 1

    def rows_beside(self, start_ns: int, end_ns: int) -> RowsBeside:
        """Return how many rows lie in no window of a span, by reason."""
        survey = self._conclusion.survey
        without_time = self._conclusion.without_time + self._spoiled_rows
        inside = 0
        for part in self._parts:
            if start_ns <= part.first_ns and part.last_ns < end_ns:
                inside += part.rows
            elif part.first_ns < end_ns and part.last_ns >= start_ns:
                inside += int(np.diff(self._rows_before(part, np.array([start_ns, end_ns])))[0])
        return RowsBeside(without_time=without_time, not_requested=survey.rows - without_time - inside)

    def next_row_ns(self, start_ns: int, end_ns: int) -> int | None:
        """Return the time of the first row in a span; None if there is none."""
        times_ns = []
        for part in self._parts:
            if part.first_ns >= start_ns:
                times_ns.append(part.first_ns)
            elif part.last_ns >= start_ns:
                held_ns = self._load(part).times_ns
                times_ns.append(int(held_ns[np.searchsorted(held_ns, start_ns)]))
        first_ns = min(times_ns, default=end_ns)
        return first_ns if first_ns < end_ns else None

    def added_since(self, data_set: str) -> npt.NDArray[np.int64] | None:
        """Return the times of rows appended to a CSV file since that version; None if the file was rewritten, or is not CSV."""
        if self._recordings or self._format() == "Parquet":
            return None
        try:
            with self._path.open("rb") as file:
                version = find_version(file, lambda digest: digest.startswith(data_set)) if self._path.stat().st_size else None
                return None if version is None else self._times_behind(file, version[0])
        except OSError as error:
            raise self._as_source_error(error) from None

    def earlier_version(self, is_known: Callable[[str], bool]) -> str | None:
        """Return the digest of the version of a CSV file to which rows were appended, if a function knows it; None if there is none."""
        if self._recordings or self._format() == "Parquet":
            return None
        try:
            with self._path.open("rb") as file:
                if not self._path.stat().st_size:
                    return None
                version = find_version(file, lambda digest: is_known(digest[:_DIGEST_DIGITS]))
                return None if version is None else version[1][:_DIGEST_DIGITS]
        except OSError as error:
            raise self._as_source_error(error) from None

    def _times_behind(self, file: BinaryIO, length: int) -> npt.NDArray[np.int64]:
        """Return the times of the rows after the first `length` bytes."""
        file.seek(0)
        before = sum(block.table().num_rows for block in csv_text.blocks(unpacked(HashingReader(file, length), file)))
        file.seek(0)
        found = [np.empty(0, np.int64)]
        for block in csv_text.blocks(unpacked(HashingReader(file), file)):
            table = block.table()
            found.append(self._samples(self._cells(table.slice(min(before, len(table))))).times_ns)
            before = max(0, before - len(table))
        return np.concatenate(found)

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows lie in each window, shape (len(windows),), int64."""
        edges = windows.start_ns + windows.length_ns * np.arange(len(windows) + 1)
        counts = np.zeros(len(windows), dtype=np.int64)
        for part in self._overlapping(windows):
            counts += np.diff(self._rows_before(part, edges))
        return counts

    def read(self, windows: WindowRange) -> Samples:
        """Return the rows of the windows, in order of time."""
        found = [between(samples, windows.start_ns, windows.end_ns) for samples in map(self._load, self._overlapping(windows))]
        if not found:
            return make_samples([], [], (), [])
        return found[0] if len(found) == 1 else _merged(found)

    def advice_when_empty(self) -> str:
        """Return a sentence on what the file holds."""
        survey = self._conclusion.survey
        if not survey.rows:
            return "INPUT_FILE has a header and no rows."
        if self._parts:
            return "INPUT_FILE has rows, but none at these times; check QUERY_START_TIME and QUERY_END_TIME."
        if survey.unwanted == survey.rows:
            return "INPUT_FILE has no rows of these sources; check DEVICE_FILTER."
        return "INPUT_FILE has no row with a time; check its column timestamp."

    def hint_on_contradictions(self) -> str:
        """Return a hint for recordings, whose names may be the cause; nothing for a file, which has only its three columns."""
        return "Recordings of one INPUT_SOURCE_ID must not overlap in time." if self._recordings else ""

    def close(self) -> None:
        """Drop the rows and close the file."""
        self._parts = []
        if self._input_file is not None:
            self._input_file.close()

    def _overlapping(self, windows: WindowRange) -> list[_Part]:
        return [part for part in self._parts if part.first_ns < windows.end_ns and part.last_ns >= windows.start_ns]

    def _load(self, part: _Part) -> Samples:
        with self._named_errors():
            return part.load()

    def _rows_before(self, part: _Part, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        with self._named_errors():
            return part.rows_before(times_ns)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN_FILE as error:
            raise self._as_source_error(error) from None

    def _as_source_error(self, error: Exception) -> SourceError:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            return SourceDenied(f"INPUT_FILE cannot be read ({error.strerror})")
        # Arrow may raise a parse error as an OSError, but without an errno: a retry would not help.
        if isinstance(error, OSError) and error.errno is not None:
            return SourceUnavailable(f"INPUT_FILE cannot be read ({error.strerror})")
        return SourceRefused(f"INPUT_FILE is not a readable {self._format()} file: {without_values(error)}")

    def _format(self) -> str:
        is_parquet = self._path.suffix.lower() in (".parquet", ".pq") or format_of_file(self._path) == "Parquet"
        return "Parquet" if is_parquet else "CSV"

    # CSV

    def _open_csv(self, input_file: InputFile, survey: Survey) -> list[_Part]:
        # Only up to its first size: a writer that is faster than this reader would be followed for ever.
        reader = HashingReader(input_file.file, input_file.size)
        held = []
        with input_file.unchanged():
            for block in csv_text.blocks(unpacked(reader, input_file.file)):
                cells = self._cells(block.table())
                survey.has_commas_between = block.dialect.delimiter == ","
                place = lambda row, block=block: f"line {block.line_of(row)}"  # noqa: E731
                held.append(_surveyed(cells, place, survey))
                if survey.rows > MOST_CSV_ROWS:
                    raise SourceRefused(
                        f"INPUT_FILE has more than {MOST_CSV_ROWS:,} rows, which are held in memory; write it as Parquet"
                    )
            input_file.check(reader.hexdigest())
        self.data_set = reader.hexdigest()[:_DIGEST_DIGITS]
        self._conclude(survey, lambda: iter(held))
        return self._parts_in_memory(held)

    # Parquet

    def _open_parquet(self, input_file: InputFile, survey: Survey) -> list[_Part]:
        self.data_set = input_file.sha256()[:_DIGEST_DIGITS]
        rows = ParquetRows(input_file)

        def cells(groups: RowGroups) -> Cells:
            return self._cells(rows.read(groups))

        return self._hold([(partial(cells, groups), groups.place) for groups in rows.parts], rows.rows, survey)

    # Recordings

    def _open_recordings(self, recordings: Recordings, survey: Survey) -> list[_Part]:
        self.data_set = recordings.digest[:_DIGEST_DIGITS]
        parts = [(partial(part.cells, self._parser.is_wanted), part.place) for part in recordings.parts()]
        found = self._hold(parts, recordings.rows, survey)
        self.remarks = (*recordings.remarks, *self.remarks)
        return found

    # Parts

    def _hold(self, parts: Sequence[tuple[Callable[[], Cells], Place]], rows: int, survey: Survey) -> list[_Part]:
        """Survey all parts; keep them in memory, or of a larger file how to read them again."""
        if rows <= MOST_ROWS_IN_MEMORY:
            held = []
            for cells, place in parts:
                held.append(_surveyed(cells(), place, survey))
                # Arrow would keep what decoding needed, as much again as the rows.
                pa.default_memory_pool().release_unused()
            self._conclude(survey, lambda: iter(held))
            return self._parts_in_memory(held)
        load_again = lru_cache(maxsize=_PARTS_IN_MEMORY)(lambda index: self._samples(parts[index][0]()))
        loads = [partial(load_again, index) for index in range(len(parts))]
        found = (_in_time_order(_surveyed(cells(), place, survey).samples) for cells, place in parts)
        outlines = [_Part.of(samples, load) for samples, load in zip(found, loads, strict=True) if len(samples)]
        self._conclude(survey, lambda: (cells() for cells, _ in parts))
        if self._spoiled or self._conclusion.drops_times:
            outlines = [_Part.of(samples, load) for load in loads if len(samples := load())]
        return outlines

    def _parts_in_memory(self, held: list[Cells]) -> list[_Part]:
        parts = []
        while held:
            # One by one, so that only one is in memory twice.
            parts.append(self._samples(held.pop(0)))
            pa.default_memory_pool().release_unused()
        return [_Part.of(samples) for samples in parts if len(samples)]

    # Rows

    def _conclude(self, survey: Survey, cells: Callable[[], Iterator[Cells]]) -> None:
        """Conclude the survey. Rows of a leap second are invalid if their source has rows in the second after it too."""
        self._conclusion = survey.conclude()
        self._spoiled, self._spoiled_rows = frozenset(), 0
        remarks = self._conclusion.remarks()
        if survey.has_leap_seconds and TimeKind.LEAP_SECOND in self._conclusion.time_kinds:
            self._spoiled = spoiled_seconds(cells)
            self._spoiled_rows = sum(self._spoiled_in_span(one) for one in cells()) if self._spoiled else 0
        if self._spoiled_rows:
            remarks.append(survey.leap_second_warning(self._spoiled_rows))
        self.remarks = tuple(remarks)

    def _spoiled_in_span(self, cells: Cells) -> int:
        """Return how many spoiled rows lie in the requested span."""
        in_span = self._conclusion.survey.is_in_span(cells.samples.times_ns)
        return int((in_span & is_spoiled(cells, self._spoiled)).sum())

    def _samples(self, cells: Cells) -> Samples:
        """Return the wanted rows that have a time, sorted by time, in microvolts."""
        keep = self._conclusion.has_time(cells.time_kinds) & cells.is_wanted
        if self._spoiled:
            keep &= ~is_spoiled(cells, self._spoiled)
        return _in_microvolts(_some(cells, keep), self._microvolts_per_unit)


def _surveyed(cells: Cells, place: Place, survey: Survey) -> Cells:
    """Count cells; return the wanted rows that may have a time. The others are no longer needed."""
    survey.add(cells, place)
    return _some(cells, may_be_times(cells.time_kinds) & cells.is_wanted)


def _some(cells: Cells, keep: npt.NDArray[np.bool_]) -> Cells:
    if keep.all():
        return cells
    rows = np.flatnonzero(keep)
    return Cells(picked(cells.samples, rows), cells.time_kinds[rows], cells.value_kinds[rows], cells.is_wanted[rows])


def _in_microvolts(cells: Cells, microvolts_per_unit: float) -> Samples:
    """Return the rows sorted by time, in microvolts."""
    found = _in_time_order(cells.samples)
    if microvolts_per_unit == 1.0:
        return found
    return Samples(found.times_ns, found.source_codes, found.source_ids, found.values_uv * microvolts_per_unit)


def _in_time_order(samples: Samples) -> Samples:
    times_ns = samples.times_ns
    if (times_ns[1:] >= times_ns[:-1]).all():
        return samples
    return picked(samples, np.argsort(times_ns, kind="stable"))


def spoiled_seconds(cells: Callable[[], Iterator[Cells]]) -> frozenset[_Second]:
    """Return the leap seconds of sources that have rows in the second after it too: both would be the same second."""
    leaps = {second for one in cells() for second in _seconds(one, TimeKind.LEAP_SECOND)}
    usual = {second for one in cells() for second in _seconds(one, TimeKind.CALENDAR, TimeKind.WITHOUT_ZONE, among=leaps)}
    return frozenset(leaps & usual)


def _seconds(cells: Cells, *kinds: TimeKind, among: set[_Second] | None = None) -> set[_Second]:
    """Return the seconds in which sources have rows of some kinds."""
    rows = np.isin(cells.time_kinds, kinds) & cells.is_wanted & (cells.samples.source_codes != NO_SOURCE)
    if among is not None:
        rows &= np.isin(cells.samples.times_ns // NANOSECONDS, [second for _, second in among])
    pairs = np.unique(np.stack((cells.samples.source_codes[rows], cells.samples.times_ns[rows] // NANOSECONDS), axis=1), axis=0)
    return {(cells.samples.source_ids[code], second) for code, second in pairs.tolist()}


def is_spoiled(cells: Cells, spoiled: frozenset[_Second]) -> npt.NDArray[np.bool_]:
    """Return which rows are of a leap second in `spoiled`, shape (n,), bool."""
    found: npt.NDArray[np.bool_] = (cells.time_kinds == TimeKind.LEAP_SECOND) & cells.is_wanted
    for row in np.flatnonzero(found).tolist():
        code = int(cells.samples.source_codes[row])
        second = int(cells.samples.times_ns[row]) // NANOSECONDS
        found[row] = code != NO_SOURCE and (cells.samples.source_ids[code], second) in spoiled
    return found


def _same(samples: Samples) -> Samples:
    return samples


def _merged(parts: Sequence[Samples]) -> Samples:
    """Return the rows of all parts, sorted by time."""
    ids_before = np.cumsum([0, *(len(part.source_ids) for part in parts)])
    codes = [
        np.where(part.source_codes == NO_SOURCE, NO_SOURCE, part.source_codes + before)
        for part, before in zip(parts, ids_before, strict=False)
    ]
    together = make_samples(
        np.concatenate([part.times_ns for part in parts]),
        np.concatenate(codes),
        [source_id for part in parts for source_id in part.source_ids],
        np.concatenate([part.values_uv for part in parts]),
    )
    return _in_time_order(together)
