"""The rows of a Parquet file, some hundred thousand at a time: its footer is parsed once, and small row groups are read together."""

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
from inputs.csv_text import COLUMNS, check_columns, normalized
from inputs.held_file import HeldFile

#: Row groups are read together up to so many rows; a larger one is read alone.
ROWS_READ_TOGETHER = 1 << 18

#: What 64 bits of nanoseconds hold, to either side of the epoch.
_MOST_NS = 2**63 - 1

_HOLDS = dict(zip(COLUMNS, ("times", "text or numbers", "numbers"), strict=True))


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Row groups that follow each other and are read together.

    Args:
        first: The number of the first, from 0.
        ends: How many rows of the file there are up to the end of each.
        begin: How many rows there are before the first.
    """

    first: int
    ends: tuple[int, ...]
    begin: int

    @property
    def numbers(self) -> range:
        """Their numbers, from 0."""
        return range(self.first, self.first + len(self.ends))

    def place(self, row: int) -> str:
        """Return where one of their rows stands, counted as people do."""
        group = self.first + bisect_right(self.ends, self.begin + row)
        return f"row {self.begin + row + 1} (row group {group + 1})"


class ParquetRows:
    """The three columns of a Parquet file. Safe to use from several threads.

    Args:
        held: The file. It is refused if it is changed while it is read.

    Raises:
        SourceRefused: It has not the columns, or they hold something else.
    """

    def __init__(self, held: HeldFile) -> None:
        self._held = held
        self._lock = Lock()
        # What the page checksums do not confirm is not read.
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
        """Return the rows of some row groups, with the columns called as in `COLUMNS`."""
        with self._lock, self._held.unchanged():
            table = self._file.read_row_groups(list(groups.numbers), columns=self._names)
            if self._has_int96:
                table = self._without_wrapped_times(table, groups)
        return table.select(self._names).rename_columns(list(COLUMNS))

    def _without_wrapped_times(self, table: pa.Table, groups: RowGroups) -> pa.Table:
        """Return the table without times beyond 64 bits of nanoseconds: Arrow wraps those of the old type INT96 around."""
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
    """Return what the columns are called in this file, whatever their case."""
    names = [normalized(name) for name in schema.names]
    check_columns(names)
    return [schema.names[names.index(name)] for name in COLUMNS]


def check_kind(column: str, kind: pa.DataType) -> None:
    """Refuse what Arrow has few functions for; the names of fields inside may be those of people."""
    if isinstance(kind, pa.BaseExtensionType):
        raise SourceRefused(f"INPUT_FILE: column {column} must hold {_HOLDS[column]}, got {kind.extension_name}")
    if pa.types.is_nested(kind):
        raise SourceRefused(f"INPUT_FILE: column {column} must hold {_HOLDS[column]}, got {str(kind).partition('<')[0]}")


def _has_int96(metadata: pa_parquet.FileMetaData, name: str) -> bool:
    columns = (metadata.schema.column(index) for index in range(metadata.num_columns))
    return any(column.physical_type == "INT96" and column.path == name for column in columns)
