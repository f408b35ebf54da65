"""Windows released with another or a lost state folder, found by their summaries in the output bucket or Parquet files."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from anonymizer.errors import ConfigurationError, SourceDenied, SourceUnavailable
from anonymizer.windows import HOUR_NS, Window
from service.log_event import LogEvent
from service.retry import Retry
from service.state.intervals import merged, missing
from service.state.journal import Journal
from service.time_texts import span_text

#: All of time: InfluxDB has no later timestamps.
ANY_TIME = Window(0, 2**63 - 2)

#: Gaps within this time are covered by one query.
_DAY_NS = 24 * HOUR_NS

_BUCKET_MISSING = LogEvent(
    "bucket_missing", "Bucket %r does not exist yet, so it holds no releases unknown to STATE_DIR", "bucket"
)
_BUCKET_NOT_READABLE = LogEvent(
    "bucket_not_readable",
    "This token cannot read bucket %r, so its content is not compared with STATE_DIR",
    "bucket",
)
_BUCKET_NOT_READABLE_AT_FIRST = LogEvent(
    "bucket_not_readable_at_first",
    "⚠️ STATE_DIR knows of no release, and this token cannot read bucket %r: windows that were released with another STATE_DIR would "
    "be released again. Set INFLUX_VERIFY_TOKEN to a token that may read the bucket",
    "bucket",
    logging.WARNING,
)
_BUCKET_NOT_COMPARED = LogEvent(
    "bucket_not_compared", "⚠️ The content of bucket %r is not compared with STATE_DIR: %s", "bucket reason", logging.WARNING
)
_PARQUET_NOT_READABLE = LogEvent(
    "parquet_not_readable",
    "These keys cannot read PARQUET_URL, so its content is not compared with STATE_DIR",
)
_PARQUET_NOT_READABLE_AT_FIRST = LogEvent(
    "parquet_not_readable_at_first",
    "⚠️ STATE_DIR knows of no release, and these keys cannot read PARQUET_URL: windows that were released with another STATE_DIR would "
    "be released again. Allow the keys to list and read its content",
    level=logging.WARNING,
)
_PARQUET_NOT_COMPARED = LogEvent(
    "parquet_not_compared", "⚠️ The content of PARQUET_URL is not compared with STATE_DIR: %s", "reason", logging.WARNING
)


#: Why else an output may hold summaries of this data set.
_NAMESAKE = (
    ". Or they are of a database of the same name on another InfluxDB 1 or 3, which is the same data set to the service: call one of the "
    "databases or measurements something else, or let each have an output of its own"
)


class SummaryReader(Protocol):
    """Reads which windows an output holds."""

    def released(self, labels: Collection[str], span: Window) -> list[Window]:
        """Return the windows of the data set that overlap the span and have a summary, in order."""

    def is_missing(self) -> bool:
        """Return whether the bucket or folder certainly does not exist, so that it holds nothing."""


def unknown_releases(summaries: SummaryReader, journal: Journal, labels: Collection[str], span: Window) -> list[Window]:
    """Return the intervals of the span that have a summary in the output but no entry in the journal.

    Args:
        summaries: The output's window summaries.
        journal: The service's journal.
        labels: Present and past labels of the data set in batch ids.
        span: The span to search.

    Raises:
        SourceDenied: The token may not read the output bucket.
        SourceUnavailable: The server does not answer.
    """
    known = journal.released_intervals()
    found = [window for part in merged_by_day(missing([span], known)) for window in summaries.released(labels, part)]
    return missing(merged(sorted(found)), known)


def merged_by_day(gaps: Iterable[Window]) -> Iterator[Window]:
    """Yield intervals of up to a day that cover the gaps: withheld windows can leave thousands of gaps."""
    covering: Window | None = None
    for gap in gaps:
        if covering is not None and gap.end_ns - covering.start_ns <= _DAY_NS:
            covering = Window(covering.start_ns, gap.end_ns)
            continue
        if covering is not None:
            yield covering
        covering = gap
    if covering is not None:
        yield covering


def _log_why_not_compared(summaries: SummaryReader, journal: Journal, bucket: str | None) -> None:
    """Log that the summaries cannot be read: a warning if the journal is new, unless the bucket does not exist yet."""
    if bucket is None:
        (_PARQUET_NOT_READABLE if journal.released_intervals() else _PARQUET_NOT_READABLE_AT_FIRST).log()
    elif summaries.is_missing():
        _BUCKET_MISSING.log(bucket)
    elif journal.released_intervals():
        _BUCKET_NOT_READABLE.log(bucket)
    else:
        _BUCKET_NOT_READABLE_AT_FIRST.log(bucket)


def refuse_releases_elsewhere(
    summaries: SummaryReader,
    journal: Journal,
    labels: Collection[str],
    span: Window,
    *,
    bucket: str | None,
    retry: Retry,
    may_be_a_namesakes: bool = False,
) -> None:
    """Refuse the run if the span has releases that the journal does not know, as far as the token may read.

    Only a new journal makes the run wait for a bucket that cannot be read now.

    Args:
        summaries: Reads which windows an output holds.
        journal: The service's journal.
        labels: Present and past labels of the data set in batch ids.
        span: The span to search.
        bucket: The output bucket; None: the summaries are those of Parquet files.
        retry: How to retry.
        may_be_a_namesakes: Whether they may be of a data set on another server that is called the same.

    Raises:
        ConfigurationError: There are such releases, which would be released twice.
        RetriesExhausted: The server did not answer.
        SourceDenied: The server is permanently unreachable, and retries have a time limit.
        Stopped: The service was asked to stop.
    """

    def unknown_or_none() -> list[Window] | None:
        try:
            return unknown_releases(summaries, journal, labels, span)
        except SourceDenied as error:
            if not error.was_reached:
                raise
            return None

    try:
        unknown = unknown_or_none() if journal.released_intervals() else retry.until_done(unknown_or_none)
    except SourceUnavailable as error:
        if bucket is None:
            _PARQUET_NOT_COMPARED.log(error)
        else:
            _BUCKET_NOT_COMPARED.log(bucket, error)
        return
    if unknown is None:
        _log_why_not_compared(summaries, journal, bucket)
    if unknown:
        place = "PARQUET_URL" if bucket is None else f"bucket {bucket!r}"
        unknown_span = span_text(Window(unknown[0].start_ns, unknown[-1].end_ns))
        raise ConfigurationError(
            f"{place} holds summaries of windows of this data set ({unknown_span}) that STATE_DIR knows nothing of: they were "
            "released with a lost or another state folder. Put that folder back; or run scripts/state.py accept-gap, which marks them as "
            f"released, so that none is released twice{_NAMESAKE if may_be_a_namesakes else ''}"
        )
