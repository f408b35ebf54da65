"""`METHOD=hierarchy`: k-anonymity by local recoding of one numeric value, level by level through the hierarchy.

Rows are counted per range, from the finest level up. A range with at least k rows that have no group yet becomes a group; the other rows go
on to the next, wider level. Rows without a group after `max_level` are the residual. All rows of a window with the same value share a
group up to there, so everything is computed on *runs* (the distinct values of a window, with their row counts), for all windows of a chunk
at once; no loop runs over rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from anonymizer.batch import KUnit
from anonymizer.generalization import NO_GROUP, WITHHELD_LEVEL, Generalization, whole_leaves
from anonymizer.hierarchy import STAR_LEVEL, SUPPRESSED_LEVEL, Hierarchy, Imputation, Residual
from anonymizer.mean_imputation import group_means, range_midpoints, window_means
from anonymizer.regrouping import regroup
from anonymizer.samples import ArrangedSamples
from anonymizer.sharers import Sharers, sharers_of_windows, source_masks

_Int64s = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class _Groups:
    """The groups formed so far, one entry per group. Grows level by level."""

    windows: _Int64s
    levels: _Int64s
    rows: _Int64s
    sums_uv: _Int64s
    lows: _Int64s
    highs: _Int64s

    @classmethod
    def none(cls) -> _Groups:
        return cls(*(np.empty(0, dtype=np.int64) for _ in cls.__slots__))

    def __len__(self) -> int:
        return len(self.windows)

    def add(self, *columns: npt.ArrayLike) -> None:
        added = np.broadcast_arrays(*columns)
        for name, column in zip(self.__slots__, added, strict=True):
            setattr(self, name, np.concatenate((getattr(self, name), column)))


@dataclass(frozen=True, slots=True)
class _Runs:
    """The distinct values of each window, ascending by window, then value."""

    windows: _Int64s
    leaves: _Int64s
    rows: _Int64s
    sharers: Sharers
    cells: _Int64s
    cell_of_row: _Int64s

    def of_rows(self, of_runs: _Int64s) -> _Int64s:
        """Return for each row what its run has."""
        of_cells = np.empty(self.cells.max(initial=-1) + 1, dtype=of_runs.dtype)
        of_cells[self.cells] = of_runs
        return of_cells[self.cell_of_row]


@dataclass(frozen=True, slots=True)
class LevelHierarchyAnonymizer:
    """Generalizes the values of a chunk of windows, each window by itself.

    Args:
        hierarchy: The ranges.
        k: Least number of rows, or of different sources, that share a released value; at least 2.
        max_level: The widest level at which a group may form, 1 to 7.
        residual: What happens to the residual: `regroup` into optimal groups, `impute` the window's mean, or `drop`.
        imputation: A group's value: the `mean` of its members or the `midpoint` of its range.
        k_unit: What k counts. `impute` needs `record`: an imputed mean is not shared by k sources.
    """

    hierarchy: Hierarchy
    k: int
    max_level: int = 3
    residual: Residual = "regroup"
    imputation: Imputation = "mean"
    k_unit: KUnit = "record"

    def __post_init__(self) -> None:
        if self.residual == "impute" and self.k_unit == "source":
            raise ValueError("rows cannot be imputed where k counts sources")

    def generalize(self, rows: ArrangedSamples) -> Generalization:
        """Generalize all rows. Every released value but an imputed one is shared by at least k rows, or sources, of its window."""
        windows = len(rows.windows)
        leaves, coded = whole_leaves(rows.values_uv, self.hierarchy)
        is_open = sharers_of_windows(rows.window_index, rows.source_codes, windows, self.k_unit) >= self.k
        runs = self._runs(rows, leaves)
        groups = _Groups.none()
        group_of_run = self._place(runs, groups, open_windows=is_open)
        if self.residual == "regroup":
            self._dissolve(runs, groups, group_of_run, open_windows=is_open)

        group_of_row = runs.of_rows(group_of_run)
        is_left = group_of_row == NO_GROUP
        if not is_open.all():
            is_left &= is_open[rows.window_index]
        if self.residual == "regroup" and is_left.any():
            self._regroup(rows, leaves, np.flatnonzero(is_left), groups, group_of_row)
        return self._outcome(rows, groups, group_of_row, is_left, coded=coded)

    def _runs(self, rows: ArrangedSamples, leaves: _Int64s) -> _Runs:
        cell_of_row = rows.window_index * self.hierarchy.leaves
        cell_of_row += leaves
        cell_of_row -= self.hierarchy.first_leaf
        rows_of_cell = np.bincount(cell_of_row)
        cells = np.flatnonzero(rows_of_cell)
        runs = _Runs(
            windows=cells // self.hierarchy.leaves,
            leaves=cells % self.hierarchy.leaves + self.hierarchy.first_leaf,
            rows=rows_of_cell[cells],
            sharers=Sharers(rows_of_cell[cells]),
            cells=cells,
            cell_of_row=cell_of_row,
        )
        if self.k_unit == "record":
            return runs
        masks = source_masks(runs.of_rows(np.arange(len(cells))), rows.source_codes, len(cells))
        return replace(runs, sharers=Sharers(runs.rows, masks))

    def _place(self, runs: _Runs, groups: _Groups, *, open_windows: _Bools) -> _Int64s:
        """Form groups at levels 1 … max_level; return the group of each run, or `NO_GROUP`."""
        group_of_run = np.full(len(runs.windows), NO_GROUP, dtype=np.int64)
        unplaced = np.flatnonzero(open_windows[runs.windows])
        for number, level in enumerate(self.hierarchy.levels[: self.max_level], start=1):
            if not len(unplaced):
                break
            ranges = level.range_of_leaf[runs.leaves[unplaced] - self.hierarchy.first_leaf]
            key = runs.windows[unplaced] * len(level.lows) + ranges
            first = _starts(key)
            rows = np.add.reduceat(runs.rows[unplaced], first)
            sums = np.add.reduceat(runs.rows[unplaced] * runs.leaves[unplaced], first)
            is_group = runs.sharers.of_sets(unplaced, first) >= self.k

            new_group = np.where(is_group, len(groups) + np.cumsum(is_group) - 1, NO_GROUP)
            group_of_run[unplaced] = np.repeat(new_group, np.diff(first, append=len(unplaced)))
            kept = first[is_group]
            groups.add(
                runs.windows[unplaced[kept]],
                number,
                rows[is_group],
                sums[is_group],
                level.lows[ranges[kept]],
                level.highs[ranges[kept]],
            )
            unplaced = unplaced[group_of_run[unplaced] == NO_GROUP]
        return group_of_run

    def _dissolve(self, runs: _Runs, groups: _Groups, group_of_run: _Int64s, *, open_windows: _Bools) -> None:
        """Dissolve groups where a window's residual has fewer than k rows or sources, so that it can be regrouped.

        Each residual row takes the group with the nearest mean; of two equally near, the lower one, then that of the finer level.
        """
        left = np.flatnonzero((group_of_run == NO_GROUP) & open_windows[runs.windows])
        nearest = []
        for window, runs_left in self._short_residuals(runs, left):
            candidates = np.flatnonzero(groups.windows == window)
            means = groups.sums_uv[candidates] / groups.rows[candidates]
            candidates = candidates[np.lexsort((groups.levels[candidates], means))]
            for leaf in runs.leaves[runs_left]:
                # |leaf − sum / rows| with an integer numerator, so that equal distances compare as equal.
                away = np.abs(leaf * groups.rows[candidates] - groups.sums_uv[candidates]) / groups.rows[candidates]
                nearest.append(candidates[away.argmin()])
        groups.rows[nearest] = 0
        # The extra last entry is for runs without a group: `NO_GROUP` is -1.
        is_dissolved = np.zeros(len(groups) + 1, dtype=np.bool_)
        is_dissolved[nearest] = True
        group_of_run[is_dissolved[group_of_run]] = NO_GROUP

    def _short_residuals(self, runs: _Runs, left: npt.NDArray[np.intp]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """Yield each window with a residual of fewer than k rows or sources, and the runs of that residual."""
        if not len(left):
            return
        windows = runs.windows[left]
        first = _starts(windows)
        is_short = runs.sharers.of_sets(left, first) < self.k
        for begin, end in zip(first[is_short], np.append(first, len(left))[1:][is_short], strict=True):
            yield int(windows[begin]), left[begin:end]

    def _regroup(
        self, rows: ArrangedSamples, leaves: _Int64s, left: npt.NDArray[np.intp], groups: _Groups, group_of_row: _Int64s
    ) -> None:
        """Form optimal groups of the rows at positions `left`."""
        regrouped = regroup(rows, leaves, left, self.k, self.k_unit)
        group_of_row[regrouped.positions] = len(groups) + regrouped.groups
        groups.add(regrouped.windows, STAR_LEVEL, regrouped.rows, regrouped.sums_uv, 0, 0)

    def _outcome(
        self, rows: ArrangedSamples, groups: _Groups, group_of_row: _Int64s, is_left: _Bools, *, coded: _Bools
    ) -> Generalization:
        windows = len(rows.windows)
        group_values = self._group_values(groups)
        # The extra last entry is for rows without a group: `NO_GROUP` is -1.
        values = np.append(group_values, np.nan)[group_of_row]
        levels = np.append(groups.levels, WITHHELD_LEVEL).astype(np.uint8)[group_of_row]
        imputed = np.zeros(len(values), dtype=np.bool_)
        means = np.full(windows, np.nan)
        if self.residual == "impute":
            means = window_means(group_values, groups.rows, groups.windows, windows)
            left_in_window = np.bincount(rows.window_index[is_left], minlength=windows)
            imputed = is_left & ~np.isnan(means)[rows.window_index]
            values[imputed] = means[rows.window_index[imputed]]
            level_of_window = np.where(left_in_window >= self.k, STAR_LEVEL, SUPPRESSED_LEVEL)
            levels[imputed] = level_of_window[rows.window_index[imputed]]
            means[left_in_window == 0] = np.nan
        return Generalization(
            values_uv=values,
            levels=levels,
            imputed=imputed,
            imputed_values_uv=means,
            coded=coded,
            groups=np.bincount(groups.windows[groups.rows > 0], minlength=windows),
            group_of_row=group_of_row,
        )

    def _group_values(self, groups: _Groups) -> npt.NDArray[np.float64]:
        values = group_means(groups.sums_uv, np.maximum(groups.rows, 1))
        if self.imputation == "midpoint":
            in_a_range = groups.levels < STAR_LEVEL
            values[in_a_range] = range_midpoints(groups.lows, groups.highs)[in_a_range]
        return values


def _starts(keys: _Int64s) -> npt.NDArray[np.intp]:
    """Return where each stretch of equal keys begins, of at least one key."""
    return np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
