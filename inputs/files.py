"""Samples from a file: CSV, gzipped CSV or Parquet with the columns `timestamp`, `source_id` and `ecg`.

A CSV file is held in memory, 20 bytes a row. So is a Parquet file of a few million rows; of a larger one each row group is read when it is
needed, so that memory does not grow with the file. A cell that is no number or names no source makes its row *invalid*, not the file; a
`timestamp` that is no time puts its row outside every window.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from anonymizer.errors import SourceDenied, SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import NO_SOURCE, Samples, make_samples
from anonymizer.windows import WindowRange
from inputs.file_columns import numbers, source_ids, times

COLUMNS = ("timestamp", "source_id", "ecg")

#: A Parquet file of no more rows is kept: 80 MB.
MOST_ROWS_IN_MEMORY = 4_000_000

#: Row groups of a larger one that stay, so that those a chunk's edge lies in are not read twice.
_GROUPS_IN_MEMORY = 2


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a file that are read together: from when to when, and how to get them in order of time."""

    first_ns: int
    last_ns: int
    load: Callable[[], Samples]

    @classmethod
    def of(cls, samples: Samples, load: Callable[[], Samples]) -> _Part:
        """Return a part with some rows, in order of time, that `load` returns too."""
        return cls(int(samples.times_ns[0]), int(samples.times_ns[-1]), load)


