"""Columns of values and sources as files write them. A bad cell invalidates only its own row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from anonymizer.errors import SourceRefused
from inputs.file_text import as_text, is_missing, type_name

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"

_DECIMAL_COMMA = r"^[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?$"

#: One mark that may just as well stand between thousands.
_MAYBE_THOUSANDS = r"^[+-]?[1-9]\d{0,2}[.,]\d{3}$"

#: So many cells are looked at first: they nearly always show that points are decimal points.
_FIRST_CELLS = 1000

#: Floats beyond this may have lost their last digits, and are no ids.
_EXACT = 2.0**53


class ValueKind(IntEnum):
    """What the cell of a value holds."""

    #: Nothing, or what says so: empty, null, NaN, an infinity.
    MISSING = 0
    UNREADABLE = 1
    NUMBER = 2
    DECIMAL_COMMA = 3
    #: `1,234`: a decimal comma, or a comma between thousands.
    ONE_COMMA = 4
    #: A number with a decimal point; not each is marked as such where a column has some.
    DECIMAL_POINT = 5
    #: `1.234`: a decimal point, or one between thousands; not marked where the column's part has other decimal points.
    ONE_POINT = 6


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Numbers of a column's cells.

    Args:
        values: Shape (n,), float64; NaN where there is none.
        kinds: `ValueKind` of each cell, shape (n,), int8.
    """

    values: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.int8]


def values(column: pa.ChunkedArray) -> Values:
    """Return the numbers of a column.

    Raises:
        SourceRefused: The column's type holds no numbers.
    """
    column = as_text(column)
    kind = column.type
    if pa.types.is_string(kind):
        return _text_values(column)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return _all_numbers(column)
    raise SourceRefused(f"INPUT_FILE: column ecg must hold numbers, got {type_name(kind)}")


def _all_numbers(column: pa.ChunkedArray) -> Values:
    # Not `safe`: that would refuse the whole file for one integer beyond 2⁵³.
    numbers = pc.fill_null(pc.cast(column, pa.float64(), safe=False), np.nan).to_numpy()
    is_finite = np.isfinite(numbers)
    if not is_finite.all():
        numbers = np.where(is_finite, numbers, np.nan)
    return Values(numbers, np.where(is_finite, ValueKind.NUMBER, ValueKind.MISSING).astype(np.int8))


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
    # A number beyond all numbers, such as 1e400, is a measurement that failed as well.
    kinds[is_missing(texts) | is_beyond] = ValueKind.MISSING
    return Values(found.values, kinds)


def _has_point(texts: pa.StringArray) -> bool:
    """Return whether there may be a point in texts: in their bytes, which is fast."""
    held = texts.buffers()[2]
    return held is not None and memoryview(held).tobytes().find(b".") >= 0


def _mark_points(kinds: npt.NDArray[np.int8], texts: pa.ChunkedArray) -> None:
    """Mark numbers with a point among those of no other kind; of a part with decimal points beyond doubt only the first."""
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
    """Return the position of each cell's id in a list of ids, -1 where there is none; numbers are ids too.

    Raises:
        SourceRefused: The column's type holds no ids.
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
    """Return ids as text; the empty text, no id, for null, blanks only, what is not UTF-8, NaN and infinities."""
    if not pa.types.is_floating(ids.type):
        # Not every program checks that the text it writes to Parquet is UTF-8.
        is_text = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
        texts = map(_decoded, pc.cast(ids, pa.large_binary()).to_pylist()) if is_text else pc.cast(ids, pa.string()).to_pylist()
        return [text if text and not text.isspace() else "" for text in texts]
    # Among numeric ids a missing one makes floats of all the others: 7 is written 7.0 then.
    numbers = [float("nan") if number is None else float(number) for number in ids.to_pylist()]
    return [_id_of(number) for number in numbers]


def _decoded(data: bytes | None) -> str:
    """Return text, or none where it is not UTF-8: then nobody can tell whom it names."""
    try:
        return (data or b"").decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _id_of(number: float) -> str:
    if not np.isfinite(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)
