"""Groups with the least squared error there is, without a hierarchy: exact univariate microaggregation of each whole window.

Where k counts sources, the groups are contiguous and their error small, but not proven to be the least (see `source_groups`).

Of the hierarchy only the ends are used: values beyond them are top- or bottom-coded, as by every method. Since no level places a row, all
of them are past the last level: level 8, as are the rows that the other method regroups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anonymizer.batch import KUnit
from anonymizer.generalization import NO_GROUP, WITHHELD_LEVEL, Generalization, whole_leaves
from anonymizer.hierarchy import STAR_LEVEL, Hierarchy
from anonymizer.mean_imputation import group_means
from anonymizer.regrouping import regroup
from anonymizer.samples import ArrangedSamples
from anonymizer.sharers import sharers_of_windows


@dataclass(frozen=True, slots=True)
class OptimalAnonymizer:
    """Generalizes the values of a chunk of windows, each window by itself.

    Args:
        hierarchy: Its first and last leaf are where values are coded to.
        k: How many rows, or different sources, share a released value, at least 2.
        k_unit: What k counts.
    """

    hierarchy: Hierarchy
    k: int
    k_unit: KUnit = "record"

    def generalize(self, rows: ArrangedSamples) -> Generalization:
        """Return what is released for each row. Each value is shared by k or more rows, or sources, of its window."""
        windows = len(rows.windows)
        leaves, coded = whole_leaves(rows.values_uv, self.hierarchy)
        is_open = sharers_of_windows(rows.window_index, rows.source_codes, windows, self.k_unit) >= self.k
        is_released = is_open[rows.window_index]
        values = np.full(len(leaves), np.nan)
        group_of_row = np.full(len(leaves), NO_GROUP, dtype=np.int64)
        groups = np.zeros(windows, dtype=np.int64)
        if is_released.any():
            regrouped = regroup(rows, leaves, np.flatnonzero(is_released), self.k, self.k_unit)
            values[is_released] = group_means(regrouped.sums_uv, regrouped.rows)[regrouped.of_row]
            group_of_row[is_released] = regrouped.of_row
            groups = np.bincount(regrouped.windows, minlength=windows)
        return Generalization(
            values_uv=values,
            levels=np.where(is_released, STAR_LEVEL, WITHHELD_LEVEL).astype(np.uint8),
            imputed=np.zeros(len(leaves), dtype=np.bool_),
            imputed_values_uv=np.full(windows, np.nan),
            coded=coded,
            groups=groups,
            group_of_row=group_of_row,
        )
