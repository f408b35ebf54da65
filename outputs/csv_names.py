"""What a pattern makes of file names: for how long a name stands, and whether more windows can come to its file."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from anonymizer.windows import NANOSECONDS, Window

_START = datetime(2025, 11, 3, 14, 30, 5, tzinfo=UTC)

#: By unit in seconds, from days down: other times that a name must tell from `_START` to tell all of that unit apart. Twelve hours for
#: clocks of twelve hours; a week, six and 28 years for days of the week; the same day of all months for those of the month.
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

#: Fields without leading zeros: `111` is the first of November, or the eleventh of January.
_UNPADDED = re.compile(r"%[^A-Za-z%]")


def unit_s(pattern: str) -> int | None:
    """Return the length in seconds of the stretches of time that have a name each, 1 to 86,400; None when names come again.

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


def covered_ns(window: Window, *, of_unit_s: int) -> int:
    """Return how much a window covers of the stretch of time that its file's name stands for."""
    unit_ns = of_unit_s * NANOSECONDS
    stretch_ends_ns = (window.start_ns // unit_ns + 1) * unit_ns
    return min(window.end_ns, stretch_ends_ns) - window.start_ns
