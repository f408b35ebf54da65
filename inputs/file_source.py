"""Samples from a file: CSV, gzipped CSV or Parquet with the columns `timestamp`, `source_id` and `ecg`; or from recordings.

A CSV file is parsed in blocks and held in memory, 20 bytes a row. So is a Parquet file of a few million rows; of a larger one each row
group is read when it is needed, so that memory does not grow with the file. A cell that holds no number or names no source makes its row
*invalid*, not the file; so does a `timestamp` that is no time, whose row lies in no window. The whole file is looked through before
anything is released: `inputs/file_survey.py` says what of it is read. No message names the file, which may be called after somebody.
Recordings (EDF, BDF, WFDB, DICOM; `inputs/recordings/`) go the same way: of one channel, and in parts like those of Parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from anonymizer.errors import SourceDenied, SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import NO_SOURCE, RowsBeside, Samples, StoredSource, make_samples, picked
from anonymizer.windows import NANOSECONDS, WindowRange
from inputs import csv_text
from inputs.cell_parser import CellParser, between
from inputs.csv_text import HashingReader
from inputs.file_format import format_of_file
from inputs.file_survey import Cells, Place, Survey
from inputs.file_text import without_values
from inputs.file_times import CALENDAR_KINDS, EPOCH_KINDS, TimeKind
from inputs.held_file import HeldFile
from inputs.parquet_rows import ParquetRows, RowGroups
from inputs.recordings.folder import Recordings

#: A Parquet file of no more rows is kept: 80 MB.
MOST_ROWS_IN_MEMORY = 4_000_000

#: A CSV file of more rows is refused: 4 GB.
MOST_CSV_ROWS = 200_000_000

#: Parts of a larger one that stay, so that those a chunk's edge lies in are not read twice.
_PARTS_IN_MEMORY = 2

#: Digits of a file's digest that name its data set.
_DIGEST_DIGITS = 12

#: Kinds of times that may turn out to be times, once the whole file is known.
_MAYBE_TIMES = np.isin(np.arange(len(TimeKind)), (*CALENDAR_KINDS, *EPOCH_KINDS))

#: What reading a file may raise: the disk's errors, what Arrow says of its inside, and texts that are none.
_BROKEN_FILE = (OSError, pa.ArrowException, UnicodeDecodeError)

#: A source and the second after a leap second, in nanoseconds.
_Second = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a file that are read together: from when to when, how many, and how to get them in order of time."""

    first_ns: int
    last_ns: int
    rows: int
    load: Callable[[], Samples]

    @classmethod
    def of(cls, samples: Samples, load: Callable[[], Samples] | None = None) -> _Part:
        """Return a part with some rows, in order of time, that `load` returns too; without it they are kept."""
        first_ns, last_ns = int(samples.times_ns[0]), int(samples.times_ns[-1])
        return cls(first_ns, last_ns, len(samples), load or partial(_same, samples))


