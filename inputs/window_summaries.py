"""Window summaries in an output bucket, read back: they tell which windows were released, by whatever state folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa

from anonymizer.errors import SourceDenied, SourceUnavailable
from anonymizer.windows import HOUR_NS, Window
from inputs.flux_csv import TIME_TYPE, FluxError, FluxTable, UnreadableAnswer, read_tables, times_as_ns
from inputs.flux_text import flux_text
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
            flux = f'{self._select(part, "rows_released")} |> keep(columns: ["_time", "_value"]) |> group()'
            for table in self._ask(flux):
                times, rows = table.columns([("_time", TIME_TYPE), ("_value", pa.int64())])
                stated |= dict(zip(times_as_ns(times).to_pylist(), rows.to_pylist(), strict=True))
        return stated

    def _days(self, span: Window, field: str = "batch_id") -> Iterator[Window]:
        """Yield the days of the span that hold a summary, each from its first one on; years without any are passed over at once."""
        start_ns = span.start_ns
        while start_ns < span.end_ns:
            flux = f'{self._select(Window(start_ns, span.end_ns), field)} |> first() |> keep(columns: ["_time"])'
            first_ns = min((time for table in self._ask(flux) for time in _times(table)), default=span.end_ns)
            start_ns = min(first_ns + _SPAN_NS, span.end_ns)
            if first_ns < span.end_ns:
                yield Window(first_ns, start_ns)

    def _batch_ids(self, span: Window) -> list[str]:
        tables = self._ask(f'{self._select(span)} |> keep(columns: ["_value"]) |> group()')
        return [name for table in tables for name in table.texts("_value")]

    def _last_before(self, time_ns: int) -> list[str]:
        """Return the last batch id of each series before a time: windows of one data set never overlap, so only the last may be so long."""
        if time_ns <= _FIRST_TIME_NS:
            return []
        tables = self._ask(f'{self._select(Window(_FIRST_TIME_NS, time_ns))} |> last() |> keep(columns: ["_value"])')
        return [name for table in tables for name in table.texts("_value")]

    def _select(self, span: Window, field: str = "batch_id") -> str:
        return (
            f"from(bucket: {flux_text(self._bucket)}) |> range(start: time(v: {span.start_ns}), stop: time(v: {span.end_ns})) "
            f'|> filter(fn: (r) => r["_measurement"] == {flux_text(self._measurement)} and r["_field"] == {flux_text(field)})'
        )

    def _ask(self, flux: str) -> list[FluxTable]:
        url = self._connection.address.url
        try:
            return [table for table in read_tables(self._connection.query(flux)) if table.body]
        except InfluxFault as fault:
            if fault.is_unreachable_for_good:
                raise SourceDenied(f"InfluxDB at {url} cannot be reached: {fault}", was_reached=False) from None
            kind = SourceDenied if fault.is_denial else SourceUnavailable
            raise kind(f"InfluxDB at {url} does not tell what bucket {self._bucket!r} holds: {fault}") from None
        except (FluxError, UnreadableAnswer) as error:
            raise SourceUnavailable(f"InfluxDB at {url} broke off its answer: {error}") from None


def _from_earlier(span: Window) -> Window:
    start_ns = max(0 if span.start_ns >= 0 else _FIRST_TIME_NS, span.start_ns - _LOOK_BACK_NS)
    return Window(start_ns, span.end_ns)


def _times(table: FluxTable) -> list[int]:
    return [int(time) for time in times_as_ns(table.columns([("_time", TIME_TYPE)])[0]).to_pylist()]


def _window_of(batch_id: str, label: str) -> Window | None:
    """Return the window that a batch id names, if it is one of the data set's: `<label>-<start>-<end>`."""
    if not batch_id.startswith(f"{label}-"):
        return None
    start, _, end = batch_id.removeprefix(f"{label}-").partition("-")
    return Window(int(start), int(end)) if start.isdigit() and end.isdigit() and int(start) < int(end) else None
