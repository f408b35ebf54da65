"""Window arithmetic: half-open spans of whole seconds, aligned to the UTC epoch, in integer nanoseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NANOSECONDS = 1_000_000_000

#: No shard group of InfluxDB is shorter than this or starts anywhere else: reads and counts are cut here.
HOUR_NS = 3600 * NANOSECONDS

#: At most this many windows are counted, read or planned together, however few rows they hold.
MOST_WINDOWS = 4096


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The span `[start_ns, end_ns)`, in nanoseconds since the epoch."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.end_ns <= self.start_ns:
            raise ValueError(f"window must end after it starts, got [{self.start_ns}, {self.end_ns})")


@dataclass(frozen=True, slots=True)
class WindowRange:
    """Consecutive windows of one length, possibly none.

    Args:
        start_ns: Start of the first window, a multiple of `length_ns`.
        end_ns: End of the last window, a multiple of `length_ns`.
        length_ns: Length of each window.
    """

    start_ns: int
    end_ns: int
    length_ns: int

    def __post_init__(self) -> None:
        if self.length_ns <= 0 or self.start_ns % self.length_ns or self.end_ns % self.length_ns or self.end_ns < self.start_ns:
            raise ValueError(f"windows of {self.length_ns} ns must be aligned and in order, got [{self.start_ns}, {self.end_ns})")

    def __len__(self) -> int:
        return (self.end_ns - self.start_ns) // self.length_ns

    def __iter__(self) -> Iterator[Window]:
        for start_ns in range(self.start_ns, self.end_ns, self.length_ns):
            yield Window(start_ns, start_ns + self.length_ns)

    def window(self, index: int) -> Window:
        """Return the window at `index`, counted from 0."""
        start_ns = self.start_ns + index * self.length_ns
        return Window(start_ns, start_ns + self.length_ns)

    def part(self, first: int, stop: int) -> WindowRange:
        """Return the windows `first` … `stop - 1`."""
        return WindowRange(self.start_ns + first * self.length_ns, self.start_ns + stop * self.length_ns, self.length_ns)

    def index_of(self, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the index of the window that contains each time, shape (n,); below 0 or ≥ len(self) if none does."""
        return (times_ns - self.start_ns) // self.length_ns

    def cut_at_hours(self) -> Iterator[Window]:
        """Yield the spans between whole UTC hours that together cover the range."""
        start_ns = self.start_ns
        while start_ns < self.end_ns:
            end_ns = min(self.end_ns, (start_ns // HOUR_NS + 1) * HOUR_NS)
            yield Window(start_ns, end_ns)
            start_ns = end_ns


def whole_windows(start_ns: int, end_ns: int, length_ns: int) -> WindowRange:
    """Return the windows that lie wholly inside `[start_ns, end_ns)`; none if the span is too short."""
    first_ns = -(-start_ns // length_ns) * length_ns
    last_ns = end_ns // length_ns * length_ns
    return WindowRange(first_ns, max(first_ns, last_ns), length_ns)


def covering_windows(start_ns: int, end_ns: int, length_ns: int) -> WindowRange:
    """Return the windows that together cover `[start_ns, end_ns)`."""
    return WindowRange(start_ns // length_ns * length_ns, -(-end_ns // length_ns) * length_ns, length_ns)