class FileSource(StoredSource):
    """Reads one file, or recordings, once.

    Args:
        path: The file; its name or its first bytes tell its format.
        sources: Only these source ids; empty: all.
        microvolts_per_unit: 1 when values are microvolts, 1000 when they are millivolts.
        start_ns, end_ns: The span that was asked for, of which shares of invalid rows are judged; None: no bound. Rows outside it are held.
        recordings: Opens the recordings that are read instead of the file; their values are microvolts whatever `microvolts_per_unit`.
    """

    reads_at_a_time = 1
    data_set_tells_samples = True
    is_looked_through = True
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
        self._held_file: HeldFile | None = None
        self._parts: list[_Part] = []
        self._conclusion = Survey().conclude()
        self._spoiled: frozenset[_Second] = frozenset()
        self._spoiled_rows = 0
        self.data_set = self.data_set_address = ""
        self.remarks: tuple[str, ...] = ()

    def open(self) -> None:
        """Read the file once. Raises as `SampleSource.open` says."""
        try:
            self.close()
            survey = Survey(*self._span)
            if self._recordings:
                self._open_recordings(self._recordings(), survey)
                return
            self._held_file = HeldFile(self._path)
            if self._format() == "Parquet":
                self._open_parquet(self._held_file, survey)
            else:
                self._open_csv(self._held_file, survey)
        except _BROKEN_FILE as error:
            raise self._as_source_error(error) from None

    def extent(self) -> tuple[int, int] | None:
        """Return first time and last time + 1; None for a file without rows."""
        if not self._parts:
            return None
        return min(part.first_ns for part in self._parts), max(part.last_ns for part in self._parts) + 1

    def rows_beside(self, start_ns: int, end_ns: int) -> RowsBeside:
        """Return how many rows of the file lie in no window between two times, and why."""
        survey = self._conclusion.survey
        without_time = self._conclusion.without_time + self._spoiled_rows
        inside = 0
        for part in self._parts:
            if start_ns <= part.first_ns and part.last_ns < end_ns:
                inside += part.rows
            elif part.first_ns < end_ns and part.last_ns >= start_ns:
                inside += len(between(self._load(part), start_ns, end_ns))
        return RowsBeside(without_time=without_time, not_asked_for=survey.rows - without_time - inside)

    def next_row_ns(self, start_ns: int, end_ns: int) -> int | None:
        """Return the time of the first row in a span; None when there is none."""
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
        """Return the times of rows that were added at the end of a CSV file; what rewrites a file cannot be told from another file."""
        if self._recordings or self._format() == "Parquet":
            return None
        try:
            with self._path.open("rb") as file:
                length = csv_text.length_of_version(file, data_set) if self._path.stat().st_size else None
                return None if length is None else self._times_behind(file, length)
        except OSError as error:
            raise self._as_source_error(error) from None

    def _times_behind(self, file: BinaryIO, length: int) -> npt.NDArray[np.int64]:
        """Return the times of the rows behind the first so many bytes."""
        file.seek(0)
        before = sum(block.table().num_rows for block in csv_text.blocks(csv_text.opened(HashingReader(file, length), file)))
        file.seek(0)
        found = [np.empty(0, np.int64)]
        for block in csv_text.blocks(csv_text.opened(HashingReader(file), file)):
            table = block.table()
            found.append(self._samples(self._cells(table.slice(min(before, len(table))))).times_ns)
            before = max(0, before - len(table))
        return np.concatenate(found)

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows lie in each window."""
        edges = windows.start_ns + windows.length_ns * np.arange(len(windows) + 1)
        counts = np.zeros(len(windows), dtype=np.int64)
        for samples in self._overlapping(windows):
            counts += np.diff(np.searchsorted(samples.times_ns, edges))
        return counts

    def read(self, windows: WindowRange) -> Samples:
        """Return the rows of the windows, in order of time."""
        found = [between(samples, windows.start_ns, windows.end_ns) for samples in self._overlapping(windows)]
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
        """Return nothing: a file tells no more than its three columns. Of recordings, what their names have to do with it."""
        return "Recordings of one INPUT_SOURCE_ID must not overlap in time." if self._recordings else ""

    def close(self) -> None:
        """Forget the rows, and let go of the file."""
        self._parts = []
        if self._held_file is not None:
            self._held_file.close()

    def _overlapping(self, windows: WindowRange) -> Iterator[Samples]:
        for part in self._parts:
            if part.first_ns < windows.end_ns and part.last_ns >= windows.start_ns:
                yield self._load(part)

    def _load(self, part: _Part) -> Samples:
        try:
            return part.load()
        except _BROKEN_FILE as error:
            raise self._as_source_error(error) from None

    def _as_source_error(self, error: Exception) -> SourceError:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            return SourceDenied(f"INPUT_FILE cannot be read ({error.strerror})")
        # What Arrow finds inside a file it may raise as an OSError, but without a number: no disk will ever read it better.
        if isinstance(error, OSError) and error.errno is not None:
            return SourceUnavailable(f"INPUT_FILE cannot be read ({error.strerror})")
        return SourceRefused(f"INPUT_FILE is not a readable {self._format()} file: {without_values(error)}")

    def _format(self) -> str:
        is_parquet = self._path.suffix.lower() in (".parquet", ".pq") or format_of_file(self._path) == "Parquet"
        return "Parquet" if is_parquet else "CSV"

    # CSV

    def _open_csv(self, held_file: HeldFile, survey: Survey) -> None:
        # No further than it went at first: whoever writes faster than we read would be followed for ever.
        reader = HashingReader(held_file.file, held_file.size)
        held = []
        with held_file.unchanged():
            for block in csv_text.blocks(csv_text.opened(reader, held_file.file)):
                cells = self._cells(block.table())
                survey.has_commas_between = block.dialect.delimiter == ","
                survey.add(cells, lambda row, block=block: f"line {block.line_of(row)}")  # type: ignore[misc]
                held.append(_with_maybe_times(cells))
                if survey.rows > MOST_CSV_ROWS:
                    raise SourceRefused(
                        f"INPUT_FILE has more than {MOST_CSV_ROWS:,} rows, which are held in memory; write it as Parquet"
                    )
            held_file.check(reader.hexdigest())
        self.data_set = reader.hexdigest()[:_DIGEST_DIGITS]
        self._conclude(survey, lambda: iter(held))
        parts = []
        while held:
            # One after the other, so that no more than one is in memory twice.
            parts.append(self._samples(held.pop(0)))
        self._parts = [_Part.of(samples) for samples in parts if len(samples)]

    # Parquet

    def _open_parquet(self, held_file: HeldFile, survey: Survey) -> None:
        self.data_set = held_file.sha256()[:_DIGEST_DIGITS]
        rows = ParquetRows(held_file)

        def cells(groups: RowGroups) -> Cells:
            return self._cells(rows.read(groups))

        self._hold([(partial(cells, groups), groups.place) for groups in rows.parts], rows.rows, survey)

    # Recordings

    def _open_recordings(self, recordings: Recordings, survey: Survey) -> None:
        self.data_set = recordings.digest[:_DIGEST_DIGITS]
        parts = [(partial(part.cells, self._parser.is_wanted), part.place) for part in recordings.parts()]
        self._hold(parts, recordings.rows, survey)
        self.remarks = (*recordings.remarks, *self.remarks)

    # Parts

    def _hold(self, parts: Sequence[tuple[Callable[[], Cells], Place]], rows: int, survey: Survey) -> None:
        """Look through all parts; keep them, or of a larger file how to read them again."""
        is_kept = rows <= MOST_ROWS_IN_MEMORY
        held: list[Cells] = []
        for cells, place in parts:
            found = cells()
            survey.add(found, place)
            if is_kept:
                held.append(_with_maybe_times(found))
        self._conclude(survey, lambda: iter(held) if is_kept else (cells() for cells, _ in parts))
        self._parts = []
        load_again = lru_cache(maxsize=_PARTS_IN_MEMORY)(lambda index: self._samples(parts[index][0]()))
        for index, (cells, _) in enumerate(parts):
            samples = self._samples(held[index] if is_kept else cells())
            if len(samples):
                self._parts.append(_Part.of(samples, None if is_kept else partial(load_again, index)))

    # Rows

    def _conclude(self, survey: Survey, cells: Callable[[], Iterator[Cells]]) -> None:
        """Settle what counts as a time. A leap second's rows do not where their source has rows in the second after it, too."""
        self._conclusion = survey.conclude()
        self._spoiled, self._spoiled_rows = frozenset(), 0
        remarks = self._conclusion.remarks()
        if survey.has_leap_seconds and TimeKind.LEAP_SECOND in self._conclusion.time_kinds:
            self._spoiled = spoiled_seconds(cells)
            self._spoiled_rows = sum(self._spoiled_in_span(one) for one in cells()) if self._spoiled else 0
        if self._spoiled_rows:
            remarks.append(
                f"INPUT_FILE: {self._spoiled_rows} rows of a leap second (23:59:60), {survey.place_of_leap_second}, are invalid: "
                "their sources have rows in the second after it as well, and both cannot be the same second"
            )
        self.remarks = tuple(remarks)

    def _spoiled_in_span(self, cells: Cells) -> int:
        """Return how many rows are spoiled and were asked for; those at other times were not, whatever they are."""
        in_span = self._conclusion.survey.is_in_span(cells.samples.times_ns)
        return int((in_span & is_spoiled(cells, self._spoiled)).sum())

    def _samples(self, cells: Cells) -> Samples:
        """Return the rows that have a time and were asked for, in order of time."""
        keep = self._conclusion.has_time(cells.time_kinds) & cells.is_wanted
        if self._spoiled:
            keep &= ~is_spoiled(cells, self._spoiled)
        samples = cells.samples
        order = np.flatnonzero(keep)
        if not (np.diff(samples.times_ns[order]) >= 0).all():
            order = order[np.argsort(samples.times_ns[order], kind="stable")]
        found = picked(samples, slice(None) if len(order) == len(samples) and _ascends(samples.times_ns) else order)
        return Samples(found.times_ns, found.source_codes, found.source_ids, found.values_uv * self._microvolts_per_unit)


