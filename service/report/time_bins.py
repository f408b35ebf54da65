"""Sums over stretches of time: a bounded number of them, however long the time turns out to be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from service.report.figures import Plot

#: More stretches than this cannot be told apart on a page.
MOST_BINS = 120

Sums = Mapping[str, float]


class TimeBins:
    """Adds up figures by time. When there are too many stretches, each becomes twice as long.

    Args:
        width_ns: How long a stretch is at first.
    """

    def __init__(self, width_ns: int) -> None:
        self.width_ns = width_ns
        self._sums: dict[int, dict[str, float]] = {}

    def add(self, time_ns: int, figures: Sums) -> None:
        """Add figures to the stretch that a time lies in."""
        self._put(time_ns // self.width_ns, figures)
        while self._sums and max(self._sums) - min(self._sums) >= MOST_BINS:
            self._widen()

    def stretches(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """Yield where each stretch between two times begins and ends; stretches are made long enough first."""
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
