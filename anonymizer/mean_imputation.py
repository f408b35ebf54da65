"""Computes the released value of each group.

Under `mean` it is the mean of the group's members, rounded to whole microvolts. Under the classic settings it is the midpoint of the
group's range, which does not depend on the members; a row without a group gets the mean of all values released for its window.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Float64s = npt.NDArray[np.float64]
_Int64s = npt.NDArray[np.int64]


def group_means(sums_uv: _Int64s, rows: _Int64s) -> _Float64s:
    """Return each group's mean, rounded half to even to whole microvolts, shape (groups,). Zero is never negative."""
    rounded: _Float64s = np.rint(sums_uv / rows)
    rounded += 0.0
    return rounded


def range_midpoints(lows: _Int64s, highs: _Int64s) -> _Float64s:
    """Return (lo + hi) / 2, unrounded, shape (groups,)."""
    return (lows + highs) / 2


def window_means(group_values_uv: _Float64s, group_rows: _Int64s, group_windows: _Int64s, windows: int) -> _Float64s:
    """Return the mean of all released values of each window, unrounded, shape (windows,); NaN for a window without any.

    Values are multiples of one half, so the sums, and with them the means, are the same in any order.
    """
    sums = np.bincount(group_windows, weights=group_values_uv * group_rows, minlength=windows)
    rows = np.bincount(group_windows, weights=group_rows, minlength=windows)
    means: _Float64s = np.divide(sums, rows, out=np.full(windows, np.nan), where=rows > 0)
    means += 0.0
    return means
