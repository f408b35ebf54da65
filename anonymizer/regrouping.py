"""From rows in any order to groups of neighbouring values: whole windows for `METHOD=optimal`, what is left for `RESIDUAL=regroup`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.microaggregation import optimal_groups
from anonymizer.samples import ArrangedSamples

_Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Regrouped:
    """Groups of neighbouring values, none across windows, ascending by window, then value.

    Args:
        of_row: The group of each row that was asked for, in their order, shape (n,).
        windows: Window of each group, shape (groups,).
        rows: Size of each group, shape (groups,).
        sums_uv: Sum of each group's leaves, shape (groups,).
    """

    of_row: _Int64s
    windows: _Int64s
    rows: _Int64s
    sums_uv: _Int64s


def regroup(rows: ArrangedSamples, leaves: _Int64s, positions: npt.NDArray[np.intp], k: int) -> Regrouped:
    """Cut the rows at `positions`, window by window, in order of value, then time, then source, into groups of at least k.

    Args:
        rows: The chunk.
        leaves: Whole microvolts of every row of the chunk.
        positions: Which rows; of each window none, or at least k.
        k: How many rows a group has, at least.
    """
    order = np.lexsort((rows.source_codes[positions], rows.times_ns[positions], leaves[positions], rows.window_index[positions]))
    chosen = positions[order]
    window, leaf = rows.window_index[chosen], leaves[chosen]
    lengths = np.bincount(window)
    group = optimal_groups(leaf, lengths[lengths > 0], k)
    first = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    of_row = np.empty(len(positions), dtype=np.int64)
    of_row[order] = group
    return Regrouped(
        of_row=of_row,
        windows=window[first],
        rows=np.diff(first, append=len(group)),
        sums_uv=np.add.reduceat(leaf, first),
    )
