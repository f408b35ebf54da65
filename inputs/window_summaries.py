"""Window summaries in an output bucket, read back: they tell which windows were released, by whatever state folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from anonymizer.errors import SourceDenied, SourceUnavailable
from anonymizer.windows import HOUR_NS, Window
from inputs.influx_dialect import BrokenAnswer, Dialect
from inputs.influx_dialects import dialect_of
from transport.influx_connection import InfluxConnection, InfluxFault

#: A window is found by its start; one that began before a span may still reach into it. Those of other data sets may have begun later.
_LOOK_BACK_NS = HOUR_NS

#: So much time is asked for in one query.
_SPAN_NS = 24 * HOUR_NS

#: The first time that InfluxDB can hold.
_FIRST_TIME_NS = -(2**63) + 2


class WindowSummaries:
    """The summaries beside anonymized rows.

    Args:
        connection: With a token that may read the output bucket.
        bucket: The output bucket.
        measurement: INFLUX_MEASUREMENT, after which the summaries' measurement is named.
    """

    def __init__(self, connection: InfluxConnection, *, bucket: str, measurement: str) -> None:
        self._connection = connection
        self._bucket = bucket
        self._measurement = f"{measurement}_anonymized_windows"
        self._found_dialect: Dialect | None = None

    def released(self, labels: Collection[str], span: Window) -> list[Window]:
        """Return the windows of the data set that reach into the span and have a summary, in order.

        Args:
            labels: What the data set is called, or was, in batch ids.
            span: From when to when.

        Raises:
            SourceDenied: This token may not read the bucket.
            SourceUnavailable: The server does not answer.
        """
        earlier = _from_earlier(span)
        ids = {name for part in self._days(earlier) for name in self._batch_ids(part)}
        ids |= set(self._last_before(earlier.start_ns))
        windows = (_window_of(name, label) for name in ids for label in labels)
        return sorted(window for window in windows if window and window.end_ns > span.start_ns and window.start_ns < span.end_ns)

    def is_missing(self) -> bool:
        """Return whether the server says that there is no such bucket; one that exists and may not be read is not missing."""
        try:
            self._connection.bucket(self._bucket)
        except InfluxFault as fault:
            return fault.says_there_is_no_bucket
        return False

    def rows_released(self, span: Window) -> dict[int, int]:
        """Return how many released rows each summary in the span states, by the window's start. Raises as `released` does."""
        stated: dict[int, int] = {}
        for part in self._days(span, "rows_released"):
            with self._only_source_errors():
                stated |= self._dialect.whole_numbers(self._bucket, self._measurement, "rows_released", part)
        return stated

    def _days(self, span: Window, field: str = "batch_id") -> Iterator[Window]:
        """Yield the days of the span that hold a summary, each from its first one on; years without any are passed over at once."""
        start_ns = span.start_ns
        while start_ns < span.end_ns:
            with self._only_source_errors():
                found = self._dialect.first_times(self._bucket, self._measurement, field, Window(start_ns, span.end_ns))
            first_ns = min(found, default=span.end_ns)
            start_ns = min(first_ns + _SPAN_NS, span.end_ns)
            if first_ns < span.end_ns:
                yield Window(first_ns, start_ns)

    def _batch_ids(self, span: Window) -> list[str]:
        with self._only_source_errors():
            return self._dialect.texts(self._bucket, self._measurement, "batch_id", span)

    def _last_before(self, time_ns: int) -> list[str]:
        """Return the last batch id of each series before a time: windows of one data set never overlap, so only the last may be so long."""
        if time_ns <= _FIRST_TIME_NS:
            return []
        with self._only_source_errors():
            return self._dialect.last_texts(self._bucket, self._measurement, "batch_id", Window(_FIRST_TIME_NS, time_ns))

    @property
    def _dialect(self) -> Dialect:
        """How the server is asked; which that is, it says itself. Raises InfluxFault."""
        if self._found_dialect is None:
            self._found_dialect = dialect_of(self._connection)
        return self._found_dialect

    @contextmanager
    def _only_source_errors(self) -> Iterator[None]:
        """Translate what goes wrong while the server is asked."""
        url = self._connection.address.url
        try:
            yield
        except InfluxFault as fault:
            if fault.is_unreachable_for_good or fault.needs_setting:
                raise SourceDenied(f"InfluxDB at {url} cannot be reached: {fault}", was_reached=False) from None
            kind = SourceDenied if fault.is_denial else SourceUnavailable
            raise kind(f"InfluxDB at {url} does not tell what bucket {self._bucket!r} holds: {fault}") from None
        except BrokenAnswer as error:
            raise SourceUnavailable(f"InfluxDB at {url} broke off its answer: {error}") from None


def _from_earlier(span: Window) -> Window:
    start_ns = max(0 if span.start_ns >= 0 else _FIRST_TIME_NS, span.start_ns - _LOOK_BACK_NS)
    return Window(start_ns, span.end_ns)


def _window_of(batch_id: str, label: str) -> Window | None:
    """Return the window that a batch id names, if it is one of the data set's: `<label>-<start>-<end>`."""
    if not batch_id.startswith(f"{label}-"):
        return None
    start, _, end = batch_id.removeprefix(f"{label}-").partition("-")
    return Window(int(start), int(end)) if start.isdigit() and end.isdigit() and int(start) < int(end) else None
