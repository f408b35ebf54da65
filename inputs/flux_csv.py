"""Reads the CSV with which InfluxDB answers a Flux query: a sequence of tables, each with a `#datatype` line and a header.

Columns are read by position, so that unusual names cannot be confused. Times have up to nine fractional digits, lines end in CRLF, and a
quoted cell may contain commas, quotes and line ends. Every table ends with an empty line, and an answer without tables is an empty line:
anything else was truncated. An error after the first rows comes as one more table, sometimes after a second empty line; that table ends
without one. Truncation right after a table's empty line cannot be seen here; the transport and the row counts detect it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from inputs.influx_dialect import BrokenAnswer

_LINE_END = b"\r\n"
_TABLE_END = b"\r\n\r\n"

#: Line ends are counted in blocks of so many bytes, whose marks stay in the processor's cache.
_BLOCK_BYTES = 1 << 17

#: The type in which to request times; `times_as_ns` converts them to integers.
TIME_TYPE = pa.timestamp("ns", tz="UTC")


class FluxError(BrokenAnswer):
    """The server reported an error inside an answer that began well."""


class UnreadableAnswer(BrokenAnswer):
    """The answer is not the CSV described above; it may be truncated."""


@dataclass(frozen=True, slots=True)
class FluxTable:
    """One table of an answer.

    Args:
        names: Its columns' names.
        types: Their types as the server calls them, such as `double`.
        body: Its rows, as CSV; a view of the answer, not a copy.
        may_hold_line_ends: Whether a cell may hold a line end.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    body: memoryview
    may_hold_line_ends: bool

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
                read_options=pa_csv.ReadOptions(column_names=[f"c{i}" for i in range(len(self.names))]),
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


def read_tables(answer: bytes) -> Iterator[FluxTable]:
    """Yield the tables of an answer.

    Raises:
        FluxError: One of them reports an error.
        UnreadableAnswer: The answer is truncated or malformed.
    """
    if not answer:
        raise UnreadableAnswer("the answer is empty")
    for start, end, is_whole in _split(answer):
        table = _table(answer, start, end)
        if "error" in table.names and "reference" in table.names:
            raise FluxError("; ".join(table.texts("error")) or "unknown error")
        if not is_whole:
            raise UnreadableAnswer("the answer was cut")
        yield table


def _table(answer: bytes, start: int, end: int) -> FluxTable:
    header = _behind_line(answer, start, end)
    rows = _behind_line(answer, header, end)
    if not answer.startswith(b"#datatype", start):
        raise UnreadableAnswer("the answer holds a table without types")
    names, types = _cells(answer[header:rows]), _cells(answer[start:header])
    if len(names) != len(types):
        raise UnreadableAnswer("the answer was cut inside a header")
    return FluxTable(tuple(names), tuple(types), memoryview(answer)[rows:end], answer.find(b'"', rows, end) >= 0)


def times_as_ns(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as integers, nanoseconds since the epoch."""
    return pc.cast(times, pa.int64())


def _split(answer: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield the start and end of each table, and whether it ends with an empty line (outside quotes)."""
    start = _behind_empty_lines(answer, 0)
    # Finding one character is thirty times as fast as finding several, and hardly any answer has quotes or a second table.
    if answer.find(b'"') < 0 and answer.find(b"#", start + 1) < 0:
        if start < len(answer):
            yield start, _before_empty_lines(answer, start), answer.endswith(_TABLE_END)
        return
    search = start
    quotes = 0
    while start < len(answer):
        end = answer.find(_TABLE_END, search)
        if end < 0:
            yield start, len(answer), False
            return
        # Quotes inside a quoted cell are doubled, so their number is even before every empty line that ends a table.
        quotes += answer.count(b'"', search, end)
        search = end + len(_LINE_END)
        if quotes % 2 == 0:
            yield start, search, True
            start = search = _behind_empty_lines(answer, search)


def _behind_empty_lines(answer: bytes, start: int) -> int:
    while answer.startswith(_LINE_END, start):
        start += len(_LINE_END)
    return start


def _before_empty_lines(answer: bytes, start: int) -> int:
    end = len(answer)
    while answer.endswith(_TABLE_END, start, end):
        end -= len(_LINE_END)
    return end


def _behind_line(answer: bytes, start: int, end: int) -> int:
    """Return where the line that begins at `start` ends. Line ends inside quotes, which a tag's name may contain, do not count."""
    at = answer.find(_LINE_END, start, end)
    while at >= 0 and answer.count(b'"', start, at) % 2:
        at = answer.find(_LINE_END, at + len(_LINE_END), end)
    return end if at < 0 else at + len(_LINE_END)


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