def _ascends(times_ns: npt.NDArray[np.int64]) -> bool:
    return bool((times_ns[1:] >= times_ns[:-1]).all())


def _with_maybe_times(cells: Cells) -> Cells:
    """Return the rows that may have a time; the others are counted, and lie in no window."""
    keep = _MAYBE_TIMES[cells.time_kinds] & cells.is_wanted
    if keep.all():
        return cells
    rows = np.flatnonzero(keep)
    return Cells(picked(cells.samples, rows), cells.time_kinds[rows], cells.value_kinds[rows], cells.is_wanted[rows])


def spoiled_seconds(cells: Callable[[], Iterator[Cells]]) -> frozenset[_Second]:
    """Return the leap seconds of sources that have rows in the second after as well: both cannot be the same second."""
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
    """Return which rows are of a leap second that cannot be told from the second after it."""
    found: npt.NDArray[np.bool_] = (cells.time_kinds == TimeKind.LEAP_SECOND) & cells.is_wanted
    for row in np.flatnonzero(found).tolist():
        code = int(cells.samples.source_codes[row])
        second = int(cells.samples.times_ns[row]) // NANOSECONDS
        found[row] = code != NO_SOURCE and (cells.samples.source_ids[code], second) in spoiled
    return found


def _same(samples: Samples) -> Samples:
    return samples


def _merged(parts: Sequence[Samples]) -> Samples:
    """Return the rows of all parts in order of time."""
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
    return picked(together, np.argsort(together.times_ns, kind="stable"))
