"""Turns a batch's columns into text, a column at a time.

One form for every output: times in RFC 3339 (UTC, nanoseconds), values with a decimal point always, so that no reader, database or
spreadsheet takes a window of whole numbers for integers and the next one for floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from anonymizer.batch import Batch

#: Version of the API's payload and of the window summary.
SCHEMA_VERSION = "1"

#: Whole numbers up to here are written with all their digits by way of integers.
_MOST_WHOLE = 2.0**53

#: Values of ECG are whole microvolts of some thousands at most; looking their text up is quicker than writing it.
_MOST_USUAL = 4096


@cache
def _usual_texts() -> pa.StringArray:
    """Return the texts of usual values, the lowest first.

    Made when it is first needed: with its first array pyarrow looks for pandas, which commands keep out once they run
    (`service/process.py`).
    """
    return pa.array([f"{value}.0" for value in range(-_MOST_USUAL, _MOST_USUAL + 1)], pa.string())


def time_texts(times_ns: npt.NDArray[np.int64]) -> pa.StringArray:
    """Return times such as `2025-11-03T14:30:00.000000000Z`, shape (n,)."""
    spaced = pc.cast(pa.array(times_ns, pa.timestamp("ns")), pa.string())
    # Each is 29 bytes, `2025-11-03 14:30:00.000000000`, one after the other: a table of characters.
    letters = np.frombuffer(spaced.buffers()[2], dtype=np.uint8, count=29 * len(spaced)).reshape(len(spaced), 29)
    written = np.empty((len(spaced), 30), dtype=np.uint8)
    written[:, :29] = letters
    written[:, 10] = ord("T")
    written[:, 29] = ord("Z")
    offsets = np.arange(0, written.size + 1, 30, dtype=np.int32)
    return pa.StringArray.from_buffers(len(spaced), pa.py_buffer(offsets), pa.py_buffer(written))


def time_text(time_ns: int) -> str:
    """Return one time in RFC 3339."""
    return str(time_texts(np.array([time_ns], dtype=np.int64))[0])


def value_texts(values_uv: npt.NDArray[np.float64]) -> pa.StringArray:
    """Return the shortest text that reads back as the same float, with a point or an exponent in it, shape (n,)."""
    most = np.abs(values_uv).max(initial=0.0)
    if most <= _MOST_WHOLE and (values_uv == np.trunc(values_uv)).all():
        if most <= _MOST_USUAL:
            return pc.take(_usual_texts(), pa.array(values_uv.astype(np.int32) + _MOST_USUAL))
        return pc.binary_join_element_wise(integer_texts(values_uv.astype(np.int64)), ".0", "")
    # Adding 0 makes a negative zero a plain one, which the way above does too.
    texts = pc.cast(pa.array(values_uv + 0.0), pa.string())
    return pc.if_else(pc.match_substring_regex(texts, "[.e]"), texts, pc.binary_join_element_wise(texts, ".0", ""))


def integer_texts(numbers: npt.NDArray[np.int64]) -> pa.StringArray:
    """Return whole numbers in decimal, shape (n,)."""
    return pc.cast(pa.array(numbers), pa.string())


def source_texts(source_index: npt.NDArray[np.int32], text_of_source: Sequence[str]) -> pa.StringArray:
    """Return for each row the text of its source, shape (n,)."""
    return pc.take(pa.array(text_of_source, pa.string()), pa.array(source_index))


def joined(*parts: pa.StringArray | str) -> bytes:
    """Return all rows' parts, one after the other."""
    return bytes(joined_rows(*parts)[0])


def joined_rows(*parts: pa.StringArray | str) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """Return all rows' parts, one after the other, and where each row ends, shape (n,)."""
    rows = pc.binary_join_element_wise(*parts, "")
    offsets = np.frombuffer(rows.buffers()[1], dtype=np.int32)[rows.offset : rows.offset + len(rows) + 1].astype(np.int64)
    return memoryview(rows.buffers()[2])[offsets[0] : offsets[-1]], offsets[1:] - offsets[0]


def window_start(batch: Batch) -> datetime:
    """Return the start of the batch's window, which is a whole second, in UTC."""
    return datetime.fromtimestamp(batch.window.start_ns // 1_000_000_000, UTC)


def summary_of(batch: Batch, *, partial: bool = False) -> dict[str, int | str | bool]:
    """Return the window summary: what was promised and counted, nothing that could narrow a row.

    Args:
        batch: The window, with its certificate.
        partial: Whether some of its rows were refused where the summary goes.

    No mean, error, correlation or level: with n = k = 2, mean and squared error give both raw values.
    """
    certificate = batch.certificate
    assert certificate is not None, "only certified batches reach an output"
    return {
        "schema": SCHEMA_VERSION,
        "batch_id": batch.batch_id,
        "window_seconds": (batch.window.end_ns - batch.window.start_ns) // 1_000_000_000,
        "rows_read": batch.counts.read,
        "rows_released": batch.counts.released,
        "rows_withheld": batch.counts.withheld,
        "rows_invalid": batch.counts.invalid,
        "rows_duplicate": batch.counts.duplicate,
        "rows_starred": batch.counts.starred,
        "rows_suppressed": batch.counts.suppressed,
        "k": batch.promise.k,
        "k_unit": batch.promise.k_unit,
        "method": batch.promise.method,
        "distinct_values": certificate.distinct_values,
        "smallest_group": certificate.smallest_group,
        "distinct_sources": certificate.distinct_sources,
        "settings_digest": batch.promise.settings_digest,
        "key_id": batch.promise.key_id,
        "partial": partial,
    }
