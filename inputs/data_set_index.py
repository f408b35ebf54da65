"""The index of a data set: first and last time of each row group, from the footers of its parts.

Rows are read only if a footer's statistics are incomplete. A cache file keeps the index, so that only footers of new and changed parts are
read again; a damaged cache is rebuilt. It knows parts by keyed digests, since paths may name wearers.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from anonymizer.errors import SourceRefused
from anonymizer.windows import NANOSECONDS
from disk.durable_file import read_ours, write_durably
from inputs.data_set_parts import HOW_PARTS_ARE_COUNTED, Part
from inputs.file_columns import check_columns, normalized
from inputs.file_times import END_S, FIRST_S, TimeKind, times
from inputs.parquet_rows import check_kind

#: Above this many rows decoded per row of the data set, the source warns, or refuses.
WARNING_AMPLIFICATION = 3.0
REFUSAL_AMPLIFICATION = 20.0

#: Footers that are read concurrently: each takes one or two requests to an object store.
_FOOTERS_AT_A_TIME = 8

#: Rows of a row group that are decoded at a time.
BATCH_ROWS = 1 << 16

_MAGIC = b"ecg-anonymizer data set index 2\n"
_DIGEST_BYTES = 32

#: The key at the start of a cache file, and the digests under it by which the file knows parts.
_KEY_BYTES = 32
_NAME_BYTES = 16

_UNIT_NS = {"milliseconds": 1_000_000, "microseconds": 1_000, "nanoseconds": 1}

HOW_TO_SORT = (
    """duckdb -c "COPY (FROM read_parquet('FOLDER/**/*.parquet') ORDER BY timestamp, source_id) TO 'SORTED.parquet' """
    """(ROW_GROUP_SIZE 122880)\""""
)

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Footer:
    """The facts in a part's footer.

    Args:
        has_zone: Whether its times have a time zone; without one they are taken as UTC.
        groups: Its non-empty row groups, shape (n, 5), int64: number, first time, last time, rows, rows without a time.
            If no row has a time, the last time is before the first.
    """

    has_zone: bool
    groups: _Ints


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The row groups of all parts, in the order of parts. Arrays have shape (row groups,), int64.

    Args:
        parts: The parts.
        zoned_parts: How many of them have times with a zone.
        part: Position of each row group's part in `parts`.
        group: Its number in the part.
        first_ns, last_ns: Times of its first and last row.
        rows: How many rows it has.
        without_time: Of these, rows without a time.
    """

    parts: tuple[Part, ...]
    zoned_parts: int
    part: _Ints
    group: _Ints
    first_ns: _Ints
    last_ns: _Ints
    rows: _Ints
    without_time: _Ints

    @classmethod
    def of(cls, parts: Sequence[Part], footers: Sequence[Footer]) -> Index:
        """Return the index of parts with these footers."""
        of_part = np.repeat(np.arange(len(parts)), [len(footer.groups) for footer in footers])
        groups = np.concatenate([np.zeros((0, 5), np.int64), *(footer.groups for footer in footers)])
        zoned = sum(footer.has_zone for footer, part in zip(footers, parts, strict=True) if len(footer.groups))
        return cls(tuple(parts), zoned, of_part, *(np.ascontiguousarray(column) for column in groups.T))

    @property
    def rows_in_all(self) -> int:
        """How many rows the data set has."""
        return int(self.rows.sum())

    @property
    def rows_without_time(self) -> int:
        """How many rows have no time."""
        return int(self.without_time.sum())

    def extent(self) -> tuple[int, int] | None:
        """Return the first time and the last time + 1; None if no row has a time."""
        timed = self.first_ns <= self.last_ns
        return (int(self.first_ns[timed].min()), int(self.last_ns[timed].max()) + 1) if timed.any() else None

    def overlapping(self, start_ns: int, end_ns: int) -> _Ints:
        """Return the positions of row groups that may have rows between two times, in order."""
        return np.flatnonzero((self.first_ns < end_ns) & (self.last_ns >= start_ns) & (self.first_ns <= self.last_ns))

    def density(self) -> Density:
        """Return the estimated distribution of rows over time."""
        timed = self.first_ns <= self.last_ns
        return Density(self.first_ns[timed], self.last_ns[timed] + 1, (self.rows - self.without_time)[timed])


class Density:
    """The estimated distribution of rows over time: the rows of each row group are assumed to be spread evenly.

    Args:
        starts_ns, ends_ns: Span of each row group, shape (row groups,).
        rows: Rows of each row group, shape (row groups,).
    """

    def __init__(self, starts_ns: _Ints, ends_ns: _Ints, rows: _Ints) -> None:
        self._starts, self._ends = np.sort(starts_ns), np.sort(ends_ns)
        self._rows_begun = np.append(0, np.cumsum(rows[np.argsort(starts_ns, kind="stable")]))
        self._rows_ended = np.append(0, np.cumsum(rows[np.argsort(ends_ns, kind="stable")]))
        slope = rows / (ends_ns - starts_ns)
        self._at_ns, place = np.unique(np.concatenate((starts_ns, ends_ns)), return_inverse=True)
        slopes = np.cumsum(np.bincount(place, np.concatenate((slope, -slope)), minlength=len(self._at_ns)))
        self._before = np.append(0.0, np.cumsum(slopes[:-1] * np.diff(self._at_ns)))[: len(self._at_ns)]

    def rows_before(self, time_ns: int) -> float:
        """Return about how many rows lie before a time."""
        return float(np.interp(time_ns, self._at_ns, self._before)) if len(self._at_ns) else 0.0

    def time_after(self, start_ns: int, rows: int) -> int:
        """Return about when `rows` rows have passed since `start_ns`."""
        return int(np.interp(self.rows_before(start_ns) + rows, self._before, self._at_ns)) if len(self._at_ns) else start_ns

    def amplification(self, start_ns: int, end_ns: int, *, rows_at_a_time: int) -> float:
        """Return how many rows are decoded per row of a span, if it is read in intervals of `rows_at_a_time` rows.

        Each interval decodes every row group that overlaps it, even for a few rows.
        """
        first, last = self.rows_before(start_ns), self.rows_before(end_ns)
        edges = np.interp(np.append(np.arange(first, last, rows_at_a_time), last), self._before, self._at_ns)
        begun = self._rows_begun[np.searchsorted(self._starts, edges[1:], side="left")]
        ended = self._rows_ended[np.searchsorted(self._ends, edges[:-1], side="right")]
        return float((begun - ended).sum()) / max(last - first, rows_at_a_time)


def read_footers(parts: Sequence[Part], read: Callable[[int], Footer], *, kept_in: Path | None) -> tuple[list[Footer], int]:
    """Return the footers of parts, and how many had to be read.

    Args:
        parts: In order.
        read: Reads the footer of the part at a position.
        kept_in: The cache file; None: no cache.
    """
    key, known = _load(kept_in) if kept_in else (b"", {})
    names = [_name_of(part, key) for part in parts] if kept_in else [b""] * len(parts)
    missing = [position for position, name in enumerate(names) if name not in known]
    with ThreadPoolExecutor(_FOOTERS_AT_A_TIME) as pool:
        fresh = dict(zip(missing, pool.map(read, missing), strict=True))
    footers = [fresh[position] if position in fresh else known[name] for position, name in enumerate(names)]
    if kept_in and (fresh or len(known) != len(parts)):
        _save(kept_in, key, names, footers)
    return footers, len(missing)


def footer_of(file: pa_parquet.ParquetFile, *, has_source_of_path: bool) -> Footer:
    """Return the facts in a part's footer. If the statistics of a row group are incomplete, its times are read.

    Args:
        file: The part.
        has_source_of_path: Whether a folder names the source of its rows, so that it needs no column for it.

    Raises:
        SourceRefused: A column or the statistics are missing.
    """
    name = names_of(file.schema_arrow, has_source_of_path=has_source_of_path)["timestamp"]
    column = next(index for index in range(file.metadata.num_columns) if file.metadata.schema.column(index).path == name)
    unit_ns, has_zone = _unit_of(file.metadata.schema.column(column))
    may_be_null = file.metadata.schema.column(column).max_definition_level > 0
    groups = []
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        if group.num_rows:
            found = _from_statistics(group.column(column), group.num_rows, unit_ns, may_be_null=may_be_null)
            groups.append((number, *(found or _from_rows(file, number, name))))
    return Footer(has_zone, np.array(groups, np.int64).reshape(-1, 5))


def names_of(schema: pa.Schema, *, has_source_of_path: bool) -> dict[str, str]:
    """Return a part's own names of the three columns. Raises SourceRefused if one is missing or has an unsuitable type."""
    names = [normalized(name) for name in schema.names]
    is_given = has_source_of_path and "source_id" not in names
    check_columns([*names, "source_id"] if is_given else names)
    found = {}
    for column in ("timestamp", "source_id", "ecg"):
        if not (column == "source_id" and is_given):
            found[column] = schema.names[names.index(column)]
            check_kind(column, schema.field(found[column]).type)
    return found


