"""Arithmetic of time intervals, given as ascending windows, and a set of them with fast queries and insertions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from anonymizer.windows import Window


def merged(intervals: Iterable[Window]) -> list[Window]:
    """Return ascending intervals with neighbours merged."""
    result: list[Window] = []
    for interval in intervals:
        if result and interval.start_ns <= result[-1].end_ns:
            result[-1] = Window(result[-1].start_ns, max(interval.end_ns, result[-1].end_ns))
        else:
            result.append(interval)
    return result


def missing(wanted: Sequence[Window], known: Sequence[Window]) -> list[Window]:
    """Return the parts of `wanted` outside `known`. Both are ascending lists of disjoint intervals."""
    return IntervalSet(known).missing(wanted)


class IntervalSet:
    """Time intervals, with neighbours merged.

    A query is logarithmic in the number of intervals, plus the size of its result. An insertion also moves the intervals after it: none
    in a stream, which adds at the end.

    Args:
        intervals: The initial intervals, ascending.
    """

    def __init__(self, intervals: Iterable[Window] = ()) -> None:
        disjoint = merged(intervals)
        self._starts_ns = [one.start_ns for one in disjoint]
        self._ends_ns = [one.end_ns for one in disjoint]

    def __len__(self) -> int:
        return len(self._starts_ns)

    def __iter__(self) -> Iterator[Window]:
        return map(Window, self._starts_ns, self._ends_ns)

    def add(self, interval: Window) -> None:
        """Add an interval, merged with those it touches or overlaps."""
        first = bisect_left(self._ends_ns, interval.start_ns)
        stop = bisect_right(self._starts_ns, interval.end_ns)
        start_ns, end_ns = interval.start_ns, interval.end_ns
        if first < stop:
            start_ns, end_ns = min(start_ns, self._starts_ns[first]), max(end_ns, self._ends_ns[stop - 1])
        self._starts_ns[first:stop] = [start_ns]
        self._ends_ns[first:stop] = [end_ns]

    def missing(self, wanted: Iterable[Window]) -> list[Window]:
        """Return the parts of `wanted` outside this set, in order."""
        return [gap for interval in wanted for gap in self._gaps_in(interval)]

    def _gaps_in(self, interval: Window) -> Iterator[Window]:
        start_ns = interval.start_ns
        for index in range(bisect_right(self._ends_ns, start_ns), len(self)):
            if self._starts_ns[index] >= interval.end_ns:
                break
            if self._starts_ns[index] > start_ns:
                yield Window(start_ns, self._starts_ns[index])
            start_ns = self._ends_ns[index]
        if start_ns < interval.end_ns:
            yield Window(start_ns, interval.end_ns)
