"""Reads a Parquet file some hundred thousand rows at a time. The footer is parsed once; small row groups are read together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet

from anonymizer.errors import SourceRefused
from inputs.file_columns import COLUMNS, check_columns, normalized
from inputs.input_file import InputFile

#: Row groups are read together up to this many rows; a larger one is read alone.
ROWS_READ_TOGETHER = 1 << 18

#: The largest 64-bit nanosecond time.
_MOST_NS = 2**63 - 1

_HOLDS = dict(zip(COLUMNS, ("times", "text or numbers", "numbers"), strict=True))


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Consecutive row groups that are read together.

    Args:
        first: Index of the first, from 0.
        ends: Rows of the file up to the end of each.
        begin: Rows of the file before the first.
    """

    first: int
    ends: tuple[int, ...]
    begin: int

    @property
    def numbers(self) -> range:
        """Their indices, from 0."""
        return range(self.first, self.first + len(self.ends))

    def place(self, row: int) -> str:
        """Return the place of one of their rows, counted from 1."""
        group = self.first + bisect_right(self.ends, self.begin + row)
        return f"row {self.begin + row + 1} (row group {group + 1})"


class ParquetRows:
    """The three columns of a Parquet file. Safe to use from several threads.

    Args:
        held: The file, which must not change while it is read.

    Raises:
        SourceRefused: A column is missing or has an unsuitable type.
    """

    def __init__(self, held: InputFile) -> None:
        self._held = held
        self._lock = Lock()
        self._file = pa_parquet.ParquetFile(held.file, page_checksum_verification=True)
        self._metadata = self._file.metadata
        schema = self._file.schema_arrow
        self._names = _names_of(schema)
        for name, column in zip(self._names, COLUMNS, strict=True):
            check_kind(column, schema.field(name).type)
        self._has_int96 = _has_int96(self._metadata, self._names[0])
        ends = accumulate(self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups))
        self.parts = list(_together(list(ends)))
        self.rows = self.parts[-1].ends[-1] if self.parts else 0

    def read(self, groups: RowGroups) -> pa.Table:
        """Return the rows of some row groups, with columns named as in `COLUMNS`."""
        with self._lock, self._held.unchanged():
            table = self._file.read_row_groups(list(groups.numbers), columns=self._names)
            if self._has_int96:
                table = self._without_wrapped_times(table, groups)
        return table.select(self._names).rename_columns(list(COLUMNS))

    def _without_wrapped_times(self, table: pa.Table, groups: RowGroups) -> pa.Table:
        """Set INT96 times beyond 64-bit nanoseconds to null: Arrow wraps them around."""
        name = self._names[0]
        file = pa_parquet.ParquetFile(self._held.file, metadata=self._metadata, coerce_int96_timestamp_unit="us")
        coarse = file.read_row_groups(list(groups.numbers), columns=[name]).column(name).cast(pa.int64())
        fits = pc.less(pc.abs(coarse), _MOST_NS // 1000)
        kept = pc.if_else(fits, table.column(name), None)
        return table.set_column(table.schema.get_field_index(name), name, kept)


def _together(ends: Sequence[int]) -> Iterator[RowGroups]:
    first = begin = 0
    for number in range(1, len(ends) + 1):
        if number == len(ends) or ends[number] - begin > ROWS_READ_TOGETHER:
            yield RowGroups(first, tuple(ends[first:number]), begin)
            first, begin = number, ends[number - 1]


def _names_of(schema: pa.Schema) -> list[str]:
    """Return the file's own names of `COLUMNS`, which may differ in case."""
    names = [normalized(name) for name in schema.names]
    check_columns(names)
    return [schema.names[names.index(name)] for name in COLUMNS]


def check_kind(column: str, kind: pa.DataType) -> None:
    """Refuse nested and extension types. The message names no field of a type, which may be named after a wearer."""
    if isinstance(kind, pa.BaseExtensionType):
        raise SourceRefused(f"INPUT_FILE: column {column} must hold {_HOLDS[column]}, got {kind.extension_name}")
    if pa.types.is_nested(kind):
        raise SourceRefused(f"INPUT_FILE: column {column} must hold {_HOLDS[column]}, got {str(kind).partition('<')[0]}")


def _has_int96(metadata: pa_parquet.FileMetaData, name: str) -> bool:
    columns = (metadata.schema.column(index) for index in range(metadata.num_columns))
    return any(column.physical_type == "INT96" and column.path == name for column in columns)
