"""Windows released with another or a lost state folder, found by their summaries in the output bucket."""

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

#: Gaps within this time are asked for in one query.
_DAY_NS = 24 * HOUR_NS

_BUCKET_MISSING = LogEvent(
    "bucket_missing", "Bucket %r does not exist yet, so it holds no releases unknown to STATE_DIR", "bucket"
)
_BUCKET_NOT_READABLE = LogEvent(
    "bucket_not_readable",
    "What bucket %r already holds cannot be read with this token, so it is not compared with STATE_DIR",
    "bucket",
)
_BUCKET_NOT_READABLE_AT_FIRST = LogEvent(
    "bucket_not_readable_at_first",
    "⚠️ STATE_DIR knows of no release, and what bucket %r already holds cannot be read with this token: windows that were released "
    "with another STATE_DIR would be released again. Set INFLUX_VERIFY_TOKEN to a token that may read the bucket",
    "bucket",
    logging.WARNING,
)
_BUCKET_NOT_COMPARED = LogEvent(
    "bucket_not_compared", "⚠️ What bucket %r already holds is not compared with STATE_DIR: %s", "bucket reason", logging.WARNING
)


_PARQUET_NOT_READABLE = LogEvent(
    "parquet_not_readable",
    "What PARQUET_URL already holds cannot be read with these keys, so it is not compared with STATE_DIR",
)
_PARQUET_NOT_READABLE_AT_FIRST = LogEvent(
    "parquet_not_readable_at_first",
    "⚠️ STATE_DIR knows of no release, and what PARQUET_URL already holds cannot be read with these keys: windows that were released "
    "with another STATE_DIR would be released again. Let the keys list and read what is there",
    level=logging.WARNING,
)
_PARQUET_NOT_COMPARED = LogEvent(
    "parquet_not_compared", "⚠️ What PARQUET_URL already holds is not compared with STATE_DIR: %s", "reason", logging.WARNING
)


class SummaryReader(Protocol):
    """Tells which windows an output holds."""

    def released(self, labels: Collection[str], span: Window) -> list[Window]:
        """Return the windows of the data set that reach into the span and have a summary, in order."""

    def is_missing(self) -> bool:
        """Return whether the place certainly does not exist, so that it holds nothing."""


def unknown_releases(summaries: SummaryReader, journal: Journal, labels: Collection[str], span: Window) -> list[Window]:
    """Return the stretches of the span with a summary in the output bucket and no entry in the journal.

    Args:
        summaries: The output bucket's window summaries.
        journal: The service's journal.
        labels: Present and past labels of the data set in batch ids.
        span: Where to look.

    Raises:
        SourceDenied: The token may not read the output bucket.
        SourceUnavailable: The server does not answer.
    """
    known = journal.released_intervals()
    found = [window for stretch in _stretches(missing([span], known)) for window in summaries.released(labels, stretch)]
    return missing(merged(sorted(found)), known)


def _stretches(gaps: Iterable[Window]) -> Iterator[Window]:
    """Yield stretches that cover the gaps, those of a day together: withheld windows can leave thousands of gaps."""
    stretch: Window | None = None
    for gap in gaps:
        if stretch is not None and gap.end_ns - stretch.start_ns <= _DAY_NS:
            stretch = Window(stretch.start_ns, gap.end_ns)
            continue
        if stretch is not None:
            yield stretch
        stretch = gap
    if stretch is not None:
        yield stretch


def _say_why_not_compared(summaries: SummaryReader, journal: Journal, bucket: str | None) -> None:
    """Log that summaries cannot be read; a warning if nothing else knows of earlier releases. A missing place holds none."""
    if bucket is None:
        _say_why_files_are_not_compared(journal)
    elif summaries.is_missing():
        _BUCKET_MISSING.log(bucket)
    elif journal.released_intervals():
        _BUCKET_NOT_READABLE.log(bucket)
    else:
        _BUCKET_NOT_READABLE_AT_FIRST.log(bucket)


def _say_why_files_are_not_compared(journal: Journal) -> None:
    if journal.released_intervals():
        _PARQUET_NOT_READABLE.log()
    else:
        _PARQUET_NOT_READABLE_AT_FIRST.log()


def refuse_releases_elsewhere(
    summaries: SummaryReader, journal: Journal, labels: Collection[str], span: Window, *, bucket: str | None, retry: Retry
) -> None:
    """Refuse the run if the span has releases that the journal does not know, as far as the token can see.

    With a journal that knows of releases, the run does not wait for a bucket that cannot be read now; with a new one it does.

    Args:
        summaries: Knows which windows an output holds.
        journal: The service's journal.
        labels: Present and past labels of the data set in batch ids.
        span: Where to look.
        bucket: The output bucket; None: the summaries are those of Parquet files.
        retry: How to retry.

    Raises:
        ConfigurationError: There are such releases, which would be released twice.
        RetriesExhausted: The server did not answer.
        SourceDenied: It cannot be reached for good, and retries have a time limit.
        Stopped: The service was asked to stop meanwhile.
    """

    def ask() -> list[Window] | None:
        try:
            return unknown_releases(summaries, journal, labels, span)
        except SourceDenied as error:
            if not error.was_reached:
                raise
            return None

    try:
        unknown = ask() if journal.released_intervals() else retry.until_done(ask)
    except SourceUnavailable as error:
        if bucket is None:
            _PARQUET_NOT_COMPARED.log(error)
        else:
            _BUCKET_NOT_COMPARED.log(bucket, error)
        return
    if unknown is None:
        _say_why_not_compared(summaries, journal, bucket)
    if unknown:
        place = "PARQUET_URL" if bucket is None else f"bucket {bucket!r}"
        stretch = span_text(Window(unknown[0].start_ns, unknown[-1].end_ns))
        raise ConfigurationError(
            f"{place} holds summaries of windows of this data set ({stretch}) that STATE_DIR knows nothing of: they were "
            "released with a state folder that is lost, or with another one. Put that folder back; or run scripts/state.py accept-gap, "
            "which marks them as released, so that none is released twice"
        )
