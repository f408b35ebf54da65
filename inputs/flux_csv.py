"""Reads the CSV with which InfluxDB answers a Flux query: a sequence of tables, each with a `#datatype` line and a header.

Columns are read by position, so that unusual names cannot be confused. Times have up to nine fractional digits, lines end in CRLF, and a
quoted cell may contain commas, quotes and line ends. Every table ends with an empty line, and an answer without tables is an empty line:
anything else was truncated. An error after the first rows comes as one more table, sometimes after a second empty line; that table ends
without one. Truncation right after a table's empty line cannot be seen here; the transport and the row counts detect it.

An answer is parsed while it arrives, so that its whole text is never in memory.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from inputs.influx_dialect import BrokenAnswer

_LINE_END = b"\r\n"
_TABLE_END = b"\r\n\r\n"
_TABLE_BEGIN = b"#datatype"

_NO_ROWS = memoryview(b"")

#: No row is longer: a field's text and a tag's value have at most 64 KiB. Without this bound, an unclosed quote would be searched again
#: with every block.
_LONGEST_ROW_BYTES = 1 << 22

#: Line ends are counted in blocks of this many bytes, so that the comparison's result fits into the processor's cache.
_BLOCK_BYTES = 1 << 17

#: The type in which to request times; `times_as_ns` converts them to integers.
TIME_TYPE = pa.timestamp("ns", tz="UTC")


class FluxError(BrokenAnswer):
    """The server reported an error inside an answer that began well."""


class UnreadableAnswer(BrokenAnswer):
    """The answer is not the CSV described above; it may be truncated."""


@dataclass(frozen=True, slots=True)
class FluxTable:
    """One table of an answer, or a part of its rows.

    Args:
        names: Its columns' names.
        types: Their types as the server calls them, such as `double`.
        body: Its rows, as CSV; a view of what arrived, not a copy.
        may_hold_line_ends: Whether a cell may hold a line end.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    body: memoryview = _NO_ROWS
    may_hold_line_ends: bool = False

    @property
    def is_error(self) -> bool:
        """Whether the server reports an error in it."""
        return "error" in self.names and "reference" in self.names

    def type_of(self, name: str) -> str | None:
        """Return the type of a column; None if there is no such column."""
        return self.types[self.names.index(name)] if name in self.names else None

    def columns(self, wanted: Sequence[tuple[str, pa.DataType]]) -> list[pa.ChunkedArray]:
        """Return columns by name, each with the type requested.

        Raises:
            UnreadableAnswer: A column is missing, or a cell does not parse as its type.
        """
        if not all(name in self.names for name, _ in wanted):
            raise UnreadableAnswer("the answer holds a table of another form")
        if not self.body:
            return [pa.chunked_array([], type=kind) for _, kind in wanted]
        positions = [f"c{self.names.index(name)}" for name, _ in wanted]
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(pa.py_buffer(self.body)),
                # A body is short: Arrow is fastest with a single block, in this thread.
                read_options=pa_csv.ReadOptions(
                    column_names=[f"c{i}" for i in range(len(self.names))], block_size=len(self.body) + 1, use_threads=False
                ),
                parse_options=pa_csv.ParseOptions(newlines_in_values=self.may_hold_line_ends),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=positions,
                    column_types={position: kind for position, (_, kind) in zip(positions, wanted, strict=True)},
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            raise UnreadableAnswer(f"the answer holds a row of another form ({_without_values(error)})") from None
        if not self.may_hold_line_ends and len(table) < _lines_in(self.body):
            raise UnreadableAnswer("the answer holds rows behind an empty line")
        return [table.column(position) for position in positions]

    def texts(self, name: str) -> list[str]:
        """Return one column as strings."""
        return [str(text) for text in self.columns([(name, pa.string())])[0].to_pylist()]


def read_tables(blocks: Iterable[bytes]) -> Iterator[FluxTable]:
    """Yield the tables of an answer as they arrive: each once, a long one in parts.

    Args:
        blocks: The answer, cut anywhere.

    Raises:
        FluxError: One of them reports an error.
        UnreadableAnswer: The answer is truncated or malformed.
    """
    parser = _AnswerParser()
    for block in blocks:
        yield from parser.tables(block)
    parser.end()


