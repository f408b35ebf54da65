"""The columns of a file: their names, values and source ids. A bad cell invalidates only its own row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from anonymizer.errors import SourceRefused
from inputs.file_text import as_text, is_missing, type_name

#: The columns that every file must have.
COLUMNS = ("timestamp", "source_id", "ecg")

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"

_DECIMAL_COMMA = r"^[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?$"

#: A number whose one separator may be a decimal mark or a thousands separator.
_MAYBE_THOUSANDS = r"^[+-]?[1-9]\d{0,2}[.,]\d{3}$"

#: Cells that are checked first: they nearly always show that points are decimal points.
_FIRST_CELLS = 1000

#: Larger floats may have lost digits, so they are not written as integers.
_EXACT = 2.0**53


def normalized(name: str) -> str:
    """Return a column's name in lower case, without surrounding spaces."""
    return name.strip().lower()


def check_columns(held: Sequence[str], *, hint: str = "") -> None:
    """Raise SourceRefused unless each of `COLUMNS` is present once; `hint` is appended if none is.

    The message names no other column: they may be named after wearers, and a first line may be a row.
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


class ValueKind(IntEnum):
    """Kinds of value cells."""

    #: Empty, null, NaN or an infinity.
    MISSING = 0
    UNREADABLE = 1
    NUMBER = 2
    DECIMAL_COMMA = 3
    #: `1,234`: a decimal comma, or a comma between thousands.
    ONE_COMMA = 4
    #: A number with a decimal point. In a column that has some, not all are marked.
    DECIMAL_POINT = 5
    #: `1.234`: a decimal point, or a point between thousands. Not marked if other points in the block are surely decimal.
    ONE_POINT = 6


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The numbers of a column.

    Args:
        values: Shape (n,), float64; NaN for a cell without a number.
        kinds: `ValueKind` of each cell, shape (n,), int8.
    """

    values: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.int8]


def values(column: pa.ChunkedArray) -> Values:
    """Return the numbers of a column.

    Raises:
        SourceRefused: The column's type is neither text nor numeric.
    """
    column = as_text(column)
    kind = column.type
    if pa.types.is_string(kind):
        return _text_values(column)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return _all_numbers(column)
    raise SourceRefused(f"INPUT_FILE: column ecg must hold numbers, got {type_name(kind)}")


def _all_numbers(column: pa.ChunkedArray) -> Values:
    # `safe` would refuse the whole file for one integer beyond 2⁵³.
    numbers = pc.fill_null(pc.cast(column, pa.float64(), safe=False), np.nan).to_numpy()
    is_finite = np.isfinite(numbers)
    kinds = np.full(len(numbers), ValueKind.NUMBER, np.int8)
    if not is_finite.all():
        numbers = np.where(is_finite, numbers, np.nan)
        kinds[~is_finite] = ValueKind.MISSING
    return Values(numbers, kinds)


def _text_values(texts: pa.ChunkedArray) -> Values:
    try:
        found = _all_numbers(texts)
    except pa.ArrowInvalid:
        pass
    else:
        if any(_has_point(chunk) for chunk in texts.chunks):
            _mark_points(found.kinds, texts)
        return found
    plain = pc.utf8_trim_whitespace(pc.replace_substring(texts, "\N{MINUS SIGN}", "-"))
    is_number, has_comma, maybe_thousands = (
        pc.fill_null(pc.match_substring_regex(plain, form), False) for form in (_NUMBER, _DECIMAL_COMMA, _MAYBE_THOUSANDS)
    )
    digits = pc.if_else(has_comma, pc.replace_substring(plain, ",", "."), pc.if_else(is_number, plain, None))
    found = _all_numbers(digits)
    is_beyond = digits.is_valid().to_numpy() & np.isnan(found.values)
    kinds = np.full(len(texts), ValueKind.UNREADABLE, np.int8)
    for chosen, kind in (
        (is_number, ValueKind.NUMBER),
        (has_comma, ValueKind.DECIMAL_COMMA),
        (pc.and_(has_comma, maybe_thousands), ValueKind.ONE_COMMA),
    ):
        kinds[chosen.to_numpy()] = kind
    _mark_points(kinds, plain)
    # A number that overflows, such as 1e400, is a failed measurement too.
    kinds[is_missing(texts) | is_beyond] = ValueKind.MISSING
    return Values(found.values, kinds)


def _has_point(texts: pa.StringArray) -> bool:
    """Return whether texts may contain a point. Fast: searches the whole buffer, which a slice shares."""
    held = texts.buffers()[2]
    return held is not None and memoryview(held).tobytes().find(b".") >= 0


def _mark_points(kinds: npt.NDArray[np.int8], texts: pa.ChunkedArray) -> None:
    """Mark plain numbers that contain a point; if the first cells have points that are surely decimal, only those cells."""
    for length in (_FIRST_CELLS, len(texts)):
        some = pc.utf8_trim_whitespace(texts.slice(0, length))
        found = kinds[: len(some)]
        has_point = pc.fill_null(pc.match_substring(some, "."), False).to_numpy() & (found == ValueKind.NUMBER)
        is_one = pc.fill_null(pc.match_substring_regex(some, _MAYBE_THOUSANDS), False).to_numpy()
        if (has_point & ~is_one).any() or length >= len(texts):
            found[has_point] = ValueKind.DECIMAL_POINT
            found[has_point & is_one] = ValueKind.ONE_POINT
            return


def source_ids(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return each cell's index into the list of ids (int32, -1: no id), and the list. Numbers are ids too.

    Raises:
        SourceRefused: The column's type is neither text nor numeric.
    """
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_boolean(kind):
        raise SourceRefused(f"INPUT_FILE: column source_id must hold text or numbers, got {type_name(kind)}")
    if not pa.types.is_dictionary(kind):
        # A view of text has no dictionary of its own in Arrow.
        column = (pc.cast(column, pa.string()) if pa.types.is_string_view(kind) else column).dictionary_encode()
    encoded = column.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], encoded.type)
    codes = pc.fill_null(encoded.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    return codes, _id_texts(encoded.dictionary)


def _id_texts(ids: pa.Array) -> list[str]:
    """Return ids as text; an empty string (no id) for null, blanks, invalid UTF-8, NaN and infinities."""
    if not pa.types.is_floating(ids.type):
        # Some programs write invalid UTF-8 to Parquet.
        is_text = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
        texts = map(_decoded, pc.cast(ids, pa.large_binary()).to_pylist()) if is_text else pc.cast(ids, pa.string()).to_pylist()
        return [text if text and not text.isspace() else "" for text in texts]
    # In pandas, one missing id turns a column of integers into floats: 7 becomes 7.0.
    numbers = [float("nan") if number is None else float(number) for number in ids.to_pylist()]
    return [_id_of(number) for number in numbers]


def _decoded(data: bytes | None) -> str:
    """Return the text; empty if it is not UTF-8, since the id is then unknown."""
    try:
        return (data or b"").decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _id_of(number: float) -> str:
    if not np.isfinite(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)
