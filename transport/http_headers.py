"""Times in the HTTP headers `Date` and `Retry-After` (RFC 9110, sections 5.6.7 and 10.2.3)."""

from __future__ import annotations

import email.utils
from collections.abc import Iterable
from datetime import UTC, datetime

#: Longer values of `Retry-After` are capped.
LONGEST_RETRY_AFTER_S = 600.0


def earliest_http_date(texts: Iterable[str]) -> datetime | None:
    """Return the earliest time in several headers of one name; None if none contains a time.

    Two `Date` headers come from two clocks, such as a server's and a proxy's. The earlier one never makes a window complete too soon.
    """
    dates = [date for text in texts if (date := parse_http_date(text)) is not None]
    return min(dates, default=None)


def parse_http_date(text: str) -> datetime | None:
    """Return the time in a header, in UTC unless it names another zone; None if it is not a valid time."""
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a zone offset of twenty digits
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header requests, 0 to `LONGEST_RETRY_AFTER_S`; None if it is missing or invalid."""
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None:
        date = parse_http_date(value)
        seconds = None if date is None else (date - now).total_seconds()
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def _seconds(value: str) -> float | None:
    digits = value.strip()
    # int() refuses thousands of digits; float() makes them infinite, which is capped.
    return float(digits) if digits.isascii() and digits.isdigit() else None