def _unit_of(column: Any) -> tuple[int, bool]:
    """Return the unit of a time column in nanoseconds, and whether its times have a zone."""
    kind = json.loads(column.logical_type.to_json())
    if kind["Type"] == "Timestamp" and column.physical_type == "INT64":
        return _UNIT_NS[kind["timeUnit"]], bool(kind["isAdjustedToUTC"])
    if column.physical_type == "INT96":
        raise SourceRefused(
            "INPUT_FILE: column timestamp is of the old type INT96, of which files say no first and last time; write it as TIMESTAMP "
            "(Spark: spark.sql.parquet.outputTimestampType=TIMESTAMP_MICROS)"
        )
    shown = column.physical_type if kind["Type"] == "None" else kind["Type"]
    raise SourceRefused(
        f"INPUT_FILE: in a data set column timestamp must be of a Parquet type of times (TIMESTAMP), so that no file need be read to know "
        f"when its rows are; got {shown.lower()}"
    )


def _from_statistics(column: Any, rows: int, unit_ns: int, *, may_be_null: bool) -> tuple[int, int, int, int] | None:
    """Return first and last time, rows, and rows without a time; None if the statistics are incomplete."""
    statistics = column.statistics if column.is_stats_set else None
    if statistics is None or not (statistics.has_min_max or (statistics.has_null_count and statistics.null_count == rows)):
        raise SourceRefused(
            "INPUT_FILE: column timestamp has no statistics, which say from when to when the rows of a file are; write the file with "
            "them, as most programs do unless told not to"
        )
    if not statistics.has_min_max:
        return 0, -1, rows, rows
    first_ns, last_ns = statistics.min_raw * unit_ns, statistics.max_raw * unit_ns
    is_known = statistics.has_null_count or not may_be_null
    if not (is_known and FIRST_S * NANOSECONDS <= first_ns <= last_ns < END_S * NANOSECONDS):
        return None
    return first_ns, last_ns, rows, statistics.null_count if may_be_null else 0


