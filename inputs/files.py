"""Samples from a file: CSV, gzipped CSV or Parquet with the columns `timestamp`, `source_id` and `ecg`.

The whole file is held in memory, 20 bytes a row. A cell that is no number or names no source makes its row *invalid*, not the file; a
`timestamp` that is no time puts its row outside every window.
"""

from __future__ import annotations

import hashlib
import math
import re
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

COLUMNS = ("timestamp", "source_id", "ecg")

_TIME = pa.timestamp("ns", tz="UTC")

#: A number as CSV files write it; everything else is invalid.
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"

_ZONE = r"(Z|z|[+-]\d\d:?\d\d)\s*$"


class FileSource:
    """Reads one file, once.

    Args:
        path: The file; its name tells its format.
        sources: Only these source ids; empty: all.
        microvolts_per_unit: 1 when values are microvolts, 1000 when they are millivolts.
    """

    refuses_duplicates = False

    def __init__(self, path: Path, *, sources: tuple[str, ...] = (), microvolts_per_unit: float = 1.0) -> None:
        self._path = path
        self._sources = sources
        self._microvolts_per_unit = microvolts_per_unit
        self._samples = make_samples([], [], (), [])
        self.name = path.name
        self.data_set = ""
        self.without_time = 0

    def open(self) -> None:
        """Read the file. Raises as `SampleSource.open` says."""
        try:
            with self._path.open("rb") as file:
                self.data_set = hashlib.file_digest(file, "sha256").hexdigest()[:12]
            table = self._table()
            self._check_columns(table)
            self._samples = self._as_samples(table)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._as_source_error(error) from None

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
        times = self._samples.times_ns
        return (int(times[0]), int(times[-1]) + 1) if len(times) else None

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows lie in each window."""
        edges = windows.start_ns + windows.length_ns * np.arange(len(windows) + 1)
        return np.diff(np.searchsorted(self._samples.times_ns, edges))

    def read(self, windows: WindowRange) -> Samples:
        """Return the rows of the windows."""
        first, stop = np.searchsorted(self._samples.times_ns, (windows.start_ns, windows.end_ns))
        samples = self._samples
        return Samples(
            times_ns=samples.times_ns[first:stop],
            source_codes=samples.source_codes[first:stop],
            source_ids=samples.source_ids,
            values_uv=samples.values_uv[first:stop],
        )

    def advice_when_empty(self) -> str:
        """Return a sentence on what the file holds."""
        if not len(self._samples):
            return f"INPUT_FILE {self._path} has no rows for these settings; check DEVICE_FILTER."
        return f"INPUT_FILE {self._path} has rows, but none at these times; check QUERY_START_TIME and QUERY_END_TIME."

    def advice_on_duplicates(self) -> str:
        """Return nothing: duplicates in a file are counted."""
        return ""

    def close(self) -> None:
        """Forget the rows."""
        self._samples = make_samples([], [], (), [])

    def _as_source_error(self, error: Exception) -> SourceError:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            return SourceDenied(f"INPUT_FILE {self._path} cannot be read ({error.strerror})")
        # What Arrow finds inside a file it may raise as an OSError, but without a number: no disk will ever read it better.
        if isinstance(error, OSError) and error.errno is not None:
            return SourceUnavailable(f"INPUT_FILE {self._path} cannot be read ({error.strerror})")
        return SourceRefused(f"INPUT_FILE {self._path} is not a readable {self._format()} file ({_without_values(error)})")

    def _format(self) -> str:
        return "Parquet" if self._path.suffix.lower() in (".parquet", ".pq") else "CSV"

    def _table(self) -> pa.Table:
        if self._format() == "Parquet":
            held = pa_parquet.read_schema(self._path).names
            return pa_parquet.read_table(self._path, columns=[name for name in COLUMNS if name in held] or held)
        # All as text: what is no number or no time must make one row invalid, not the whole file unreadable.
        as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False)
        compression = "gzip" if self._path.suffix.lower() == ".gz" else None
        with pa.input_stream(str(self._path), compression=compression) as stream:
            return pa_csv.read_csv(stream, parse_options=pa_csv.ParseOptions(newlines_in_values=True), convert_options=as_text)

    def _check_columns(self, table: pa.Table) -> None:
        held = table.column_names
        wrong = [f"{name} missing" if name not in held else f"{name} twice" for name in COLUMNS if held.count(name) != 1]
        if not wrong:
            return
        # A first line that names none of them may be a row, and a message is no place for samples.
        shown = f"it has: {', '.join(held)}" if any(name in held for name in COLUMNS) else "is its first line a header?"
        raise SourceRefused(f"INPUT_FILE {self._path} needs the columns {', '.join(COLUMNS)}; {', '.join(wrong)}, {shown}")

    def _as_samples(self, table: pa.Table) -> Samples:
        times, has_time = _times(table.column("timestamp"), self._path)
        ids = _source_ids(table.column("source_id"))
        codes = pc.fill_null(ids.indices, NO_SOURCE).to_numpy(zero_copy_only=False)
        values = _numbers(table.column("ecg"), self._path) * self._microvolts_per_unit
        samples = make_samples(times, codes, [source_id or "" for source_id in ids.dictionary.to_pylist()], values)
        self.without_time = int((~has_time).sum())
        keep = has_time & self._is_wanted(samples)
        order = np.flatnonzero(keep)
        if not (np.diff(samples.times_ns[order]) >= 0).all():
            order = order[np.argsort(samples.times_ns[order], kind="stable")]
        return Samples(samples.times_ns[order], samples.source_codes[order], samples.source_ids, samples.values_uv[order])

    def _is_wanted(self, samples: Samples) -> npt.NDArray[np.bool_]:
        if not self._sources:
            return np.ones(len(samples), dtype=np.bool_)
        # The extra last entry is for rows that name no source.
        wanted = np.array([*(source_id in self._sources for source_id in samples.source_ids), False])
        return wanted[samples.source_codes]


def _times(column: pa.ChunkedArray, path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return times in nanoseconds since the epoch and which rows have one; UTC when a text names no zone."""
    column = _plain_text(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = pc.cast(column if kind.tz else pc.assume_timezone(column, "UTC"), _TIME)
    elif pa.types.is_string(kind):
        column = _parsed_times(column)
    else:
        raise SourceRefused(f"INPUT_FILE {path}: column timestamp must hold times, got {kind}")
    has_time = pc.is_valid(column).to_numpy()
    return pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(), has_time


def _plain_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text of any kind as strings, as not all that Arrow can do it can do with every kind; other columns as they are."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pc.cast(column, pa.string()) if is_text else column


def _parsed_times(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    with_zone = pc.if_else(pc.match_substring_regex(texts, _ZONE), texts, pc.binary_join_element_wise(texts, "Z", ""))
    return pa.chunked_array([part for chunk in with_zone.chunks for part in _times_or_none(chunk)], type=_TIME)


def _times_or_none(texts: pa.StringArray) -> list[pa.Array]:
    """Return the times in parts, null for what is no time.

    Arrow has no cast that leaves bad cells empty: where it refuses, each half is tried by itself, as bad cells are few.
    """
    try:
        return [pc.cast(texts, _TIME)]
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return [pa.nulls(1, _TIME)]
        half = len(texts) // 2
        return [*_times_or_none(texts[:half]), *_times_or_none(texts[half:])]


def _source_ids(column: pa.ChunkedArray) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(column.type):
        column = pc.cast(column, pa.string()).dictionary_encode()
    return column.cast(pa.dictionary(pa.int32(), pa.string())).unify_dictionaries().combine_chunks()


def _numbers(column: pa.ChunkedArray, path: Path) -> npt.NDArray[np.float64]:
    """Return numbers, NaN where a cell holds none."""
    column = _plain_text(column)
    kind = column.type
    if pa.types.is_string(kind):
        is_number = pc.match_substring_regex(column, _NUMBER)
        column = pc.utf8_trim_whitespace(pc.if_else(is_number, column, None))
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise SourceRefused(f"INPUT_FILE {path}: column ecg must hold numbers, got {kind}")
    # Not `safe`: that would refuse the whole file for one integer beyond 2⁵³.
    numbers: npt.NDArray[np.float64] = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers.astype(np.float64)


def _without_values(error: Exception) -> str:
    """Return what is wrong with a file: Arrow and Python quote the cell they could not read, which may be a sample."""
    text = str(error)
    if isinstance(error, UnicodeError) or "UTF8" in text:
        return "it is not UTF-8 text"
    columns = re.match(r"CSV parse error: (?:Row #\d+: )?Expected \d+ columns, got \d+", text)
    return columns.group() if columns else text.split(":", 1)[0]
