"""Window summaries in an output bucket, read back: they tell which windows were released, by whatever state folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

from anonymizer.cohorts import is_among
from anonymizer.errors import SourceDenied, SourceUnavailable
from anonymizer.windows import HOUR_NS, Window
from inputs.influx_dialect import BrokenAnswer, Dialect
from inputs.influx_dialects import dialect_of
from transport.influx_connection import InfluxConnection, InfluxFault

#: A window is found by its start; one that began before a span may still reach into it. Those of other data sets may have begun later.
_LOOK_BACK_NS = HOUR_NS

#: So much time is asked for in one query.
_SPAN_NS = 24 * HOUR_NS

#: The first and the last time that InfluxDB can hold.
_FIRST_TIME_NS, _LAST_TIME_NS = -(2**63) + 2, 2**63 - 2


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
        self._claims = f"{measurement}_anonymized_claims"

    def released(self, labels: Collection[str], span: Window) -> list[Window]:
        """Return the windows of the data set that reach into the span and have a summary, in order.

        Args:
            labels: What the data set is called, or was, in batch ids.
            span: From when to when.

        Raises:
            SourceDenied: This token may not read the bucket.
            SourceUnavailable: The server does not answer.
        """
        return sorted(window for label, window in self._held(span) if is_among(label, labels))

    def labels(self, span: Window) -> dict[str, int]:
        """Return what data sets with summaries in the span are called, and where the last window of each ends; raises as `released`."""
        return _last_ends(self._held(span))

    def newest_labels(self) -> dict[str, int]:
        """Return what data sets are called whose summary is the last of its series, and where its window ends; raises as `released`."""
        return _last_ends(_windows_of(self._last_before(_LAST_TIME_NS)))

    def claims(self) -> list[str]:
        """Return the last claim of each service; raises as `released`."""
        with self._only_source_errors():
            return self._dialect.last_texts(self._bucket, self._claims, "claim", Window(_FIRST_TIME_NS, _LAST_TIME_NS))

    def _held(self, span: Window) -> list[tuple[str, Window]]:
        """Return the label and the window of each summary that reaches into the span."""
        earlier = _from_earlier(span)
        ids = {name for part in self._days(earlier) for name in self._batch_ids(part)}
        ids |= set(self._last_before(earlier.start_ns))
        return [one for one in _windows_of(ids) if one[1].end_ns > span.start_ns and one[1].start_ns < span.end_ns]

    def is_missing(self) -> bool:
        """Return whether the server says that there is no such bucket; one that exists and may not be read is not missing."""
        try:
            self._connection.bucket(self._bucket)
        except InfluxFault as fault:
            return fault.says_there_is_no_bucket
        return False

    def _days(self, span: Window) -> Iterator[Window]:
        """Yield the days of the span that hold a summary, each from its first one on; years without any are passed over at once."""
        start_ns = span.start_ns
        while start_ns < span.end_ns:
            with self._only_source_errors():
                found = self._dialect.first_times(self._bucket, self._measurement, "batch_id", Window(start_ns, span.end_ns))
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

    @cached_property
    def _dialect(self) -> Dialect:
        return dialect_of(self._connection)

    @contextmanager
    def _only_source_errors(self) -> Iterator[None]:
        """Translate what goes wrong while the server is asked."""
        address = self._connection.address
        url, org = address.url, address.org
        try:
            yield
        except InfluxFault as fault:
            # A database may be called "organization": versions 1 and 3 quote its name, and have no organizations.
            if fault.says_there_is_no_organization:
                # Not what a token may not read: with another organization the bucket may hold what nobody looked at.
                raise SourceDenied(
                    f"InfluxDB at {url} has no organization {org!r} ({fault}): check {address.org_setting}", was_reached=False
                ) from None
            if fault.is_unreachable_for_good or fault.needs_setting:
                raise SourceDenied(f"InfluxDB at {url} cannot be reached: {fault}", was_reached=False) from None
            kind = SourceDenied if fault.is_denial else SourceUnavailable
            raise kind(f"InfluxDB at {url} does not tell what bucket {self._bucket!r} holds: {fault}") from None
        except BrokenAnswer as error:
            raise SourceUnavailable(f"InfluxDB at {url} broke off its answer: {error}") from None


def _from_earlier(span: Window) -> Window:
    start_ns = max(0 if span.start_ns >= 0 else _FIRST_TIME_NS, span.start_ns - _LOOK_BACK_NS)
    return Window(start_ns, span.end_ns)


def _windows_of(batch_ids: Iterable[str]) -> Iterator[tuple[str, Window]]:
    """Yield the label and the window that each batch id names: `<label>-<start>-<end>`."""
    for name in batch_ids:
        label, *span = name.rsplit("-", 2)
        if len(span) == 2 and all(text.isdecimal() for text in span) and int(span[0]) < int(span[1]):
            yield label, Window(int(span[0]), int(span[1]))


def _last_ends(held: Iterable[tuple[str, Window]]) -> dict[str, int]:
    ends_ns: dict[str, int] = {}
    for label, window in held:
        ends_ns[label] = max(window.end_ns, ends_ns.get(label, window.end_ns))
    return ends_ns
