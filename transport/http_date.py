"""Times in HTTP headers such as `Date` and `Retry-After` (RFC 9110, section 5.6.7)."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime


def parse_http_date(text: str) -> datetime | None:
    """Return the time a header states, in UTC unless it names another zone; None when it states none."""
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second for a zone of twenty digits
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)
