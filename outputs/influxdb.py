"""InfluxDB: the rows in `<measurement>_anonymized`, and one summary point a window in `<measurement>_anonymized_windows`.

Delivery: stored once, however often it is sent: the same point written again replaces itself, and the bytes of a batch never change.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, OutputDenied, OutputError, OutputUnavailable
from anonymizer.ports import Receipt
from outputs.influx_lines import (
    UNWRITABLE_NAME,
    InfluxTarget,
    Lines,
    Picked,
    encode_rows,
    encode_summary,
    escaped_measurement,
    lines_of,
    requests_of,
)
from outputs.influx_refusals import Refused, RowByRow, Why
from transport.addresses import canonical_address
from transport.influx_connection import InfluxConnection, InfluxFault

__all__ = ["InfluxOutput", "InfluxTarget", "encode_rows", "encode_summary"]

#: Requests are encoded and sent at a time while they have no more than so many rows together: their text takes a hundred bytes per row.
_ROWS_UNDER_WAY = 500_000

#: Batches are stored together up to so many requests: the server has less work with full requests than with one per window, and with one
#: request for several summaries.
_REQUESTS_TOGETHER = 2

#: A refusal of fewer lines as too large says nothing of others: one of them may be very long.
_FEWEST_LINES = 1000

#: A server that answers so many requests at a time gets each from a thread of its own, since it answers late.
_MANY_AT_A_TIME = 4

#: What is wrong with rows that the server is not even asked about.
_UNWRITABLE = (
    "of sources whose id line protocol cannot carry: with a line end, or a backslash last (set PSEUDONYMIZE_SOURCE_ID=true)"
)


class _Room:
    """Bounds the memory that the text of requests takes."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._changed = threading.Condition()

    @contextmanager
    def of(self, rows: int) -> Iterator[None]:
        """Wait until there is room for a request, and keep it. There is always room for one."""
        with self._changed:
            self._changed.wait_for(lambda: not self._rows or sum(self._rows) + rows <= _ROWS_UNDER_WAY)
            self._rows.append(rows)
        try:
            yield
        finally:
            with self._changed:
                self._rows.remove(rows)
                self._changed.notify_all()


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
        #: Less than the target's once the server, or a proxy before it, has refused so many as too large.
        self._most_lines = target.lines_per_write
        self._allow_requests(connection.writes_at_a_time)
        self._room = _Room()
        self.name = f"influxdb:{canonical_address(f'{connection.address.url}/{target.bucket}')}"

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """See that the bucket can be written to, under names that line protocol can carry."""
        for setting, name in self._names():
            if UNWRITABLE_NAME[setting].search(name):
                raise OutputDenied(f"InfluxDB cannot store rows under {setting}={name!r}: choose another name")
        self._probe()
        self._allow_requests(self._connection.writes_at_a_time)

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log."""
        return self._target.bucket

    def intent(self, batch: Batch) -> None:
        """Return None: a point written again replaces itself."""

    def write(self, batch: Batch) -> None:
        """Store all rows, then the summary: a window with a summary is complete, unless that says `partial`.

        Rows that the server will never take are found one by one, and all others stored.
        """
        lines = lines_of([batch], self._target)
        # One request more than are sent at a time, so that the next is encoded meanwhile.
        by_row = RowByRow(lines, partial(self._send_some, lines), concurrency=self._connection.writes_at_a_time + 1)
        by_row.store(self._most_lines)
        if not by_row.refused and len(lines) == len(batch):
            self._send_summary(batch, partial=False)
            return
        is_stored = np.zeros(len(batch), dtype=bool)
        is_stored[lines.rows] = True
        is_stored[lines.rows[sorted(by_row.refused)]] = False
        if not is_stored.any():
            raise self._nothing_stored(batch, by_row.refused.values())
        # Those that the server refused, and those that it was not asked about.
        refused_rows = np.flatnonzero(~is_stored).tolist()
        self._send_summary(batch, partial=bool(refused_rows))
        if refused_rows:
            raise self._rejected(batch, by_row.refused.values(), rows=refused_rows)

    def write_together(self, batches: Sequence[Batch]) -> bool:
        """Store the rows of all batches in full requests, then all summaries. Return False if the server refuses anything of it."""
        lines = lines_of(batches, self._target)
        if len(lines) < sum(map(len, batches)):
            return False
        try:
            for picked in requests_of(len(lines), self._most_lines):
                self._send_rows(lines, picked, picked.stop - picked.start)
            self._send(b"".join(encode_summary(batch, self._target) for batch in batches))
        except Refused:
            return False
        return True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _allow_requests(self, at_a_time: int) -> None:
        self._under_way = threading.BoundedSemaphore(at_a_time)
        # One more batch is made ready meanwhile.
        self.concurrency = at_a_time + 1
        self.rows_together = self._target.lines_per_write * (1 if at_a_time >= _MANY_AT_A_TIME else _REQUESTS_TOGETHER)

    def _names(self) -> tuple[tuple[str, str], ...]:
        target = self._target
        return ("INFLUX_MEASUREMENT", target.measurement), ("INFLUX_FIELD", target.field), ("SOURCE_TAG", target.source_tag)

    def _known_names(self) -> tuple[str, ...]:
        target = self._target
        return target.bucket, target.rows_measurement, target.windows_measurement, target.field, target.source_tag

    def _probe(self) -> None:
        try:
            self._connection.try_to_write(self._target.bucket)
        except InfluxFault as fault:
            refusal = self._translated(fault)
            if not isinstance(refusal, Refused):
                raise refusal from None
            raise OutputDenied(
                f"InfluxDB at {self._url} refuses even a comment ({refusal.message}): is this an InfluxDB? Check INFLUX_OUTPUT_URL"
            ) from None

    def _send_summary(self, batch: Batch, *, partial: bool) -> None:
        try:
            self._send(encode_summary(batch, self._target, partial=partial))
        except Refused as refusal:
            # The window's start may be older than the bucket keeps rows when its end is not yet.
            if refusal.why is not Why.TOO_OLD:
                raise OutputDenied(
                    f"InfluxDB at {self._url} does not take the summaries of windows (measurement "
                    f"{self._target.windows_measurement!r} in bucket {self._target.bucket!r}): {refusal.message}. Write to another bucket "
                    "(INFLUX_OUTPUT_BUCKET), or remove what is there under this name"
                ) from None

    def _send_some(self, lines: Lines, picked: npt.NDArray[np.int64]) -> None:
        self._send_rows(lines, picked, len(picked))

    def _send_rows(self, lines: Lines, picked: Picked, rows: int) -> None:
        with self._room.of(rows):
            try:
                self._send(lines.of(picked))
            except Refused as refusal:
                if refusal.why is Why.TOO_LARGE and rows // 2 >= _FEWEST_LINES:
                    self._most_lines = min(self._most_lines, rows // 2)
                raise

    def _send(self, lines: bytes | memoryview) -> None:
        """Store lines.

        Raises:
            Refused: They will never be taken together.
            OutputUnavailable: They cannot be taken now.
        """
        try:
            with self._under_way:
                self._connection.write(self._target.bucket, lines)
        except InfluxFault as fault:
            raise self._translated(fault) from None

    def _translated(self, fault: InfluxFault) -> OutputError | Refused:
        bucket, said = self._target.bucket, self._without_rows(str(fault))
        if fault.needs_setting:
            return OutputDenied(f"InfluxDB at {self._url} cannot be written to: {fault}")
        if fault.is_unreachable_for_good:
            return OutputDenied(f"InfluxDB at {self._url} cannot be reached: {fault}")
        if fault.is_denial:
            return OutputDenied(
                f"InfluxDB at {self._url} does not let us write to bucket {bucket!r} ({said}): "
                "check INFLUX_OUTPUT_URL, INFLUX_OUTPUT_TOKEN, INFLUX_OUTPUT_ORG and INFLUX_OUTPUT_BUCKET"
            )
        if fault.status == 413:
            return Refused(Why.TOO_LARGE, said)
        if fault.status in (400, 422):
            return Refused(_why(said), said)
        return OutputUnavailable(f"InfluxDB at {self._url} cannot be written to: {said}", retry_after_s=fault.retry_after_s)

    def _nothing_stored(self, batch: Batch, refusals: Collection[Refused]) -> OutputError:
        reasons = {refusal.why for refusal in refusals}
        if reasons == {Why.TYPE}:
            target = self._target
            return OutputDenied(
                f"InfluxDB at {self._url} has field {target.field!r} of measurement {target.rows_measurement!r} in bucket "
                f"{target.bucket!r} as another type than float ({next(iter(refusals)).message}): write to another bucket "
                "(INFLUX_OUTPUT_BUCKET), or remove the rows of that type from this one"
            )
        if Why.MALFORMED in reasons:
            # A server that refuses everything has another reason than our rows.
            self._probe()
        return self._rejected(batch, refusals, rows=None)

    def _rejected(self, batch: Batch, refusals: Collection[Refused], *, rows: Sequence[int] | None) -> BatchRejected:
        count = len(batch) if rows is None else len(rows)
        reasons = Counter(
            f"{refusal.why.value} ({refusal.message})" if refusal.why is Why.MALFORMED else refusal.why.value
            for refusal in refusals
        )
        if unwritable := count - len(refusals):
            reasons[_UNWRITABLE] = unwritable
        account = "; ".join(f"{number} {reason}" for reason, number in reasons.items())
        return BatchRejected(
            f"InfluxDB at {self._url} will not take {count} of {len(batch)} rows for bucket {self._target.bucket!r}: {account}",
            rows=rows,
        )

    @property
    def _url(self) -> str:
        return self._connection.address.url

    def _without_rows(self, message: str) -> str:
        """Return what the server says without rows, which it quotes: `unable to parse 'ecg,source_id=…': missing fields`."""
        unquoted = re.sub(r"(?<!\w)'.*('|$)", "'…'", message)
        # Or `max-values-per-tag limit exceeded: measurement="ecg_anonymized" tag="source_id" value="…"`; our own names stay.
        names = "|".join(re.escape(f'"{name}"') for name in self._known_names())
        unquoted = re.sub(rf'({names})|".*("|$)', lambda found: found[1] or '"…"', unquoted)
        # Or `dropped 1 points outside retention policy of duration 1h0m0s - oldest point ecg_anonymized,source_id=…`.
        for beginning in (" - oldest point", f"{escaped_measurement(self._target.rows_measurement)},"):
            unquoted = unquoted.partition(beginning)[0]
        return unquoted


def _why(said: str) -> Why:
    if "retention policy" in said:
        return Why.TOO_OLD
    return Why.TYPE if "field type conflict" in said else Why.MALFORMED
