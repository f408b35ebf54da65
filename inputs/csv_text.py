"""Splits the text of a CSV file into blocks of whole rows. Detects its dialect, and names the line of what cannot be parsed.

Only one block is in memory at a time, however large the file is. No message shows a cell.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from anonymizer.errors import SourceRefused
from inputs.file_columns import COLUMNS, ValueKind, check_columns, normalized, values
from inputs.file_format import SUFFIXES, format_of
from inputs.file_times import TimeKind, times
from inputs.input_file import ByteStream

if TYPE_CHECKING:
    import _csv

#: Text that is parsed at a time.
BLOCK_BYTES = 1 << 23

#: The longest row. A longer one is an unclosed quote, or not text.
MOST_ROW_BYTES = 1 << 24

#: The csv module's largest limit, above `MOST_ROW_BYTES`.
_MOST_CELL_CHARACTERS = (1 << 31) - 1

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

#: Byte order marks of encodings that are not supported.
_OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How rows are written.

    Args:
        delimiter: Character between cells.
        width: Cells per row.
        positions: Index in a row of each of `COLUMNS`.
        header_width: Cells in the header.
        is_last_unnamed: Whether the header's last name is empty.
    """

    delimiter: str
    width: int
    positions: tuple[int, ...]
    header_width: int
    is_last_unnamed: bool = False

    @property
    def is_last_empty(self) -> bool:
        """Whether each row ends with a delimiter that the header lacks."""
        return self.width > self.header_width


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Whole rows.

    Args:
        text: The rows, without the header.
        first_line: The file's line number of the first one, from 1.
        dialect: How the rows are written.
    """

    text: bytes
    first_line: int
    dialect: Dialect

    def line_of(self, row: int) -> int:
        """Return the line in which a row begins. Line ends inside cells count, as they do in an editor."""
        return self._row(row)[0]

    def table(self) -> pa.Table:
        """Return the columns `COLUMNS` as text; empty cells are null.

        Raises:
            SourceRefused: A row has another number of cells, a quote is unclosed, or the text is not UTF-8.
        """
        _check_quotes(self)
        try:
            table = self._parsed(1 << 20)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error):
                raise self._refusal() from None
            table = self._parsed(len(self.text) + 1)
        self._check_last(table)
        return table.select(list(COLUMNS))

    def _parsed(self, block_bytes: int) -> pa.Table:
        names = [f"other {index}" for index in range(self.dialect.width)]
        for name, position in zip(COLUMNS, self.dialect.positions, strict=True):
            names[position] = name
        wanted = [*COLUMNS, *(names[-1:] if self.dialect.is_last_empty else ())]
        return pa_csv.read_csv(
            pa.BufferReader(self.text),
            read_options=pa_csv.ReadOptions(column_names=names, block_size=block_bytes),
            parse_options=pa_csv.ParseOptions(delimiter=self.dialect.delimiter, newlines_in_values=b'"' in self.text),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )

    def _check_last(self, table: pa.Table) -> None:
        if not self.dialect.is_last_empty:
            return
        last = table.column(len(COLUMNS))
        if last.null_count < len(last):
            row = int(np.flatnonzero(last.is_valid().to_numpy())[0])
            raise SourceRefused(f"INPUT_FILE: line {self.line_of(row)} has a cell more than the header")

    def _refusal(self) -> SourceRefused:
        """Return why the rows cannot be parsed, with the line."""
        try:
            self.text.decode("utf-8")
        except UnicodeDecodeError as error:
            return _not_utf8(self.first_line + _line_ends(self.text[: error.start]))
        for line, cells in self._rows():
            if len(cells) != self.dialect.width:
                return SourceRefused(
                    f"INPUT_FILE: line {line} has {len(cells)} cells, the header has {self.dialect.header_width}"
                )
        return SourceRefused(f"INPUT_FILE: the rows from line {self.first_line} on cannot be parsed as CSV")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row with the line it begins in; empty lines are skipped."""
        # Far slower than Arrow; used only to find a line number.
        rows = _parser(io.StringIO(self.text.decode("utf-8", "replace"), newline=""), self.dialect.delimiter)
        line = self.first_line
        for cells in rows:
            if cells:
                yield line, cells
            line = self.first_line + rows.line_num

    def _row(self, wanted: int) -> tuple[int, list[str]]:
        return next(row for index, row in enumerate(self._rows()) if index == wanted)


