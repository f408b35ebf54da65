"""How long a server asks us to wait: the `Retry-After` header (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime

#: Nobody who asks for more is obeyed further.
LONGEST_RETRY_AFTER_S = 600.0


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, 0 to `LONGEST_RETRY_AFTER_S`; None when it says nothing usable."""
    if value is None:
        return None
    try:
        seconds = float(int(value))
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
