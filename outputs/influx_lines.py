"""A batch as InfluxDB's line protocol: a line a row, with nanosecond times, and one line for the window's summary."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch
from outputs.encoding import integer_texts, joined_rows, source_texts, summary_of, value_texts

#: Names that line protocol cannot carry: they would begin a comment, be skipped, end the line, or be read as an escape that was never
#: meant. The server would store the rows under another name, or answer 204 and store nothing.
UNWRITABLE_NAME = {
    "INFLUX_MEASUREMENT": re.compile(r"""^[#\t\0]|\n|\\[" ,=]"""),
    "INFLUX_FIELD": re.compile(r"""^[\t\0]|\n|\\[" ,=]|\\$|^time$"""),
    "SOURCE_TAG": re.compile(r"""^\0|\n|\\$|^(time|_field|_measurement)$"""),
}

#: Ids that line protocol cannot carry: it has no way to write a line end, nor an escape for the escape.
_UNWRITABLE_ID = re.compile(r"\n|\\$")


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxTarget:
    """Where rows go.

    Args:
        bucket: The output bucket.
        measurement: The input's measurement; ours are named after it.
        field: The field with the value.
        source_tag: The tag with the released id.
        lines_per_write: The most lines in one request.
        summary_tags: Tags of the windows' summaries, which keep those of several cohorts apart; rows have none of them.
    """

    bucket: str
    measurement: str
    field: str
    source_tag: str
    lines_per_write: int = 20_000
    summary_tags: tuple[tuple[str, str], ...] = ()

    @property
    def rows_measurement(self) -> str:
        """The measurement of the rows."""
        return f"{self.measurement}_anonymized"

    @property
    def windows_measurement(self) -> str:
        """The measurement of the windows' summaries."""
        return f"{self.measurement}_anonymized_windows"


@dataclass(frozen=True, eq=False)
class Lines:
    """The rows of a batch that line protocol can carry, a line each: source after source, each in the order of time.

    The server takes lines of one series in a row with a fifteenth less work than those of all series in turn.

    Args:
        text: All of them.
        ends: Where each ends in `text`, shape (n,), int64.
        rows: Which row of the batch each is, shape (n,), int64.
        times_ns: Its time, shape (n,), int64.
        source_index: Its source, shape (n,), int32.
    """

    text: memoryview
    ends: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    times_ns: npt.NDArray[np.int64]
    source_index: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, picked: npt.NDArray[np.int64]) -> bytes:
        """Return some of the lines, given by their ascending numbers."""
        first, last = int(picked[0]), int(picked[-1])
        if last - first == len(picked) - 1:
            return bytes(self.text[self._start(first) : int(self.ends[last])])
        return b"".join(self.text[self._start(number) : int(self.ends[number])] for number in picked.tolist())

    def sizes(self, picked: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return how many bytes each of some lines has, shape (len(picked),)."""
        return np.diff(self.ends, prepend=0)[picked]

    def _start(self, number: int) -> int:
        return int(self.ends[number - 1]) if number else 0


def encode_rows(batch: Batch, target: InfluxTarget) -> bytes:
    """Return the text of `lines_of`."""
    return bytes(lines_of(batch, target).text)


def lines_of(batch: Batch, target: InfluxTarget) -> Lines:
    """Return the batch's rows, without those whose source id line protocol cannot carry."""
    measurement, tag, field = escaped_measurement(target.rows_measurement), _key(target.source_tag), _key(target.field)
    writable = np.array([not _UNWRITABLE_ID.search(name) for name in batch.source_ids], dtype=bool)
    starts = [
        f"{measurement},{tag}={_key(name)} {field}=" if is_writable else ""
        for name, is_writable in zip(batch.source_ids, writable.tolist(), strict=True)
    ]
    rows = _by_source(batch)
    if not writable.all():
        rows = rows[writable[batch.source_index[rows]]]
    times_ns, source_index, values_uv = batch.times_ns[rows], batch.source_index[rows], batch.values_uv[rows]
    if not len(rows):
        return Lines(memoryview(b""), rows, rows, times_ns, source_index)
    text, ends = joined_rows(source_texts(source_index, starts), value_texts(values_uv), " ", integer_texts(times_ns), "\n")
    return Lines(text, ends, rows, times_ns, source_index)


def _by_source(batch: Batch) -> npt.NDArray[np.int64]:
    few = len(batch.source_ids) <= np.iinfo(np.uint16).max
    # Numbers this short are sorted in one pass.
    return np.argsort(batch.source_index.astype(np.uint16) if few else batch.source_index, kind="stable")


def encode_summary(batch: Batch, target: InfluxTarget, *, partial: bool = False) -> bytes:
    """Return the window's summary as one line, at the window's start.

    Args:
        batch: The window.
        target: For the measurement's name.
        partial: Whether rows of it were refused.
    """
    summary = summary_of(batch, partial=partial)
    fields = ",".join(f"{name}={_field_value(value)}" for name, value in summary.items())
    tags = "".join(f",{_key(tag)}={_key(value)}" for tag, value in target.summary_tags)
    return f"{escaped_measurement(target.windows_measurement)}{tags} {fields} {batch.window.start_ns}\n".encode()


def escaped_measurement(text: str) -> str:
    """Return a measurement's name as line protocol has it."""
    return text.replace(",", "\\,").replace(" ", "\\ ")


def _key(text: str) -> str:
    return escaped_measurement(text).replace("=", "\\=")


def _field_value(value: int | str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
