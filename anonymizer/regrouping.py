"""Groups rows by neighbouring values: all rows of a window for `METHOD=optimal`, the residual for `RESIDUAL=regroup`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.batch import KUnit
from anonymizer.microaggregation import optimal_groups
from anonymizer.samples import ArrangedSamples
from anonymizer.source_groups import groups_of_sources
from anonymizer.value_order import in_value_order

_Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Regrouped:
    """Groups of neighbouring values, none across windows, ascending by window, then value.

    Args:
        positions: The requested rows, in value order, shape (n,).
        groups: The group of each, shape (n,).
        windows: Window of each group, shape (groups,).
        rows: Size of each group, shape (groups,).
        sums_uv: Sum of each group's leaves, shape (groups,).
    """

    positions: npt.NDArray[np.intp]
    groups: _Int64s
    windows: _Int64s
    rows: _Int64s
    sums_uv: _Int64s


def regroup(rows: ArrangedSamples, leaves: _Int64s, positions: npt.NDArray[np.intp], k: int, k_unit: KUnit) -> Regrouped:
    """Group the rows at `positions`, per window, in order of value, then time, then source.

    Args:
        rows: The chunk.
        leaves: Whole microvolts of every row of the chunk, shape (rows,).
        positions: Rows to group, ascending; per window none, or at least k rows, or sources.
        k: Least number of rows, or of different sources, in a group.
        k_unit: What k counts.
    """
    chosen = in_value_order(rows, leaves, positions)
    window, leaf = rows.window_index[chosen], leaves[chosen]
    lengths = np.bincount(window)
    is_by_source = k_unit == "source"
    group = groups_of_sources(leaf, rows.source_codes[chosen], lengths, k) if is_by_source else optimal_groups(leaf, lengths, k)
    first = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    return Regrouped(
        positions=chosen,
        groups=group,
        windows=window[first],
        rows=np.diff(first, append=len(group)),
        sums_uv=np.add.reduceat(leaf, first),
    )
