"""Columns of a file as people really write them, turned into times, sources and numbers: what is none makes its own row bad, no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from anonymizer.errors import SourceRefused

_TIME = pa.timestamp("ns", tz="UTC")

#: A number as CSV files write it; everything else is invalid.
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"

_ZONE = r"(Z|z|[+-]\d\d:?\d\d)\s*$"


def times(column: pa.ChunkedArray, path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return times in nanoseconds since the epoch and which rows have one; UTC when a text names no zone."""
    column = _plain_text(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = pc.cast(column if kind.tz else pc.assume_timezone(column, "UTC"), _TIME)
    elif pa.types.is_string(kind):
        column = _parsed_times(column)
    else:
        raise SourceRefused(f"INPUT_FILE {path}: column timestamp must hold times, got {kind}")
    has_time = pc.is_valid(column).to_numpy()
    return pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(), has_time


def _plain_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text of any kind as strings, as not all that Arrow can do it can do with every kind; other columns as they are."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pc.cast(column, pa.string()) if is_text else column


def _parsed_times(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    with_zone = pc.if_else(pc.match_substring_regex(texts, _ZONE), texts, pc.binary_join_element_wise(texts, "Z", ""))
    return pa.chunked_array([part for chunk in with_zone.chunks for part in _times_or_none(chunk)], type=_TIME)


def _times_or_none(texts: pa.StringArray) -> list[pa.Array]:
    """Return the times in parts, null for what is no time.

    Arrow has no cast that leaves bad cells empty: where it refuses, each half is tried by itself, as bad cells are few.
    """
    try:
        return [pc.cast(texts, _TIME)]
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return [pa.nulls(1, _TIME)]
        half = len(texts) // 2
        return [*_times_or_none(texts[:half]), *_times_or_none(texts[half:])]


def source_ids(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return ids as text, each named once; numbers are ids too."""
    if not pa.types.is_dictionary(column.type):
        column = pc.cast(column, pa.string()).dictionary_encode()
    return column.cast(pa.dictionary(pa.int32(), pa.string())).unify_dictionaries().combine_chunks()


def numbers(column: pa.ChunkedArray, path: Path) -> npt.NDArray[np.float64]:
    """Return numbers, NaN where a cell holds none."""
    column = _plain_text(column)
    kind = column.type
    if pa.types.is_string(kind):
        is_number = pc.match_substring_regex(column, _NUMBER)
        column = pc.utf8_trim_whitespace(pc.if_else(is_number, column, None))
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise SourceRefused(f"INPUT_FILE {path}: column ecg must hold numbers, got {kind}")
    # Not `safe`: that would refuse the whole file for one integer beyond 2⁵³.
    found: npt.NDArray[np.float64] = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found.astype(np.float64)