class FileSource:
    """Reads one file, once.

    Args:
        path: The file; its name tells its format.
        sources: Only these source ids; empty: all.
        microvolts_per_unit: 1 when values are microvolts, 1000 when they are millivolts.
    """

    refuses_contradictions = False
    reads_at_a_time = 1
    data_set_tells_samples = True

    def __init__(self, path: Path, *, sources: tuple[str, ...] = (), microvolts_per_unit: float = 1.0) -> None:
        self._path = path
        self._sources = sources
        self._microvolts_per_unit = microvolts_per_unit
        self._parts: list[_Part] = []
        self.name = path.name
        self.data_set = self.data_set_address = ""
        self.without_time = 0

    def open(self) -> None:
        """Read the file once. Raises as `SampleSource.open` says."""
        try:
            with self._path.open("rb") as file:
                self.data_set = hashlib.file_digest(file, "sha256").hexdigest()[:12]
            self.without_time = 0
            self._parts = list(self._parquet_parts() if self._format() == "Parquet" else self._csv_parts())
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._as_source_error(error) from None

    def look(self) -> None:
        """Nothing: what was read once is held, or read again when it is asked for."""

    def news(self) -> list[str]:
        """Return nothing."""
        return []

    def now_ns(self) -> None:
        """Return None: a file has no clock."""
        return

    def clock_check_in_s(self) -> float:
        """Return infinity: there is nothing to check."""
        return math.inf

    def kept_since_ns(self) -> None:
        """Return None: a file keeps everything."""
        return

    def extent(self) -> tuple[int, int] | None:
        """Return first time and last time + 1; None for a file without rows."""
        if not self._parts:
            return None
        return min(part.first_ns for part in self._parts), max(part.last_ns for part in self._parts) + 1

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows lie in each window."""
        edges = windows.start_ns + windows.length_ns * np.arange(len(windows) + 1)
        counts = np.zeros(len(windows), dtype=np.int64)
        for samples in self._overlapping(windows):
            counts += np.diff(np.searchsorted(samples.times_ns, edges))
        return counts

    def read(self, windows: WindowRange) -> Samples:
        """Return the rows of the windows, in order of time."""
        found = [_between(samples, windows.start_ns, windows.end_ns) for samples in self._overlapping(windows)]
        if not found:
            return make_samples([], [], (), [])
        return found[0] if len(found) == 1 else _merged(found)

    def advice_when_empty(self) -> str:
        """Return a sentence on what the file holds."""
        if not self._parts:
            return f"INPUT_FILE {self._path} has no rows for these settings; check DEVICE_FILTER."
        return f"INPUT_FILE {self._path} has rows, but none at these times; check QUERY_START_TIME and QUERY_END_TIME."

    def advice_on_contradictions(self) -> str:
        """Return nothing: duplicates in a file are counted, whatever their values."""
        return ""

    def close(self) -> None:
        """Forget the rows."""
        self._parts = []

    def _overlapping(self, windows: WindowRange) -> Iterator[Samples]:
        for part in self._parts:
            if part.first_ns < windows.end_ns and part.last_ns >= windows.start_ns:
                try:
                    yield part.load()
                except (OSError, pa.ArrowException) as error:
                    raise self._as_source_error(error) from None

    def _as_source_error(self, error: Exception) -> SourceError:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            return SourceDenied(f"INPUT_FILE {self._path} cannot be read ({error.strerror})")
        # What Arrow finds inside a file it may raise as an OSError, but without a number: no disk will ever read it better.
        if isinstance(error, OSError) and error.errno is not None:
            return SourceUnavailable(f"INPUT_FILE {self._path} cannot be read ({error.strerror})")
        return SourceRefused(f"INPUT_FILE {self._path} is not a readable {self._format()} file ({_without_values(error)})")

    def _format(self) -> str:
        return "Parquet" if self._path.suffix.lower() in (".parquet", ".pq") else "CSV"

    def _csv_parts(self) -> Iterator[_Part]:
        # All as text: what is no number or no time must make one row invalid, not the whole file unreadable.
        as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False)
        compression = "gzip" if self._path.suffix.lower() == ".gz" else None
        with pa.input_stream(str(self._path), compression=compression) as stream:
            table = pa_csv.read_csv(stream, parse_options=pa_csv.ParseOptions(newlines_in_values=True), convert_options=as_text)
        self._check_columns(table.column_names)
        samples = self._noted(table)
        if len(samples):
            yield _Part.of(samples, partial(_same, samples))

    def _parquet_parts(self) -> Iterator[_Part]:
        """Yield a part for each row group; the rows are kept unless the file has too many."""
        about = pa_parquet.read_metadata(self._path)
        self._check_columns(pa_parquet.read_schema(self._path).names)
        load_again = lru_cache(maxsize=_GROUPS_IN_MEMORY)(self._row_group)
        for group in range(about.num_row_groups):
            samples = self._noted(self._row_group_table(group))
            if len(samples):
                is_kept = about.num_rows <= MOST_ROWS_IN_MEMORY
                yield _Part.of(samples, partial(_same, samples) if is_kept else partial(load_again, group))

    def _row_group(self, group: int) -> Samples:
        return self._as_samples(self._row_group_table(group))[0]

    def _row_group_table(self, group: int) -> pa.Table:
        # Opened anew each time, as two threads may ask.
        with pa_parquet.ParquetFile(self._path) as file:
            return file.read_row_group(group, columns=list(COLUMNS))

    def _noted(self, table: pa.Table) -> Samples:
        samples, without_time = self._as_samples(table)
        self.without_time += without_time
        return samples

    def _check_columns(self, held: list[str]) -> None:
        wrong = [f"{name} missing" if name not in held else f"{name} twice" for name in COLUMNS if held.count(name) != 1]
        if not wrong:
            return
        # A first line that names none of them may be a row, and a message is no place for samples.
        shown = f"it has: {', '.join(held)}" if any(name in held for name in COLUMNS) else "is its first line a header?"
        raise SourceRefused(f"INPUT_FILE {self._path} needs the columns {', '.join(COLUMNS)}; {', '.join(wrong)}, {shown}")

    def _as_samples(self, table: pa.Table) -> tuple[Samples, int]:
        """Return a table's rows in order of time, and how many have none."""
        times_ns, has_time = times(table.column("timestamp"), self._path)
        ids = source_ids(table.column("source_id"))
        codes = pc.fill_null(ids.indices, NO_SOURCE).to_numpy(zero_copy_only=False)
        values = numbers(table.column("ecg"), self._path) * self._microvolts_per_unit
        samples = make_samples(times_ns, codes, [source_id or "" for source_id in ids.dictionary.to_pylist()], values)
        keep = has_time & self._is_wanted(samples)
        order = np.flatnonzero(keep)
        if not (np.diff(samples.times_ns[order]) >= 0).all():
            order = order[np.argsort(samples.times_ns[order], kind="stable")]
        return _picked(samples, order), int((~has_time).sum())

    def _is_wanted(self, samples: Samples) -> npt.NDArray[np.bool_]:
        if not self._sources:
            return np.ones(len(samples), dtype=np.bool_)
        # The extra last entry is for rows that name no source.
        wanted = np.array([*(source_id in self._sources for source_id in samples.source_ids), False])
        return wanted[samples.source_codes]


def _same(samples: Samples) -> Samples:
    return samples


def _between(samples: Samples, start_ns: int, end_ns: int) -> Samples:
    first, stop = np.searchsorted(samples.times_ns, (start_ns, end_ns))
    return _picked(samples, slice(first, stop))


def _picked(samples: Samples, rows: slice | npt.NDArray[np.intp]) -> Samples:
    return Samples(samples.times_ns[rows], samples.source_codes[rows], samples.source_ids, samples.values_uv[rows])


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
    return _picked(together, np.argsort(together.times_ns, kind="stable"))


def _without_values(error: Exception) -> str:
    """Return what is wrong with a file: Arrow and Python quote the cell they could not read, which may be a sample."""
    text = str(error)
    if isinstance(error, UnicodeError) or "UTF8" in text:
        return "it is not UTF-8 text"
    columns = re.match(r"CSV parse error: (?:Row #\d+: )?Expected \d+ columns, got \d+", text)
    return columns.group() if columns else text.split(":", 1)[0]
