"""How much squared error groups have, and the least there is: the measure that MAX_LEVEL was chosen by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anonymizer.hierarchy import LEVELS, STAR_LEVEL
from anonymizer.microaggregation import optimal_groups
from anonymizer.samples import ArrangedSamples, Samples, arrange
from tests.core.both_ways import recipe_of, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import Floats, Ints, released_values, windows


def squared_error_of_groups(samples: Samples, settings: PlainSettings) -> float:
    """Return Σ (value − mean of its group)² over the rows of one record, before means are rounded.

    Which rows make a group is worked out from outside: rows of one level share a range of that level, and those past the last level are cut
    into optimal groups.
    """
    rows = arrange(samples, windows(), np.zeros(1, dtype=np.int64))
    levels = recipe_of(settings, shipped_ranges()).method.generalize(rows).levels
    values = _coded(rows.values_uv)
    in_ranges = sum(_error(values[levels == level], _by_range(rows, values, levels, level)) for level in range(1, LEVELS + 1))
    past = levels == STAR_LEVEL
    return in_ranges + _least_error(rows.window_index[past], values[past], settings.k)


def squared_error_as_released(samples: Samples, settings: PlainSettings) -> float:
    """Return Σ (value − released value)² over the rows of one record."""
    return float(((_coded(samples.values_uv) - released_values(samples, settings)) ** 2).sum())


def least_squared_error(samples: Samples, k: int) -> float:
    """Return the least squared error that any groups of k of each window's rows have."""
    return _least_error(windows().index_of(samples.times_ns), _coded(samples.values_uv), k)


def _coded(values_uv: Floats) -> Ints:
    hierarchy = shipped_ranges().hierarchy
    coded: Ints = np.clip(np.rint(values_uv), hierarchy.first_leaf, hierarchy.last_leaf).astype(np.int64)
    return coded


def _by_range(rows: ArrangedSamples, values: Ints, levels: npt.NDArray[np.uint8], level: int) -> Ints:
    """Return for each row of one level which window and range it lies in, as one number."""
    hierarchy = shipped_ranges().hierarchy
    ranges = hierarchy.levels[level - 1].range_of_leaf[values - hierarchy.first_leaf]
    window_and_range: Ints = (rows.window_index * hierarchy.leaves + ranges)[levels == level]
    return window_and_range


def _least_error(window_index: Ints, values: Ints, k: int) -> float:
    order = np.lexsort((values, window_index))
    lengths = np.bincount(window_index)
    return _error(values[order], optimal_groups(values[order], lengths[lengths > 0], k))


def _error(values: Ints, groups: Ints) -> float:
    """Return the sum over all groups of Σ v² − (Σ v)² / n."""
    _, group = np.unique(groups, return_inverse=True)
    rows, sums = np.bincount(group), np.bincount(group, weights=values)
    return float((values * values).sum() - (sums * sums / rows).sum())