def blocks(stream: ByteStream) -> Iterator[Block]:
    """Yield the rows of a CSV file, in blocks of whole rows.

    Raises:
        SourceRefused: It is not CSV text; the message names the line.
    """
    reader = _Reader(stream)
    dialect = reader.read_header()
    is_first = True
    for text, first_line in reader.rest():
        if is_first and not text.isspace():
            dialect = _with_last_cell(dialect, _first_row(text, dialect.delimiter))
            is_first = False
        yield Block(text, first_line, dialect)


class _Reader:
    """Cuts a stream into whole rows, and counts lines."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._held = b""
        self._line = 1
        self._is_over = False

    def read_header(self) -> Dialect:
        """Return the dialect that the header shows; a `sep=` line may precede it."""
        self._more()
        _check_encoding(self._held)
        self._held = self._held.removeprefix(b"\xef\xbb\xbf")
        line, at = self._line_at(0)
        named = re.fullmatch(r'"?sep=(.)"?', line.strip(" "), re.IGNORECASE)
        if named:
            line, at = self._line_at(at)
        self._held = self._held[at:]
        return _dialect(line, named[1] if named else "")

    def rest(self) -> Iterator[tuple[bytes, int]]:
        """Yield whole rows and the line they begin in, until the end."""
        while True:
            end = len(self._held) if self._is_over else _end_of_rows(self._held)
            if end:
                text, self._held = self._held[:end], self._held[end:]
                _check_zeros(text, self._line)
                yield text, self._line
                self._line += _line_ends(text)
            elif len(self._held) > MOST_ROW_BYTES:
                raise self._too_long()
            if self._is_over:
                return
            self._more()

    def _more(self) -> None:
        data = self._stream.read(BLOCK_BYTES)
        self._is_over = not data
        self._held += data

    def _line_at(self, at: int) -> tuple[str, int]:
        """Return the next line after a position that is not blank, and the position after it."""
        while True:
            end = _LINE_END.search(self._held, at)
            # After a carriage return at the very end a line feed may follow.
            if (end is None or end.end() == len(self._held)) and not self._is_over:
                if len(self._held) > MOST_ROW_BYTES:
                    raise self._too_long()
                self._more()
                continue
            line, at = (self._held[at:], len(self._held)) if end is None else (self._held[at : end.start()], end.end())
            _check_zeros(line, self._line)
            self._line += end is not None
            if line.strip():
                return _decoded(line, self._line - (end is not None)), at
            if end is None:
                raise SourceRefused("INPUT_FILE is empty: it needs a header, timestamp,source_id,ecg, and rows")

    def _too_long(self) -> SourceRefused:
        _check_zeros(self._held, self._line)
        quotes = np.flatnonzero(np.frombuffer(self._held, np.uint8) == ord('"'))
        if len(quotes):
            return _open_quote(self._line + _line_ends(self._held[: quotes[0]]))
        return SourceRefused(f"INPUT_FILE: line {self._line} is longer than {MOST_ROW_BYTES:,} bytes; a CSV file has lines")


def _dialect(header: str, named: str) -> Dialect:
    """Return the dialect in which a header names all columns. Raises SourceRefused if there is none."""
    if header.count('"') % 2:
        raise SourceRefused(
            "INPUT_FILE: a quote opens in the header and is not closed in that line; write the names of all columns in one line"
        )
    if named and named not in _DELIMITERS:
        raise SourceRefused(
            f"INPUT_FILE: its sep= line names a separator that is not read; read are {', '.join(_DELIMITERS.values())}"
        )
    found = {delimiter: _names(header, delimiter) for delimiter in ([named] if named else _DELIMITERS)}
    for delimiter, names in found.items():
        if all(names.count(column) == 1 for column in COLUMNS):
            positions = tuple(names.index(column) for column in COLUMNS)
            return Dialect(delimiter, len(names), positions, len(names), is_last_unnamed=not names[-1])
    names = max(found.values(), key=lambda names: (sum(column in names for column in COLUMNS), len(names)))
    check_columns(names, hint="is its first line a header?")
    raise AssertionError("a header that names the columns was returned above")


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_utf8(number) from None


def _names(header: str, delimiter: str) -> list[str]:
    return [normalized(cell) for cell in next(_parser([header], delimiter), [])]


def _parser(lines: Iterable[str], delimiter: str) -> _csv.Reader:
    """Return a row parser without a limit on cell length: `_Reader` limits the length of rows."""
    csv.field_size_limit(_MOST_CELL_CHARACTERS)
    return csv.reader(lines, delimiter=delimiter)


def _first_row(text: bytes, delimiter: str) -> list[str]:
    """Return the cells of the first row of a block."""
    text = text.lstrip(b"\r\n")
    begin, is_open = 0, False
    for end in _LINE_END.finditer(text):
        is_open ^= text.count(b'"', begin, end.start()) % 2 == 1
        begin = end.start()
        if not is_open:
            text = text[:begin]
            break
    return next(_parser(io.StringIO(text.decode("utf-8", "replace"), newline=""), delimiter), [])


def _with_last_cell(dialect: Dialect, cells: Sequence[str]) -> Dialect:
    """Correct the dialect by the first row: a trailing delimiter may be in the header only, or in the rows only.

    Any other difference in width is refused later: with a guess, cells could be assigned to the wrong columns.
    """
    if len(cells) == dialect.width + 1 and not cells[-1].strip():
        if _reads_one_further(dialect, cells):
            raise SourceRefused(
                f"INPUT_FILE: its rows have {len(cells)} cells, the header has {dialect.header_width}: either the first column or the "
                "last has no name; write a name for every column"
            )
        return replace(dialect, width=dialect.width + 1)
    # An empty last name is a trailing delimiter. If the row ends with one too, another cell is missing.
    is_end = dialect.is_last_unnamed and len(cells) == dialect.width - 1 and cells[-1].strip()
    return replace(dialect, width=dialect.width - 1) if is_end else dialect


def _reads_one_further(dialect: Dialect, cells: Sequence[str]) -> bool:
    """Return whether a row also parses if its first cell, such as a row number, is the unnamed one."""
    time, _, value = ([cells[position + 1]] for position in dialect.positions)
    return bool(_is_time(time)[0] and _is_number(value)[0])


def _check_encoding(head: bytes) -> None:
    if found := format_of(head):
        raise SourceRefused(
            f"INPUT_FILE holds {found} instead of CSV text: unpack it if it is gzip-compressed, and let its name end in {SUFFIXES[found]}"
        )
    for mark, name in _OTHER_MARKS.items():
        if head.startswith(mark):
            raise SourceRefused(f"INPUT_FILE is {name} text; convert it to UTF-8, such as with: iconv -f {name} -t UTF-8")


def _check_zeros(text: bytes, first_line: int) -> None:
    at = text.find(b"\0")
    if at >= 0:
        line = first_line + _line_ends(text[:at])
        raise SourceRefused(
            f"INPUT_FILE: line {line} holds zero bytes: it is UTF-16 text (convert it to UTF-8), damaged, or no CSV file at all"
        )


def _not_utf8(line: int) -> SourceRefused:
    return SourceRefused(
        f"INPUT_FILE: line {line} is not UTF-8 text; convert the file, such as with: iconv -f WINDOWS-1252 -t UTF-8"
    )


def _line_ends(text: bytes) -> int:
    """Count the line ends in a text."""
    # Much faster than bytes.count if lines are short.
    line_feeds = int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))
    return line_feeds + (text.count(b"\r") - text.count(b"\r\n") if b"\r" in text else 0)


def _end_of_rows(text: bytes) -> int:
    """Return where the last whole row of a text ends; 0 if none does. The text begins at the start of a row."""
    if b'"' not in text:
        end = text.rfind(b"\n") + 1
        # After a carriage return at the very end a line feed may follow.
        return end or text.rfind(b"\r", 0, len(text) - 1) + 1
    data = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(data == ord('"'))
    for line_end in (ord("\n"), ord("\r")):
        ends = np.flatnonzero(data[:-1] == line_end) + 1
        outside = ends[np.searchsorted(quotes, ends) % 2 == 0]
        if len(outside):
            return int(outside[-1])
    return 0


def _check_quotes(block: Block) -> None:
    """Raise SourceRefused for a quote that is not closed or stands inside a cell; the message names the line where it opens."""
    if b'"' not in block.text:
        return
    data = np.frombuffer(block.text, np.uint8)
    quotes = np.flatnonzero(data == ord('"'))
    opening, closing = quotes[0::2], quotes[1::2]
    edges = np.isin(np.arange(256), [ord(block.dialect.delimiter), ord("\n"), ord("\r"), ord('"')])
    before = (opening == 0) | edges[data[opening - 1]]
    after = (closing == len(data) - 1) | edges[data[np.minimum(closing + 1, len(data) - 1)]]
    # An escaped quote, `""`, looks like the end of a cell and the start of the next.
    stray = opening[~before]
    unclosed = opening[: len(closing)][~after]
    swallowing = _swallowing(block, data, quotes)
    odd = opening[-1:] if len(quotes) % 2 else opening[:0]
    faults = np.concatenate((stray, unclosed, swallowing, odd))
    if len(faults):
        raise _open_quote(block.first_line + _line_ends(block.text[: _start_of_cell(quotes, int(faults.min()))]))


def _start_of_cell(quotes: npt.NDArray[np.intp], fault: int) -> int:
    """Return where the quoted cell that contains a quote begins: doubled quotes close nothing."""
    index = int(np.searchsorted(quotes, fault))
    while index >= 2 and quotes[index - 1] == quotes[index] - 1:
        index -= 2
    return int(quotes[index])


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """The lines of a block, quotes ignored, and whether each begins and ends inside a quoted cell. All arrays have shape (lines,)."""

    starts: npt.NDArray[np.intp]
    stops: npt.NDArray[np.intp]
    begin_inside: npt.NDArray[np.bool_]
    end_inside: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, data: npt.NDArray[np.uint8], quotes: npt.NDArray[np.intp]) -> _Lines:
        ends = np.flatnonzero((data == ord("\n")) | (data == ord("\r")))
        starts, stops = np.append(0, ends + 1), np.append(ends, len(data))
        end_inside = np.searchsorted(quotes, stops) % 2 == 1
        return cls(starts, stops, np.append(False, end_inside[:-1]), end_inside)


def _swallowing(block: Block, data: npt.NDArray[np.uint8], quotes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the opening quotes of cells that seem to swallow another row: such a quote was probably never closed.

    A line of a multi-line row is suspect if it has a row's number of cells and its quoted part parses as a time or a number in the right
    column. A row's first line alone is not: the row begins there in any case.
    """
    lines = _Lines.of(data, quotes)
    if not lines.begin_inside.any():
        return quotes[:0]
    delimiters = np.flatnonzero(data == ord(block.dialect.delimiter))
    delimiters = delimiters[~_in_cells_of_one_line(delimiters, lines, quotes)]
    first, stop = (np.searchsorted(delimiters, edges) for edges in (lines.starts, lines.stops))
    whole = np.flatnonzero((stop - first == block.dialect.width - 1) & (lines.begin_inside | lines.end_inside))
    rows = np.cumsum(~lines.begin_inside)[whole]
    is_first = ~lines.begin_inside[whole]
    has_another = np.isin(rows, rows[~is_first])
    whole = whole[has_another]
    reads = np.zeros(len(whole), np.bool_)
    for column, reads_as in ((block.dialect.positions[0], _is_time), (block.dialect.positions[2], _is_number)):
        begins = lines.starts[whole] if column == 0 else delimiters[first[whole] + column - 1] + 1
        is_last = column == block.dialect.width - 1
        ends = lines.stops[whole] if is_last else delimiters[np.minimum(first[whole] + column, len(delimiters) - 1)]
        is_inside = np.searchsorted(quotes, begins) % 2 == 1
        cells = [block.text[begin:end] for begin, end in zip(begins[is_inside].tolist(), ends[is_inside].tolist(), strict=True)]
        reads[is_inside] |= reads_as([cell.decode("utf-8", "replace").replace('"', "") for cell in cells])
    found = whole[reads]
    at = np.where(lines.begin_inside[found], lines.starts[found], lines.stops[found])
    return quotes[np.searchsorted(quotes, at) - 1]


