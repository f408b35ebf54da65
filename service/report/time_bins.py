"""Sums over intervals of time: a bounded number of intervals, however long the time turns out to be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from service.report.figures import Plot

#: More intervals than this cannot be distinguished on a page.
MOST_BINS = 120

Sums = Mapping[str, float]


class TimeBins:
    """Adds up figures by time. When there are too many intervals, their length is doubled.

    Args:
        width_ns: The initial length of an interval.
    """

    def __init__(self, width_ns: int) -> None:
        self.width_ns = width_ns
        self._sums: dict[int, dict[str, float]] = {}

    def add(self, time_ns: int, figures: Sums) -> None:
        """Add figures to the interval that contains a time."""
        self._put(time_ns // self.width_ns, figures)
        while self._sums and max(self._sums) - min(self._sums) >= MOST_BINS:
            self._widen()

    def intervals(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """Make intervals long enough for a span; yield the start and end of each interval in it."""
        for time_ns in (start_ns, end_ns - 1):
            self.add(time_ns, {})
        width_ns = self.width_ns
        for number in range(start_ns // width_ns, -(-end_ns // width_ns)):
            yield max(start_ns, number * width_ns), min(end_ns, (number + 1) * width_ns)

    def plot(self, *names: str) -> Plot:
        """Return the sums of each name by time, gaps filled with zeros."""
        numbers = range(min(self._sums), max(self._sums) + 1) if self._sums else range(0)
        series = tuple((name, tuple(self._sums.get(number, {}).get(name, 0.0) for number in numbers)) for name in names)
        return Plot(tuple(number * self.width_ns for number in numbers), self.width_ns, series)

    def _put(self, number: int, figures: Sums) -> None:
        sums = self._sums.setdefault(number, defaultdict(float))
        for name, value in figures.items():
            sums[name] += value

    def _widen(self) -> None:
        old, self._sums = self._sums, {}
        self.width_ns *= 2
        for number, figures in old.items():
            self._put(number // 2, figures)