class _AnswerParser:
    """Parses an answer block by block; keeps the bytes of a row that is not complete yet."""

    def __init__(self) -> None:
        self._text = b""
        self._at = 0
        self._has_begun = False
        #: The table that the next row belongs to.
        self._table: FluxTable | None = None
        self._was_yielded = False

    def tables(self, block: bytes) -> Iterator[FluxTable]:
        """Yield the rows that a block completes, and a table without rows once its end is there."""
        self._has_begun = self._has_begun or bool(block)
        self._text, self._at = self._text[self._at :] + block, 0
        while self._table is not None or self._begin_table():
            part, is_end = self._rows()
            if part.body or (is_end and not self._was_yielded):
                self._was_yielded = True
                yield part
            if not is_end:
                break
            self._table = None
        if len(self._text) - self._at > _LONGEST_ROW_BYTES:
            raise UnreadableAnswer("the answer holds a row that does not end")

    def end(self) -> None:
        """Raise if the answer ended too early."""
        if not self._has_begun:
            raise UnreadableAnswer("the answer is empty")
        if self._table is not None and self._table.is_error:
            _raise_error(self._part(len(self._text)))
        if self._table is not None or self._at < len(self._text):
            raise UnreadableAnswer("the answer was cut")

    def _begin_table(self) -> bool:
        """Skip empty lines; return whether a complete header has arrived."""
        self._at = start = _behind_empty_lines(self._text, self._at)
        first = self._text[start : start + len(_TABLE_BEGIN)]
        # An empty line or the table's first line may have arrived only in part.
        if not (_TABLE_BEGIN.startswith(first) or _LINE_END.startswith(first)):
            raise UnreadableAnswer("the answer holds a table without types")
        header = _behind_line(self._text, start)
        rows = _behind_line(self._text, header) if header else 0
        if not rows:
            return False
        types, names = _cells(self._text[start:header]), _cells(self._text[header:rows])
        if len(names) != len(types):
            raise UnreadableAnswer("the answer holds a header of another form")
        self._table, self._was_yielded, self._at = FluxTable(tuple(names), tuple(types)), False, rows
        return True

    def _rows(self) -> tuple[FluxTable, bool]:
        """Return the rows that have arrived, and whether they are the table's last."""
        assert self._table is not None
        end, is_end = (self._at, True) if self._text.startswith(_LINE_END, self._at) else _rows_end(self._text, self._at)
        if self._table.is_error and not is_end:
            return self._table, False
        part = self._part(end)
        self._at = end + len(_LINE_END) * is_end
        if self._table.is_error:
            _raise_error(part)
        return part, is_end

    def _part(self, end: int) -> FluxTable:
        assert self._table is not None
        has_quotes = self._text.find(b'"', self._at, end) >= 0
        return dataclasses.replace(self._table, body=memoryview(self._text)[self._at : end], may_hold_line_ends=has_quotes)


def _raise_error(table: FluxTable) -> NoReturn:
    raise FluxError("; ".join(table.texts("error")) or "unknown error")


def times_as_ns(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as integers, nanoseconds since the epoch."""
    return pc.cast(times, pa.int64())


def _rows_end(text: bytes, start: int) -> tuple[int, bool]:
    """Return the end of the last complete row from `start` on, and whether an empty line, which ends the table, follows it."""
    # Searching one character is thirty times as fast as searching several, and few answers have quotes or a second table.
    if text.find(b'"', start) < 0 and text.find(b"#", start) < 0:
        last = text.rfind(_LINE_END, start)
        if last < 0:
            return start, False
        end = last + len(_LINE_END)
        is_end = text.endswith(_TABLE_END, start, end)
        while text.endswith(_TABLE_END, start, end):
            end -= len(_LINE_END)
        return end, is_end
    search, quotes = start, 0
    while (found := text.find(_TABLE_END, search)) >= 0:
        # Quotes inside a quoted cell are doubled, so before every line end outside of quotes their number is even.
        quotes += text.count(b'"', search, found)
        search = found + len(_LINE_END)
        if quotes % 2 == 0:
            return search, True
    end, quotes = len(text), text.count(b'"', start)
    while (found := text.rfind(_LINE_END, start, end)) >= 0:
        quotes -= text.count(b'"', found, end)
        if quotes % 2 == 0:
            return found + len(_LINE_END), False
        end = found
    return start, False


def _behind_empty_lines(text: bytes, start: int) -> int:
    while text.startswith(_LINE_END, start):
        start += len(_LINE_END)
    return start


def _behind_line(text: bytes, start: int) -> int:
    """Return where the line that begins at `start` ends, or 0 if not all of it has arrived.

    Line ends inside quotes, which a tag's name may contain, do not count.
    """
    at = text.find(_LINE_END, start)
    while at >= 0 and text.count(b'"', start, at) % 2:
        at = text.find(_LINE_END, at + len(_LINE_END))
    return at + len(_LINE_END) if at >= 0 else 0


def _lines_in(text: memoryview) -> int:
    letters = np.frombuffer(text, dtype=np.uint8)
    blocks = (letters[first : first + _BLOCK_BYTES] for first in range(0, len(letters), _BLOCK_BYTES))
    return sum(int(np.count_nonzero(block == _LINE_END[-1])) for block in blocks)


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(line.decode("utf-8"), newline="")), [])
    except (UnicodeDecodeError, csv.Error):
        raise UnreadableAnswer("the answer holds a header of another form") from None


def _without_values(error: Exception) -> str:
    """Return Arrow's message up to where it quotes the cell, which may be a sample."""
    return str(error).split(":", 1)[0]
