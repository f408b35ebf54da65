"""Text columns of any Arrow type: normalization, missing cells, and error texts that quote no cell."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: What programs write for a failed measurement. Such a cell is missing, not an error.
_MISSING = r"(?i)^\s*(|#?n/?a|nat|null|none|[+-]?(nan(\(\w*\))?|inf(inity)?|1\.#(ind|inf|[qs]nan)\d*))\s*$"  # the last are C's


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a text column of any type as strings, since some of Arrow's functions take no other; other columns unchanged."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pc.cast(column, pa.string()) if is_text else column


def is_missing(texts: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which cells are null, empty, or a marker such as `NaN`, shape (n,), bool."""
    missing: npt.NDArray[np.bool_] = pc.fill_null(pc.match_substring_regex(texts, _MISSING), True).to_numpy()
    return missing


def type_name(kind: pa.DataType) -> str:
    """Return a type's name without its parameters: fields of a struct may be named after wearers."""
    return re.split(r"[^a-z0-9_]", str(kind), maxsplit=1)[0]


def without_values(error: Exception) -> str:
    """Return an error's text without what Arrow quotes: cells, which may be samples, and file names."""
    text = str(error)
    if "UTF8" in text or isinstance(error, UnicodeDecodeError):
        return "a text in it is not UTF-8"
    if "CRC checksum" in text or "checksum" in text.lower():
        return "a page does not have the checksum that was written with it, so its values are damaged"
    return text.split(":", 1)[0].split("'", 1)[0].strip() or type(error).__name__