def _in_cells_of_one_line(delimiters: npt.NDArray[np.intp], lines: _Lines, quotes: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return which delimiters are inside a quoted cell that ends on the same line: these do not separate cells."""
    is_other_cell = np.append(True, quotes[2::2] != quotes[1:-1:2][: len(quotes[2::2])] + 1)
    cells = np.cumsum(is_other_cell)
    long = np.unique(cells[(np.searchsorted(quotes, lines.stops[lines.end_inside]) - 1) // 2])
    before = np.searchsorted(quotes, delimiters)
    found: npt.NDArray[np.bool_] = (before % 2 == 1) & ~np.isin(cells[np.maximum(before - 1, 0) // 2], long)
    return found


def _is_time(cells: Sequence[str]) -> npt.NDArray[np.bool_]:
    no_times = (TimeKind.MISSING, TimeKind.UNREADABLE, TimeKind.OTHER_NUMBER)
    return ~np.isin(times(pa.chunked_array([cells], pa.string())).kinds, no_times)


def _is_number(cells: Sequence[str]) -> npt.NDArray[np.bool_]:
    return ~np.isin(values(pa.chunked_array([cells], pa.string())).kinds, (ValueKind.MISSING, ValueKind.UNREADABLE))


def _open_quote(line: int) -> SourceRefused:
    return SourceRefused(
        f'INPUT_FILE: a quote (") in line {line} opens a cell that is not closed before the next row, or stands inside a cell. '
        "Quote whole cells, and double the quotes inside them"
    )
