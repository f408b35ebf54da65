"""The text of a CSV file, in blocks of whole rows: its dialect, and the line number of what cannot be read.

Only a block is in memory at a time, however large the file is or what a gzip file unpacks to. No message shows a cell.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import mmap
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from anonymizer.errors import SourceRefused
from inputs.file_columns import ValueKind, values
from inputs.file_format import SUFFIXES, format_of
from inputs.file_times import TimeKind, times

if TYPE_CHECKING:
    import _csv

#: The columns every file must have.
COLUMNS = ("timestamp", "source_id", "ecg")

#: How much text is parsed at a time.
BLOCK_BYTES = 1 << 23

#: No row is longer: a longer one is an open quote, or no text.
MOST_ROW_BYTES = 1 << 24

#: A gzip file that unpacks to more than this, and to so many times its size, is made to fill memory: ECG packs to a tenth.
_MOST_UNPACKED_BYTES = 1 << 28
_MOST_UNPACKED_TIMES = 100

#: More than any row has.
_MOST_CELL_CHARACTERS = (1 << 31) - 1

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

_GZIP = b"\x1f\x8b"

#: Byte order marks of encodings that are not read.
_OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How rows are written.

    Args:
        delimiter: What stands between cells.
        width: Cells in a row.
        positions: Where in a row each of `COLUMNS` is.
        header_width: Cells in the header.
        is_last_unnamed: Whether the last name of the header is empty.
    """

    delimiter: str
    width: int
    positions: tuple[int, ...]
    header_width: int
    is_last_unnamed: bool = False

    @property
    def is_last_empty(self) -> bool:
        """Whether each row ends with a further delimiter that the header has not."""
        return self.width > self.header_width


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Whole rows.

    Args:
        text: The rows, without the header.
        first_line: The number of its first line in the file, from 1.
        dialect: How they are written.
    """

    text: bytes
    first_line: int
    dialect: Dialect

    def line_of(self, row: int) -> int:
        """Return the line in which a row begins; line ends inside cells count, as they do in an editor."""
        return self._row(row)[0]

    def table(self) -> pa.Table:
        """Return the rows as text, in the order of `COLUMNS`; empty cells are null.

        Raises:
            SourceRefused: They are not rows of that many cells, or not UTF-8 text.
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
        """Yield each row with the line it begins in; lines without anything are no rows."""
        # Far slower than Arrow, and used only to name a line.
        rows = _parser(io.StringIO(self.text.decode("utf-8", "replace"), newline=""), self.dialect.delimiter)
        line = self.first_line
        for cells in rows:
            if cells:
                yield line, cells
            line = self.first_line + rows.line_num

    def _row(self, wanted: int) -> tuple[int, list[str]]:
        return next(row for index, row in enumerate(self._rows()) if index == wanted)


class Text(Protocol):
    """Where bytes of text come from."""

    def read(self, most_bytes: int, /) -> bytes:
        """Return the next bytes; none at the end."""


def blocks(stream: Text) -> Iterator[Block]:
    """Yield the rows of a CSV file, in blocks of whole rows.

    Raises:
        SourceRefused: It is not CSV text that can be read; with the line.
    """
    reader = _Reader(stream)
    dialect = reader.read_header()
    is_first = True
    for text, first_line in reader.rest():
        if is_first and not text.isspace():
            dialect = _with_last_cell(dialect, _first_row(text, dialect.delimiter))
            is_first = False
        yield Block(text, first_line, dialect)


class HashingReader(io.RawIOBase):
    """Reads a file, at most `most_bytes` of it, and computes the SHA-256 of what was read."""

    def __init__(self, file: BinaryIO, most_bytes: int | None = None) -> None:
        self._file = file
        self._left = most_bytes
        self._digest = hashlib.sha256()
        self.bytes_read = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the one kind of buffer that is handed in
        """Read what fits."""
        most = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = self._file.read(most)
        self._digest.update(data)
        self.bytes_read += len(data)
        if self._left is not None:
            self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def hexdigest(self) -> str:
        """Return the digest of what was read so far."""
        return self._digest.hexdigest()


class Unpacked:
    """What a gzip file unpacks to: all of its members; zeros behind them, as tapes and disks add them, are no data."""

    def __init__(self, packed: HashingReader) -> None:
        self._packed = packed
        self._file = gzip.GzipFile(fileobj=io.BufferedReader(packed, BLOCK_BYTES))
        self._unpacked_bytes = 0

    def read(self, most_bytes: int) -> bytes:
        """Return the next bytes.

        Raises:
            SourceRefused: They cannot be unpacked.
        """
        try:
            data = self._file.read(most_bytes)
        except EOFError:
            raise SourceRefused("INPUT_FILE is cut off: its gzip data has no end. Copy it again") from None
        except (gzip.BadGzipFile, zlib.error):
            raise SourceRefused(
                "INPUT_FILE is damaged, or holds something else behind its gzip data; gzip -t tells more. Copy it again"
            ) from None
        self._unpacked_bytes += len(data)
        most = max(_MOST_UNPACKED_BYTES, _MOST_UNPACKED_TIMES * self._packed.bytes_read)
        if self._unpacked_bytes > most:
            raise SourceRefused(
                f"INPUT_FILE unpacks to more than {_MOST_UNPACKED_TIMES} times its size: no recording does. "
                "Unpack it yourself if it is one"
            )
        return data


def opened(packed: HashingReader, file: BinaryIO) -> Text:
    """Return the text of a file, unpacked if it begins as gzip does."""
    is_gzip = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return Unpacked(packed) if is_gzip else io.BufferedReader(packed, BLOCK_BYTES)


