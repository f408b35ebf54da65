"""Formats a batch's columns as text, one column at a time.

All outputs share one format: times in RFC 3339 (UTC, nanoseconds), values always with a decimal point or exponent, so that no reader
infers integers from one window and floats from the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from anonymizer.batch import Batch, Certificate, Promise

#: Version of the API's payload and of the window summary.
SCHEMA_VERSION = "1"

#: The same of windows whose shape was removed. They have no k, and readers that only know the first version refuse them.
RHYTHM_SCHEMA_VERSION = "2"

#: Whole numbers up to this size are formatted as integers, with all digits.
_MOST_WHOLE = 2.0**53

#: ECG values are mostly whole microvolts, a few thousand at most: looking up their texts is faster than formatting them.
MOST_USUAL = 4096

#: The length of every time.
TIME_BYTES = 30

#: The same of `1762180200000000000\n`.
EPOCH_BYTES = 20

#: From here on the nanoseconds since the epoch have 19 digits, as many as any have.
LEAST_EPOCH_NS = 10**18

#: The parts of a second, and how many nanoseconds each of them counts.
_PARTS_OF_SECOND = {"milli": 1_000_000, "micro": 1000, "nano": 1}


@cache
def _usual_texts() -> pa.StringArray:
    """Return the texts of -4096.0 to 4096.0.

    Built on first use: with its first array pyarrow imports pandas, which commands block once they run (`service/process.py`).
    """
    return pa.array([f"{value}.0" for value in range(-MOST_USUAL, MOST_USUAL + 1)], pa.string())


def time_letters(times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    """Return times such as `2025-11-03T14:30:00.000000000Z`, each as `TIME_BYTES` characters, shape (n,)."""
    return _letters(times_ns, _second_letters, "Z")


def epoch_letters(times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    """Return times such as `1762180200000000000` with a line end, each as `EPOCH_BYTES` characters, shape (n,).

    Args:
        times_ns: Not before `LEAST_EPOCH_NS`.
    """
    return _letters(times_ns, lambda seconds: seconds.astype("S10").view("V10"), "\n")


def _letters(
    times_ns: npt.NDArray[np.int64], texts_of_seconds: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.void]], end: str
) -> npt.NDArray[np.void]:
    seconds = times_ns // 1_000_000_000
    rest = (times_ns - seconds * 1_000_000_000).astype(np.int32)
    # Neighbouring times mostly share their second.
    first = np.flatnonzero(np.diff(seconds, prepend=seconds[:1] - 1))
    texts = texts_of_seconds(seconds[first])
    written = np.empty(len(times_ns), dtype=_parts_of_time(texts.itemsize))
    written["second"] = np.repeat(texts, np.diff(first, append=len(seconds)))
    for part, unit in _PARTS_OF_SECOND.items():
        digits = rest // unit
        # In this order: the fourth of the characters is overwritten by the next part, but for the last one.
        written[part] = _three_digits(end).take(digits)
        rest -= digits * unit
    return written.view(f"V{written.itemsize}")


@cache
def _parts_of_time(second_bytes: int) -> np.dtype[np.void]:
    """Return the parts of a time, whose seconds take so many characters. They overlap by the character after three digits."""
    offsets = [0, *range(second_bytes, second_bytes + 9, 3)]
    return np.dtype(
        {
            "names": ["second", *_PARTS_OF_SECOND],
            "formats": [f"V{second_bytes}", "V4", "V4", "V4"],
            "offsets": offsets,
            "itemsize": second_bytes + 10,
        }
    )


def _second_letters(seconds: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    """Return times such as `2025-11-03T14:30:00.`, shape (n,)."""
    spaced = pc.cast(pa.array(seconds, pa.timestamp("s")), pa.string())
    letters = np.empty((len(spaced), 20), dtype=np.uint8)
    # Every text has 19 bytes, `2025-11-03 14:30:00`, so the buffer is a table of characters.
    letters[:, :19] = np.frombuffer(spaced.buffers()[2], dtype=np.uint8, count=19 * len(spaced)).reshape(len(spaced), 19)
    letters[:, 10] = ord("T")
    letters[:, 19] = ord(".")
    return letters.view("V20")[:, 0]


@cache
def _three_digits(end: str) -> npt.NDArray[np.void]:
    """Return `000` to `999`, each with one character behind it."""
    return np.array([f"{number:03}{end}" for number in range(1000)], dtype="S4").view("V4")


def time_texts(times_ns: npt.NDArray[np.int64]) -> pa.StringArray:
    """Return times such as `2025-11-03T14:30:00.000000000Z`, shape (n,)."""
    offsets = np.arange(0, TIME_BYTES * len(times_ns) + 1, TIME_BYTES, dtype=np.int32)
    return pa.StringArray.from_buffers(len(times_ns), pa.py_buffer(offsets), pa.py_buffer(time_letters(times_ns).data))


def time_text(time_ns: int) -> str:
    """Return one time in RFC 3339."""
    return str(time_texts(np.array([time_ns], dtype=np.int64))[0])


def value_texts(values_uv: npt.NDArray[np.float64]) -> pa.StringArray:
    """Return the shortest texts that parse as the same floats, each with a point or an exponent, shape (n,)."""
    most = np.abs(values_uv).max(initial=0.0)
    if most <= _MOST_WHOLE and (values_uv == np.trunc(values_uv)).all():
        if most <= MOST_USUAL:
            return pc.take(_usual_texts(), pa.array(values_uv.astype(np.int32) + MOST_USUAL))
        return pc.binary_join_element_wise(integer_texts(values_uv.astype(np.int64)), ".0", "")
    # Adding 0 turns -0.0 into 0.0, as the integer path above does.
    texts = pc.cast(pa.array(values_uv + 0.0), pa.string())
    return pc.if_else(pc.match_substring_regex(texts, "[.e]"), texts, pc.binary_join_element_wise(texts, ".0", ""))


def integer_texts(numbers: npt.NDArray[np.int64]) -> pa.StringArray:
    """Return whole numbers in decimal, shape (n,)."""
    return pc.cast(pa.array(numbers), pa.string())


def source_texts(source_index: npt.NDArray[np.int32], text_of_source: Sequence[str]) -> pa.StringArray:
    """Return each row's source text, shape (n,)."""
    return pc.take(pa.array(text_of_source, pa.string()), pa.array(source_index))


