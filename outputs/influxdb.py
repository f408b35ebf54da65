"""InfluxDB 2: the rows in `<measurement>_anonymized`, and one summary point a window in `<measurement>_anonymized_windows`.

Delivery: stored once, however often it is sent: the same point written again replaces itself, and the bytes of a batch never change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, OutputDenied, OutputError, OutputUnavailable
from anonymizer.ports import Receipt
from outputs.encoding import integer_texts, joined, source_texts, summary_of, value_texts
from transport.influxdb import InfluxConnection, InfluxFault

#: A write that stores nothing and yet tells whether token, organization and bucket are good.
_PROBE = b"# probe"

#: Names that line protocol cannot carry: they would begin a comment, be skipped, end the line, or be read as an escape that was never
#: meant. The server would store the rows under another name, or answer 204 and store nothing.
_UNWRITABLE_NAME = {
    "INFLUX_MEASUREMENT": re.compile(r"""^[#\t\0]|\n|\\[" ,=]"""),
    "INFLUX_FIELD": re.compile(r"""^[\t\0]|\n|\\[" ,=]|\\$|^time$"""),
    "SOURCE_TAG": re.compile(r"""^\0|\n|\\$|^(time|_field|_measurement)$"""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxTarget:
    """Where rows go.

    Args:
        bucket: The output bucket.
        measurement: The input's measurement; ours are named after it.
        field: The field with the value.
        source_tag: The tag with the released id.
        lines_per_write: The most lines in one request.
    """

    bucket: str
    measurement: str
    field: str
    source_tag: str
    lines_per_write: int = 20_000


class InfluxOutput:
    """Writes line protocol, synchronously; values always as floats.

    Args:
        connection: With a token that may write the bucket; it need not be able to read anything.
        target: Where to.
    """

    kind = "influxdb"

    def __init__(self, connection: InfluxConnection, target: InfluxTarget) -> None:
        self._connection = connection
        self._target = target
        self.name = f"influxdb:{connection.address.url}/{target.bucket}"

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """See that the bucket can be written to, under names that line protocol can carry."""
        for setting, name in self._names():
            if _UNWRITABLE_NAME[setting].search(name):
                raise OutputDenied(f"InfluxDB cannot store rows under {setting}={name!r}: choose another name")
        try:
            self._send(_PROBE)
        except BatchRejected as error:
            raise OutputDenied(f"{error}: is this an InfluxDB 2? Check INFLUX_OUTPUT_URL") from None

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log."""
        return self._target.bucket

    def intent(self, batch: Batch) -> None:
        """Return None: a point written again replaces itself."""

    def write(self, batch: Batch) -> None:
        """Store all rows, then the summary: a window with a summary is complete."""
        for lines in _requests(encode_rows(batch, self._target), self._target.lines_per_write):
            self._send_in_parts(lines)
        self._send_in_parts(encode_summary(batch, self._target))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _names(self) -> tuple[tuple[str, str], ...]:
        target = self._target
        return ("INFLUX_MEASUREMENT", target.measurement), ("INFLUX_FIELD", target.field), ("SOURCE_TAG", target.source_tag)

    def _send_in_parts(self, lines: bytes) -> None:
        """Send lines, and where that is too much at once for the server or a proxy before it, each half by itself."""
        try:
            self._send(lines)
        except _TooLarge:
            if lines.count(b"\n") == 1:
                raise
            for half in _requests(lines, -(-lines.count(b"\n") // 2)):
                self._send_in_parts(half)

    def _send(self, lines: bytes) -> None:
        try:
            self._connection.write(self._target.bucket, lines)
        except InfluxFault as fault:
            raise self._as_output_error(fault) from None

    def _as_output_error(self, fault: InfluxFault) -> OutputError:
        url, bucket = self._connection.address.url, self._target.bucket
        if fault.is_denial:
            return OutputDenied(
                f"InfluxDB at {url} does not let us write to bucket {bucket!r} ({fault}): "
                "check INFLUX_OUTPUT_URL, INFLUX_OUTPUT_TOKEN, INFLUX_OUTPUT_ORG and INFLUX_OUTPUT_BUCKET"
            )
        if fault.status == 413:
            return _TooLarge(f"InfluxDB at {url} takes no request as small as a row for bucket {bucket!r}: {fault}")
        if fault.status in (400, 422):
            return BatchRejected(f"InfluxDB at {url} refuses rows for bucket {bucket!r}: {_without_rows(str(fault))}")
        return OutputUnavailable(f"InfluxDB at {url} cannot be written to: {fault}", retry_after_s=fault.retry_after_s)


class _TooLarge(BatchRejected):
    """The server wants smaller requests; final only for a single row."""


def encode_rows(batch: Batch, target: InfluxTarget) -> bytes:
    """Return the batch's rows as line protocol with nanosecond times.

    Raises:
        BatchRejected: A source id cannot be written in line protocol.
    """
    measurement = _measurement(f"{target.measurement}_anonymized")
    tag, field = _key(target.source_tag), _key(target.field)
    # An id that has no row here must not keep the batch from being written.
    used = set(batch.source_index.tolist())
    starts = [
        f"{measurement},{tag}={_tag_value(name)} {field}=" if index in used else "" for index, name in enumerate(batch.source_ids)
    ]
    return joined(
        source_texts(batch.source_index, starts), value_texts(batch.values_uv), " ", integer_texts(batch.times_ns), "\n"
    )


def encode_summary(batch: Batch, target: InfluxTarget) -> bytes:
    """Return the window's summary as one line, at the window's start."""
    measurement = _measurement(f"{target.measurement}_anonymized_windows")
    fields = ",".join(f"{name}={_field_value(value)}" for name, value in summary_of(batch).items())
    return f"{measurement} {fields} {batch.window.start_ns}\n".encode()


def _requests(lines: bytes, most: int) -> Iterator[bytes]:
    """Yield the lines in parts of at most `most`."""
    ends = np.flatnonzero(np.frombuffer(lines, dtype=np.uint8) == ord("\n"))[most - 1 :: most] + 1
    start = 0
    for end in [*ends.tolist(), len(lines)]:
        if end > start:
            yield lines[start:end]
        start = end


def _measurement(text: str) -> str:
    return text.replace(",", "\\,").replace(" ", "\\ ")


def _key(text: str) -> str:
    return _measurement(text).replace("=", "\\=")


def _tag_value(text: str) -> str:
    # Line protocol has no way to write these (there is no escape for the escape).
    if "\n" in text or text.endswith("\\"):
        raise BatchRejected(
            "a source id holds a line end or ends in a backslash, which InfluxDB's line protocol cannot carry; "
            "set PSEUDONYMIZE_SOURCE_ID=true"
        )
    return _key(text)


def _field_value(value: int | str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _without_rows(message: str) -> str:
    """Return what the server says of a row without the row, which it quotes: `unable to parse 'ecg,source_id=…': missing fields`."""
    return re.sub(r"'.*('|$)", "'…'", message)
