"""Parses the `Retry-After` header (RFC 9110, section 10.2.3)."""

from __future__ import annotations

from datetime import datetime

from transport.http_date import parse_http_date

#: Longer values are capped.
LONGEST_RETRY_AFTER_S = 600.0


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
