"""Downcoding: what was released at a finer level cannot lie in a wider range (Cohen 2022; minimality: Wong et al. 2007)."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from anonymizer.hierarchy import LEVELS
from tests.core.both_ways import shipped_ranges
from tests.documentation.sample import Floats


class LevelRange(NamedTuple):
    """One range of one level, both ends inclusive."""

    level: int
    low: int
    high: int

    def is_within(self, other: LevelRange) -> bool:
        """Return whether this is a finer range inside the other."""
        return self.level < other.level and other.low <= self.low and self.high <= other.high


@cache
def range_of_midpoint() -> dict[float, LevelRange]:
    """Return the range that each possible midpoint of the shipped hierarchy stands for: no two levels share one."""
    levels = shipped_ranges().hierarchy.levels
    return {
        (low + high) / 2: LevelRange(number, low, high)
        for number in range(LEVELS, 0, -1)
        for low, high in zip(levels[number - 1].lows.tolist(), levels[number - 1].highs.tolist(), strict=True)
    }


class Downcoded(NamedTuple):
    """What downcoding got out of one window."""

    above: int
    narrowed: int
    #: For each released value whose range was narrowed, the finer ranges its rows cannot lie in.
    excluded: dict[float, list[tuple[int, int]]]


def downcode(values_uv: Floats) -> Downcoded:
    """Narrow the released values of one window, knowing the hierarchy and nothing else.

    A midpoint belongs to one range of one level, so it tells both. What lies in a finer range that was released too was released *there*:
    a wider range around it holds none of these values, and its rows lie in what remains.
    """
    shared, rows = np.unique(values_uv, return_counts=True)
    rows_of = dict(zip(shared.tolist(), rows.tolist(), strict=True))
    published = {value: range_of_midpoint()[value] for value in rows_of if value in range_of_midpoint()}
    excluded = {
        value: inner
        for value, outer in published.items()
        if (inner := [(one.low, one.high) for one in published.values() if one.is_within(outer)])
    }
    above = sum(rows_of[value] for value, one in published.items() if one.level >= 2)
    return Downcoded(above, sum(rows_of[value] for value in excluded), excluded)
