"""Reads a CSV file of released rows piece by piece, each of whole windows, so that files of any size need little memory.

What is no row of ours, such as a header or half a line, belongs to no source and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from operations.erasure.rows import NO_WINDOW, ReleasedWindows, Rows

#: A row: a time, an id (quoted if it holds a comma, a quote or a line end), a value.
_ROW = re.compile(rb'([0-9T:.\-]{29}Z),("(?:[^"]|"")*"|[^",\n]*),([^",\n]*)\n')

#: So much is read at a time. A piece is larger only if a window is.
BLOCK_BYTES = 8 << 20

#: Ids of InfluxDB have 64 KiB at most.
_LONGEST_ROW_BYTES = 1 << 20

_NEW_LINE = 10

#: A row must not be interpreted in any other way than the pattern does.
_AS_IT_IS = pa_csv.ParseOptions(quote_char=False, escape_char=False, ignore_empty_lines=False)
_COLUMNS = pa_csv.ConvertOptions(
    column_types={"time": pa.timestamp("ns", tz="UTC"), "id": pa.string(), "value": pa.float64()}, strings_can_be_null=False
)
_READ = pa_csv.ReadOptions(column_names=["time", "id", "value"], use_threads=False)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A part of a file: its bytes, where its rows begin and end in it, and what is in them."""

    content: bytes
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    rows: Rows

    def part(self, first: int, stop: int) -> Piece:
        """Return the bytes from one position to another, between rows."""
        at, end = np.searchsorted(self.begins, (first, stop)).tolist()
        rows = Rows(self.rows.times_ns[at:end], self.rows.codes[at:end], self.rows.ids, self.rows.values_uv[at:end])
        return Piece(self.content[first:stop], self.begins[at:end] - first, self.ends[at:end] - first, rows)

    def without(self, is_gone: npt.NDArray[np.bool_]) -> bytes:
        """Return the bytes without those of some rows."""
        if not is_gone.any():
            return self.content
        kept, position = bytearray(), 0
        first = np.flatnonzero(is_gone & np.concatenate(([True], ~is_gone[:-1] | (self.ends[:-1] != self.begins[1:]))))
        last = np.flatnonzero(is_gone & np.concatenate((~is_gone[1:] | (self.ends[:-1] != self.begins[1:]), [True])))
        for begin, end in zip(self.begins[first].tolist(), self.ends[last].tolist(), strict=True):
            kept += self.content[position:begin]
            position = end
        return bytes(kept + self.content[position:])


def pieces(file: BinaryIO, length: int, windows: ReleasedWindows) -> Iterator[Piece]:
    """Yield the first `length` bytes of a file in pieces; rows of one window that stand together are in one piece."""
    pending, left = b"", length
    while left or pending:
        block = file.read(min(BLOCK_BYTES, left))
        left -= len(block)
        is_last = not left or not block
        if not block:
            left = 0
        content = pending + block
        found = _parsed(content)
        cut = len(content) if is_last else _safe_cut(found, windows)
        if cut:
            yield found.part(0, cut)
        pending = content[cut:]


def _safe_cut(found: Piece, windows: ReleasedWindows) -> int:
    """Return how many bytes of a piece may be taken for themselves: up to its last window, which may go on."""
    if not len(found.begins):
        # What is longer is no row whose end is in the next block.
        return len(found.content) if len(found.content) > _LONGEST_ROW_BYTES else 0
    starts = windows.starts_of(found.rows.times_ns)
    others = np.flatnonzero(starts != starts[-1])
    first_of_last = int(others[-1]) + 1 if len(others) else 0
    if starts[-1] == NO_WINDOW:
        return int(found.ends[-1])
    return int(found.begins[first_of_last])


def _parsed(content: bytes) -> Piece:
    end = content.rfind(b"\n") + 1
    return _parsed_columns(content, end) or _parsed_by_pattern(content)


def _parsed_columns(content: bytes, end: int) -> Piece | None:
    """Return the rows of text in which every whole line is a plain row; None if some line may be anything else."""
    begin = content.find(b"\n") + 1 if content.startswith(b"timestamp,") else 0
    if begin >= end or b'"' in content or b"\r" in content or b"\0" in content:
        return None
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(pa.py_buffer(content)[begin:end]),
            read_options=_READ,
            parse_options=_AS_IT_IS,
            convert_options=_COLUMNS,
        ).combine_chunks()
    except pa.ArrowException:
        return None
    ends = np.flatnonzero(np.frombuffer(content, dtype=np.uint8, count=end)[begin:] == _NEW_LINE).astype(np.int64) + begin + 1
    if len(ends) != len(table) or any(column.null_count for column in table.columns):
        return None
    named = pc.dictionary_encode(table.column("id").combine_chunks())
    rows = Rows(
        table.column("time").cast(pa.int64()).to_numpy(),
        named.indices.to_numpy(),
        tuple(named.dictionary.to_pylist()),
        table.column("value").to_numpy(),
    )
    return Piece(content, np.concatenate(([begin], ends[:-1])), ends, rows)


def _parsed_by_pattern(content: bytes) -> Piece:
    found = list(_ROW.finditer(content))
    ids: dict[bytes, int] = {}
    codes = np.array([ids.setdefault(one[2], len(ids)) for one in found], dtype=np.int32)
    times_ns = np.array([_nanoseconds(one[1]) for one in found], dtype=np.int64)
    values = np.array([_number(one[3]) for one in found], dtype=np.float64)
    spans = np.array([one.span() for one in found], dtype=np.int64).reshape(len(found), 2)
    return Piece(content, spans[:, 0], spans[:, 1], Rows(times_ns, codes, tuple(_unquoted(one) for one in ids), values))


def _nanoseconds(text: bytes) -> int:
    """Return a time; one that is no time is in no window, and its row may still be the source's."""
    try:
        return int(np.datetime64(text[:-1].decode(), "ns").astype(np.int64))
    except ValueError:
        return NO_WINDOW


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _unquoted(cell: bytes) -> str:
    text = cell.decode(errors="replace")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text
