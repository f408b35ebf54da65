"""Times as people read them in logs and messages: UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime

from anonymizer.windows import NANOSECONDS, Window


def as_datetime(time_ns: int) -> datetime:
    """Return a time given in nanoseconds since the epoch, cut to the second."""
    return datetime.fromtimestamp(time_ns // NANOSECONDS, UTC)


def date_and_time(time_ns: int) -> str:
    """Return such as `2025-11-03 14:30:00`."""
    return as_datetime(time_ns).strftime("%Y-%m-%d %H:%M:%S")


def span_text(span: Window) -> str:
    """Return such as `2025-11-03 14:30:00 - 2025-11-03 14:30:05`."""
    return f"{date_and_time(span.start_ns)} - {date_and_time(span.end_ns)}"


def length_text(length_ns: int) -> str:
    """Return such as `36.5 h`, or below two hours `102 s` or `17 min`."""
    seconds = length_ns // NANOSECONDS
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
