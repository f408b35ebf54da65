"""Downcoding: what was released at a finer level cannot lie in a wider range (Cohen 2022; minimality: Wong et al. 2007).

A midpoint tells its range and level. A mean does not, but how many rows share it lets an attacker guess both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import NamedTuple

import numpy as np

from anonymizer.hierarchy import LEVELS
from anonymizer.samples import Samples, arrange
from anonymizer.windows import NANOSECONDS, covering_windows
from tests.core.both_ways import shipped_ranges
from tests.documentation.sample import Floats
from utility.choices import DEFAULT, Choice, recipe_of
from utility.measurements import WINDOW_S
from utility.outcome import Bools, Ints
from utility.records import records, together


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


#: Width of the ranges of level 1, and of the widest level that the default settings use, in microvolts.
PAIR_UV, BLOCK_UV = 2, 8

#: Step of the converter that the recordings were made with, which their values show, in microvolts.
STEP_UV = 5

#: Values are counted from here, where the hierarchy begins.
_FIRST_UV = -2500


@dataclass(frozen=True)
class CountedOn:
    """What an attacker gets out of the numbers of rows that share a value, summed over windows.

    Args:
        rows: All rows.
        claimed: Rows of values that 2k rows or more share: he says that each lies in the value's own range of level 1.
        claimed_rightly: Of these, how many do.
        on_step: Rows whose value is a multiple of the converter's step: he says that each keeps its value.
        on_step_rightly: Of these, how many do.
        wider: Rows of level 2 or 3; of groups that were formed without levels, rows of values that fewer share.
        narrowed: Of these, rows whose block of 8 µV holds a range that he takes out, since it was released at level 1.
        narrowed_rightly: Of these, how many do not lie in what he took out.
    """

    rows: int = 0
    claimed: int = 0
    claimed_rightly: int = 0
    on_step: int = 0
    on_step_rightly: int = 0
    wider: int = 0
    narrowed: int = 0
    narrowed_rightly: int = 0


@cache
def counted_on(hertz: int, k: int, choice: Choice = DEFAULT) -> CountedOn:
    """Attack each of the six records, alone in its windows; together where k counts sources."""
    data_sets = [together(hertz)] if choice.by_source else [record.samples() for record in records(hertz)]
    found = [_counted_on(samples, k, choice) for samples in data_sets]
    return CountedOn(*(sum(getattr(one, field.name) for one in found) for field in fields(CountedOn)))


def _counted_on(samples: Samples, k: int, choice: Choice) -> CountedOn:
    windows = covering_windows(int(samples.times_ns.min()), int(samples.times_ns.max()) + 1, WINDOW_S * NANOSECONDS)
    rows = arrange(samples, windows, np.arange(len(samples.source_ids)))
    released = recipe_of(choice, k=k, window_s=WINDOW_S).method.generalize(rows)
    window = rows.window_index.astype(np.int64)
    raw, out = (values.astype(np.int64) - _FIRST_UV for values in (rows.values_uv, released.values_uv))
    is_common = _rows_alike(window, out) >= 2 * k
    taken_out = _taken_out(window, out, is_common)
    is_wider = ~is_common if choice.settings.get("METHOD") == "optimal" else np.isin(released.levels, (2, 3))
    is_narrowed = is_wider & ~is_common & taken_out.any(axis=1)
    place = raw // PAIR_UV - out // BLOCK_UV * (BLOCK_UV // PAIR_UV)
    in_what_was_taken = taken_out[np.arange(len(raw)), np.clip(place, 0, taken_out.shape[1] - 1)]
    is_on_step = (out + _FIRST_UV) % STEP_UV == 0
    return CountedOn(
        rows=len(raw),
        claimed=int(is_common.sum()),
        claimed_rightly=int((raw // PAIR_UV == out // PAIR_UV)[is_common].sum()),
        on_step=int(is_on_step.sum()),
        on_step_rightly=int((raw == out)[is_on_step].sum()),
        wider=int(is_wider.sum()),
        narrowed=int(is_narrowed.sum()),
        narrowed_rightly=int((is_narrowed & ~in_what_was_taken).sum()),
    )


def _rows_alike(window: Ints, values: Ints) -> Ints:
    """Return for each row how many of its window have its value."""
    _, group, rows = np.unique(np.stack((window, values)), axis=1, return_inverse=True, return_counts=True)
    return np.asarray(rows[group.ravel()])


def _taken_out(window: Ints, values: Ints, is_common: Bools) -> Bools:
    """Return which of the four ranges of level 1 in each row's block of 8 µV hold a common value of its window."""
    ranges = 1 << 16
    common = np.unique(window[is_common] * ranges + values[is_common] // PAIR_UV)
    block = window * ranges + values // BLOCK_UV * (BLOCK_UV // PAIR_UV)
    return np.isin(block[:, None] + np.arange(BLOCK_UV // PAIR_UV), common)
