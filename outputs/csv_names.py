"""What a CSV file is called, and begins with. The interval of time that its name covers determines when the file is complete."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from anonymizer.windows import NANOSECONDS, Window

#: The first line of every file.
HEADER = b"timestamp,source_id,ecg\n"

_START = datetime(2025, 11, 3, 14, 30, 5, tzinfo=UTC)

#: By unit in seconds, from days down: times whose names must differ from that of `_START` if every interval of the unit has its own name.
#: Twelve hours: for 12-hour clocks. A week, 6 and 28 years: for names of weekdays. The same day of other months: for days of the month.
_OTHER_TIMES = {
    86_400: (
        *(_START + timedelta(days=days) for days in (1, 7)),
        *(_START.replace(month=month) for month in range(1, 13) if month != _START.month),
        *(_START.replace(year=_START.year + years) for years in (1, 6, 28)),
    ),
    3600: tuple(_START + timedelta(hours=hours) for hours in (1, -12)),
    60: (_START + timedelta(minutes=1),),
    1: (_START + timedelta(seconds=1),),
}

#: Fields without leading zeros are ambiguous: `111` is November 1 or January 11.
_UNPADDED = re.compile(r"%[^A-Za-z%]")


def unit_s(pattern: str) -> int | None:
    """Return the length in seconds (1 to 86,400) of the intervals that have a name of their own; None if names repeat.

    Args:
        pattern: File name with strftime's fields.
    """
    found = None
    if _UNPADDED.search(pattern.replace("%%", "")):
        return found
    for unit, others in _OTHER_TIMES.items():
        if any(other.strftime(pattern) == _START.strftime(pattern) for other in others):
            return found
        found = unit
    return found


def one_name_s(pattern: str) -> int | None:
    """Return the same, if all of such an interval has one name; None if a part of its name comes again, such as the minute of each hour.

    Args:
        pattern: File name with strftime's fields.
    """
    unit = unit_s(pattern)
    start = _START.replace(hour=0, minute=0, second=0)
    within = (start + timedelta(seconds=seconds) for seconds in (1, 60, 3600, 13 * 3600) if unit and seconds < unit)
    return unit if all(time.strftime(pattern) == start.strftime(pattern) for time in within) else None


def covered_ns(window: Window, *, of_unit_s: int) -> int:
    """Return how much of its file's interval a window covers."""
    unit_ns = of_unit_s * NANOSECONDS
    interval_end_ns = (window.start_ns // unit_ns + 1) * unit_ns
    return min(window.end_ns, interval_end_ns) - window.start_ns