def length_of_version(file: BinaryIO, digest: str) -> int | None:
    """Return how many bytes at the begin of a file have a SHA-256 that begins so; None if none have.

    A file grows by whole lines, and a gzip file by whole members: only there it is looked for.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        is_gzip = data[: len(_GZIP)] == _GZIP
        hashed, at = hashlib.sha256(), 0
        for mark in re.finditer(rb"\x1f\x8b\x08" if is_gzip else rb"[\r\n]", data):
            for end in (mark.start(),) if is_gzip else mark.span():
                if end > at:
                    hashed.update(data[at:end])
                    at = end
                    if hashed.hexdigest().startswith(digest):
                        return end
    return None


class _Reader:
    """Cuts a stream into whole rows, and counts lines."""

    def __init__(self, stream: Text) -> None:
        self._stream = stream
        self._held = b""
        self._line = 1
        self._is_over = False

    def read_header(self) -> Dialect:
        """Return what the header tells of the dialect; a `sep=` line may stand before it."""
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
        """Return the next line from a position on that holds anything, and the position behind it."""
        while True:
            end = _LINE_END.search(self._held, at)
            # Behind a carriage return at the very end a line feed may follow.
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
    """Return the dialect under which a header names the columns."""
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
    """Return a parser of rows that takes cells of any length: how long a row may be is checked elsewhere."""
    csv.field_size_limit(_MOST_CELL_CHARACTERS)
    return csv.reader(lines, delimiter=delimiter)


def normalized(name: str) -> str:
    """Return a column's name without what does not count: upper case, spaces around it."""
    return name.strip().lower()


def check_columns(held: Sequence[str], *, hint: str = "") -> None:
    """Raise SourceRefused unless each column is there once; `hint` is added where none of them is.

    What the other columns are called is not said: they may be called after wearers, and a first line may be a row.
    """
    counts = {name: held.count(name) for name in COLUMNS}
    wrong = [f"{name} {_times(count) if count else 'missing'}" for name, count in counts.items() if count != 1]
    if not wrong:
        return
    found = f"among its {len(held)} column{'s' if len(held) != 1 else ''}"
    asked = f"; {hint}" if hint and not any(counts.values()) else ""
    raise SourceRefused(f"INPUT_FILE needs the columns {', '.join(COLUMNS)}; {', '.join(wrong)} {found}{asked}")


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


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
    """Return the dialect, given the first row: a header or its rows may end with a delimiter that the others have not.

    Any other difference is no reason to guess: with a column too many or too few, cells would be taken for those of other columns.
    """
    if len(cells) == dialect.width + 1 and not cells[-1].strip():
        if _reads_one_further(dialect, cells):
            raise SourceRefused(
                f"INPUT_FILE: its rows have {len(cells)} cells, the header has {dialect.header_width}: either the first column or the "
                "last has no name; write a name for every column"
            )
        return replace(dialect, width=dialect.width + 1)
    # A last name that is empty is a delimiter at the end. Where the row ends with one as well, the cell missing is another one.
    is_end = dialect.is_last_unnamed and len(cells) == dialect.width - 1 and cells[-1].strip()
    return replace(dialect, width=dialect.width - 1) if is_end else dialect


def _reads_one_further(dialect: Dialect, cells: Sequence[str]) -> bool:
    """Return whether a row also reads as one whose first cell, such as a row number, has no name."""
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
    """Return how many lines end in a text."""
    # Faster than bytes.count by far, where lines are short.
    line_feeds = int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))
    return line_feeds + (text.count(b"\r") - text.count(b"\r\n") if b"\r" in text else 0)


def _end_of_rows(text: bytes) -> int:
    """Return where the last whole row of a text ends; 0 when none does. The text begins with a row."""
    if b'"' not in text:
        end = text.rfind(b"\n") + 1
        # Behind a carriage return at the very end a line feed may follow.
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
    """Raise SourceRefused, with the line where it opens, for a quote that is not closed or stands inside a cell."""
    if b'"' not in block.text:
        return
    data = np.frombuffer(block.text, np.uint8)
    quotes = np.flatnonzero(data == ord('"'))
    opening, closing = quotes[0::2], quotes[1::2]
    edges = np.isin(np.arange(256), [ord(block.dialect.delimiter), ord("\n"), ord("\r"), ord('"')])
    before = (opening == 0) | edges[data[opening - 1]]
    after = (closing == len(data) - 1) | edges[data[np.minimum(closing + 1, len(data) - 1)]]
    # `""` inside a cell is a quote that belongs to it: it closes the cell and opens it again.
    stray = opening[~before]
    unclosed = opening[: len(closing)][~after]
    swallowing = _swallowing(block, data, quotes)
    odd = opening[-1:] if len(quotes) % 2 else opening[:0]
    faults = np.concatenate((stray, unclosed, swallowing, odd))
    if len(faults):
        raise _open_quote(block.first_line + _line_ends(block.text[: _start_of_cell(quotes, int(faults.min()))]))


def _start_of_cell(quotes: npt.NDArray[np.intp], fault: int) -> int:
    """Return where the cell begins in which a quote stands: doubled quotes close nothing."""
    index = int(np.searchsorted(quotes, fault))
    while index >= 2 and quotes[index - 1] == quotes[index] - 1:
        index -= 2
    return int(quotes[index])


@dataclass(frozen=True, slots=True, eq=False)
class _Lines:
    """Lines of a block as they look when quotes mean nothing, and whether they begin and end inside a quoted cell; arrays of one shape."""

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
    """Return opening quotes of cells that may hold a row of their own: such a quote was perhaps never meant to go on so far.

    A line of a row of several lines is in doubt if it has as many cells as a row has, and what of it stands inside quotes reads as a time
    or as a number in its place. The first line alone is not: its row begins there in any case.
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
    """Return which delimiters stand in a quoted cell that ends in its line: these separate nothing."""
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
