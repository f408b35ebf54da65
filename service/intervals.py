"""Arithmetic of stretches of time, given as windows in ascending order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anonymizer.windows import Window


def merged(intervals: Iterable[Window]) -> list[Window]:
    """Return ascending intervals with neighbours made one."""
    made: list[Window] = []
    for interval in intervals:
        if made and interval.start_ns <= made[-1].end_ns:
            made[-1] = Window(made[-1].start_ns, max(interval.end_ns, made[-1].end_ns))
        else:
            made.append(interval)
    return made


def missing(wanted: Sequence[Window], known: Sequence[Window]) -> list[Window]:
    """Return the parts of the intervals `wanted` that lie in none of `known`; both ascend."""
    found, first = [], 0
    for interval in wanted:
        start_ns = interval.start_ns
        while first < len(known) and known[first].end_ns <= start_ns:
            first += 1
        for other in known[first:]:
            if other.start_ns >= interval.end_ns:
                break
            if other.start_ns > start_ns:
                found.append(Window(start_ns, other.start_ns))
            start_ns = max(start_ns, other.end_ns)
        if start_ns < interval.end_ns:
            found.append(Window(start_ns, interval.end_ns))
    return found
