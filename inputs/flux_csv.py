"""Reads the CSV that InfluxDB answers a Flux query with: tables one after the other, each with a `#datatype` line and a header.

A table's columns come by position, so that no name, however odd, can be taken for another. Times have up to nine digits of fraction, lines
end in CRLF, and a quoted cell may hold commas, quotes and line ends. An error that happens after rows were sent comes as one more table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

_TABLE_END = b"\r\n\r\n"

#: How times are asked for, to be turned into integers by `times_as_ns`.
TIME_TYPE = pa.timestamp("ns", tz="UTC")


class FluxError(Exception):
    """The server reported an error inside an answer that began well."""


class UnreadableAnswer(Exception):
    """The answer is not CSV of the form described above, such as one that was cut."""


@dataclass(frozen=True, slots=True)
class FluxTable:
    """One table of an answer.

    Args:
        names: Its columns' names.
        types: Their types as the server calls them, such as `double`.
        body: Its rows, as CSV.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    body: bytes

    def type_of(self, name: str) -> str | None:
        """Return the type of a column; None when there is no such column."""
        return self.types[self.names.index(name)] if name in self.names else None

    def columns(self, wanted: Sequence[tuple[str, pa.DataType]]) -> list[pa.ChunkedArray]:
        """Return some columns, each by name and as the type wanted.

        Raises:
            UnreadableAnswer: A cell is not of its column's type.
        """
        if not self.body:
            return [pa.chunked_array([], type=kind) for _, kind in wanted]
        positions = [f"c{self.names.index(name)}" for name, _ in wanted]
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(self.body),
                read_options=pa_csv.ReadOptions(column_names=[f"c{i}" for i in range(len(self.names))]),
                parse_options=pa_csv.ParseOptions(newlines_in_values=b'"' in self.body),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=positions,
                    column_types={position: kind for position, (_, kind) in zip(positions, wanted, strict=True)},
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            raise UnreadableAnswer(f"the answer holds a row of another form ({_without_values(error)})") from None
        return [table.column(position) for position in positions]

    def texts(self, name: str) -> list[str]:
        """Return one column as strings."""
        return [str(text) for text in self.columns([(name, pa.string())])[0].to_pylist()]


def read_tables(answer: bytes) -> Iterator[FluxTable]:
    """Yield the tables of an answer.

    Raises:
        FluxError: One of them reports an error.
        UnreadableAnswer: The answer does not end where a table ends.
    """
    for part in _split(answer):
        lines = part.split(b"\r\n", 1)
        if not lines[0].startswith(b"#datatype"):
            raise UnreadableAnswer("the answer holds a table without types")
        types = _cells(lines[0])
        header, body = _header_and_body(lines[1] if len(lines) > 1 else b"")
        names = _cells(header)
        if len(names) != len(types):
            raise UnreadableAnswer("the answer was cut inside a header")
        table = FluxTable(tuple(names), tuple(types), body)
        if "error" in names and "reference" in names:
            raise FluxError("; ".join(table.texts("error")) or "unknown error")
        yield table


def times_as_ns(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times as integers, nanoseconds since the epoch."""
    return pc.cast(times, pa.int64())


def _split(answer: bytes) -> Iterator[bytes]:
    """Yield the bytes of each table, cut at empty lines that are not inside quotes."""
    rest = answer.removesuffix(b"\r\n") if answer.endswith(_TABLE_END) else answer
    start = search = quotes = 0
    while start < len(rest) and rest[start : start + 2] != b"\r\n":
        end = rest.find(_TABLE_END, search)
        if end < 0:
            if not rest.endswith(b"\r\n"):
                raise UnreadableAnswer("the answer was cut")
            yield rest[start:]
            return
        # Quotes inside a quoted cell are doubled, so an even number lies before every empty line that ends a table.
        quotes += rest.count(b'"', search, end)
        search = end + len(_TABLE_END)
        if quotes % 2 == 0:
            yield rest[start : end + 2]
            start = search


def _header_and_body(text: bytes) -> tuple[bytes, bytes]:
    """Cut behind the first line end that is not inside quotes: a tag's name may hold one."""
    end = text.find(b"\r\n")
    while end >= 0 and text.count(b'"', 0, end) % 2:
        end = text.find(b"\r\n", end + 2)
    return (text, b"") if end < 0 else (text[:end], text[end + 2 :])


def _cells(line: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(line.decode("utf-8"), newline="")), [])


def _without_values(error: Exception) -> str:
    """Arrow quotes the cell it could not read, which may be a sample; keep what comes before."""
    return str(error).split(":", 1)[0]
