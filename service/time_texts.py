"""Times, lengths of time and counts as people read them in logs, messages and pages; times in UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime

from anonymizer.windows import NANOSECONDS, Window


def as_datetime(time_ns: int) -> datetime:
    """Return a time given in nanoseconds since the epoch, cut to the second."""
    return datetime.fromtimestamp(time_ns // NANOSECONDS, UTC)


def date_and_time(time_ns: int) -> str:
    """Return a text such as `2025-11-03 14:30:00`."""
    return as_datetime(time_ns).strftime("%Y-%m-%d %H:%M:%S")


def moment_text(time_ns: int) -> str:
    """Return a text such as `2025-11-03T14:30:00Z`, as in settings."""
    return as_datetime(time_ns).strftime("%Y-%m-%dT%H:%M:%SZ")


def span_text(span: Window) -> str:
    """Return a text such as `2025-11-03 14:30:00 - 2025-11-03 14:30:05`."""
    return f"{date_and_time(span.start_ns)} - {date_and_time(span.end_ns)}"


def length_text(seconds: float) -> str:
    """Return a text such as `36.5 h`, below two hours `17 min`, below two minutes `101.5 s`."""
    seconds = round(seconds, 1)
    if seconds < 120:
        return f"{_with_a_tenth(seconds)} s"
    return f"{_with_a_tenth(seconds / 60)} min" if seconds < 7200 else f"{_with_a_tenth(seconds / 3600)} h"


def many_text(number: int, what: str) -> str:
    """Return a text such as `1 row` or `1,200 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _with_a_tenth(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")
