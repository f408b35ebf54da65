"""`METHOD=optimal`: optimal univariate microaggregation of each whole window, without a hierarchy's levels.

If k counts sources, the groups are contiguous and their error is small, but not proven to be minimal (see `source_groups`).

Only the ends of the hierarchy are used: values beyond them are top- or bottom-coded, as by every method. All released rows have level 8,
like the rows that the other method regroups.
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
        hierarchy: Its first and last leaf are the ends to which values are coded.
        k: Least number of rows, or of different sources, that share a released value; at least 2.
        k_unit: What k counts.
    """

    hierarchy: Hierarchy
    k: int
    k_unit: KUnit = "record"

    def generalize(self, rows: ArrangedSamples) -> Generalization:
        """Generalize all rows. Every released value is shared by at least k rows, or sources, of its window."""
        windows = len(rows.windows)
        leaves, coded = whole_leaves(rows.values_uv, self.hierarchy)
        is_open = sharers_of_windows(rows.window_index, rows.source_codes, windows, self.k_unit) >= self.k
        is_released = is_open[rows.window_index]
        group_values = np.empty(0)
        group_of_row = np.full(len(leaves), NO_GROUP, dtype=np.int64)
        groups = np.zeros(windows, dtype=np.int64)
        if is_released.any():
            regrouped = regroup(rows, leaves, np.flatnonzero(is_released), self.k, self.k_unit)
            group_values = group_means(regrouped.sums_uv, regrouped.rows)
            group_of_row[regrouped.positions] = regrouped.groups
            groups = np.bincount(regrouped.windows, minlength=windows)
        return Generalization(
            # The extra last entry is for rows without a group: `NO_GROUP` is -1.
            values_uv=np.append(group_values, np.nan)[group_of_row],
            levels=np.where(is_released, np.uint8(STAR_LEVEL), np.uint8(WITHHELD_LEVEL)),
            imputed=np.zeros(len(leaves), dtype=np.bool_),
            imputed_values_uv=np.full(windows, np.nan),
            coded=coded,
            groups=groups,
            group_of_row=group_of_row,
        )