def joined(*parts: pa.StringArray | str) -> bytes:
    """Concatenate the parts of each row, and all rows."""
    return bytes(joined_rows(*parts)[0])


def joined_rows(*parts: pa.StringArray | str) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """Concatenate the parts of each row, and all rows; also return where each row ends, shape (n,)."""
    rows = pc.binary_join_element_wise(*parts, "")
    offsets = np.frombuffer(rows.buffers()[1], dtype=np.int32)[rows.offset : rows.offset + len(rows) + 1].astype(np.int64)
    return memoryview(rows.buffers()[2])[offsets[0] : offsets[-1]], offsets[1:] - offsets[0]


def window_start(batch: Batch) -> datetime:
    """Return the start of the batch's window, which is a whole second, in UTC."""
    return datetime.fromtimestamp(batch.window.start_ns // 1_000_000_000, UTC)


def summary_of(batch: Batch, *, partial: bool = False) -> dict[str, int | str | bool]:
    """Return the window summary: promise and counts, nothing that narrows down a row.

    It has no mean, error, correlation or level: with n = k = 2, mean and squared error give both raw values.

    Args:
        batch: The window, with its certificate.
        partial: Whether the destination refused some of its rows.
    """
    certificate = batch.certificate
    assert certificate is not None, "only certified batches reach an output"
    return {
        "schema": schema_version(batch.promise),
        "batch_id": batch.batch_id,
        "window_seconds": (batch.window.end_ns - batch.window.start_ns) // 1_000_000_000,
        "rows_read": batch.counts.read,
        "rows_released": batch.counts.released,
        "rows_withheld": batch.counts.withheld,
        "rows_invalid": batch.counts.invalid,
        "rows_duplicate": batch.counts.duplicate,
        **_promised(batch, certificate),
        "distinct_sources": certificate.distinct_sources,
        "settings_digest": batch.promise.settings_digest,
        "key_id": batch.promise.key_id,
        "partial": partial,
        # Only where it is so: the summaries of all other windows stay as they are.
        **({"erased": True} if batch.is_erased else {}),
    }


def schema_version(promise: Promise) -> str:
    """Return the version of summaries and payloads under a promise."""
    return RHYTHM_SCHEMA_VERSION if promise.template_digest else SCHEMA_VERSION


def _promised(batch: Batch, certificate: Certificate) -> dict[str, int | str | bool]:
    """Return what was promised, and counted for it: of groups, or of the public beat."""
    promise, counts = batch.promise, batch.counts
    if promise.k is None or promise.k_unit is None:
        return {"method": promise.method, "template_digest": promise.template_digest}
    return {
        "rows_starred": counts.starred,
        "rows_suppressed": counts.suppressed,
        "k": promise.k,
        "k_unit": promise.k_unit,
        "method": promise.method,
        "distinct_values": certificate.distinct_values,
        "smallest_group": certificate.smallest_group,
    }
