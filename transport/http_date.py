"""Times in HTTP headers such as `Date` and `Retry-After` (RFC 9110, section 5.6.7)."""

from __future__ import annotations

import email.utils
from collections.abc import Iterable
from datetime import UTC, datetime


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
