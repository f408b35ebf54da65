"""Text columns of a file, whatever type they have, and which of their cells hold nothing."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: What programs write where a measurement failed: missing, not a mistake.
_MISSING = r"(?i)^\s*(|#?n/?a|nat|null|none|[+-]?(nan(\(\w*\))?|inf(inity)?|1\.#(ind|inf|[qs]nan)\d*))\s*$"  # the last are C's


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text of any type as strings, because not all of Arrow's functions take every type; other columns as they are."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pc.cast(column, pa.string()) if is_text else column


def is_missing(texts: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which cells are null, empty, or say that there is no value."""
    missing: npt.NDArray[np.bool_] = pc.fill_null(pc.match_substring_regex(texts, _MISSING), True).to_numpy()
    return missing


def type_name(kind: pa.DataType) -> str:
    """Return what a type is called, without what it is made of: fields of a struct may be called after wearers."""
    return re.split(r"[^a-z0-9_]", str(kind), maxsplit=1)[0]


def without_values(error: Exception) -> str:
    """Return what is wrong with a file: Arrow quotes cells, which may be samples, and names files."""
    text = str(error)
    if "UTF8" in text or isinstance(error, UnicodeDecodeError):
        return "a text in it is not UTF-8"
    if "CRC checksum" in text or "checksum" in text.lower():
        return "a page does not have the checksum that was written with it, so its values are damaged"
    return text.split(":", 1)[0].split("'", 1)[0].strip() or type(error).__name__
