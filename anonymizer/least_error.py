"""The least squared error there is, to set others against. For reports only: error and mean of a small window tell its values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anonymizer.generalization import whole_leaves
from anonymizer.hierarchy import Hierarchy
from anonymizer.regrouping import regroup
from anonymizer.samples import Samples, arrange
from anonymizer.windows import WindowRange

_Float64s = npt.NDArray[np.float64]


def least_squared_errors(samples: Samples, windows: WindowRange, hierarchy: Hierarchy, k: int) -> _Float64s:
    """Return the least Σ (value − its group's mean)² that any groups of at least k rows of a window have, in µV², shape (windows,).

    Groups of k different *sources* hold k rows too, so none have less: under `K_UNIT=source` it is a lower bound, though mostly out of
    reach. Values count as every method takes them, whole and coded to the hierarchy's ends; means are not rounded. A window of fewer than k
    rows has no groups, and NaN.
    """
    rows = arrange(samples, windows, np.arange(len(samples.source_ids)))
    leaves, _ = whole_leaves(rows.values_uv, hierarchy)
    has_k = np.bincount(rows.window_index, minlength=len(windows)) >= k
    positions = np.flatnonzero(has_k[rows.window_index])
    least = np.where(has_k, 0.0, np.nan)
    if not len(positions):
        return least
    groups = regroup(rows, leaves, positions, k, "record")
    means = groups.sums_uv / groups.rows
    squared = (leaves[positions] - means[groups.of_row]) ** 2
    least += np.bincount(rows.window_index[positions], weights=squared, minlength=len(windows))
    return least