def _from_rows(file: pa_parquet.ParquetFile, number: int, name: str) -> tuple[int, int, int, int]:
    first_ns, last_ns, rows, without = 2**63 - 1, -(2**63), 0, 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[number], columns=[name], use_threads=False):
        found = times(pa.chunked_array([batch.column(0)]))
        timed = found.times_ns[found.kinds == TimeKind.CALENDAR]
        rows, without = rows + len(batch), without + len(batch) - len(timed)
        if len(timed):
            first_ns, last_ns = min(first_ns, int(timed.min())), max(last_ns, int(timed.max()))
    return (first_ns, last_ns, rows, without) if without < rows else (0, -1, rows, without)


# The cache file


def _name_of(part: Part, key: bytes) -> bytes:
    """Return what a cache knows a part by, in this state."""
    what = f"{part.key}\0{part.size}\0{part.state}".encode()
    return hashlib.blake2b(what, key=key, digest_size=_NAME_BYTES).digest()


def _save(path: Path, key: bytes, names: Sequence[bytes], footers: Sequence[Footer]) -> None:
    """Cache the footers. If the disk refuses, they are read again the next time."""
    offsets = np.cumsum([0, *(len(footer.groups) for footer in footers)])
    groups = np.concatenate([np.zeros((0, 5), np.int64), *(footer.groups for footer in footers)])
    table = pa.table(
        {
            # Arrow would convert lists through pandas, if that is installed.
            "part": pa.array(names, pa.binary(_NAME_BYTES)),
            "has_zone": np.array([footer.has_zone for footer in footers], np.bool_),
            "groups": pa.LargeListArray.from_arrays(pa.array(offsets * 5), pa.array(groups.ravel())),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = key + sink.getvalue().to_pybytes()
    try:
        write_durably(path, _MAGIC + hashlib.sha256(content).digest() + content)
    except OSError:
        return


def _load(path: Path) -> tuple[bytes, dict[bytes, Footer]]:
    """Return the key of a cache's names, and the cached footers by name; another key and none if the file is missing or damaged."""
    nothing = secrets.token_bytes(_KEY_BYTES), dict[bytes, Footer]()
    try:
        content = memoryview(read_ours(path))
    except OSError:
        return nothing
    begin = len(_MAGIC) + _DIGEST_BYTES
    if content[: len(_MAGIC)] != _MAGIC or hashlib.sha256(content[begin:]).digest() != content[len(_MAGIC) : begin]:
        return nothing
    key, table = bytes(content[begin : begin + _KEY_BYTES]), content[begin + _KEY_BYTES :]
    return key, dict(_footers_in(pa.ipc.open_stream(pa.py_buffer(table)).read_all()))


def _footers_in(table: pa.Table) -> Iterator[tuple[bytes, Footer]]:
    groups = pa.concat_arrays(table.column("groups").chunks)
    numbers, offsets = groups.values.to_numpy(), groups.offsets.to_numpy()
    columns = (table.column(name).to_pylist() for name in ("part", "has_zone"))
    for position, (name, has_zone) in enumerate(zip(*columns, strict=True)):
        yield name, Footer(has_zone, numbers[offsets[position] : offsets[position + 1]].reshape(-1, 5))


def place_of(position: int, parts: int) -> str:
    """Return the place of a part, for messages."""
    return f"part {position + 1} of {parts}; {HOW_PARTS_ARE_COUNTED}"
