"""How far groups of k sources are from the best: `python -m tests.core.source_heuristic` prints the table of decision 009."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from anonymizer.microaggregation import optimal_groups
from anonymizer.source_groups import groups_of_sources
from testbed.wearers import SECOND_NS, Wearers

_Int64s = npt.NDArray[np.int64]

#: 2025-11-03T14:30:00Z; every third window of five minutes.
_START_S, _WINDOW_S, _WINDOWS = 1762180200, 5, range(0, 60, 3)

#: Wearers, Hz, k.
CASES = ((6, 360, 3), (6, 360, 5), (12, 360, 5), (12, 360, 10), (6, 128, 5), (12, 128, 5))


def squared_error(values: _Int64s, group: _Int64s) -> float:
    """Return Σ (value − mean of its group)²."""
    sizes, sums = np.bincount(group), np.bincount(group, weights=values)
    return float((values * values).sum() - (sums * sums / sizes).sum())


def best_contiguous_error(values: _Int64s, sources: _Int64s, k: int) -> float:
    """Return the least squared error of contiguous groups of k sources: every start is tried from which no two groups would fit."""
    sums, squares = (np.concatenate(([0], np.cumsum(of_each))) for of_each in (values, values * values))
    latest = _latest_starts(sources.tolist(), k)
    least = np.full(len(values) + 1, np.inf)
    least[0] = 0.0
    for row, last in enumerate(latest):
        if last < 0:
            continue
        starts = np.arange((latest[last - 1] if last else -1) + 1, last + 1)
        total = sums[row + 1] - sums[starts]
        errors = squares[row + 1] - squares[starts] - total * total / (row + 1 - starts)
        least[row + 1] = (least[starts] + errors).min()
    return float(least[-1])


def _latest_starts(sources: Sequence[int], k: int) -> list[int]:
    """Return for each row the last one from which k sources stand up to it, or -1."""
    last_row_of: dict[int, int] = {}
    latest = []
    for row, source in enumerate(sources):
        last_row_of[source] = row
        rows = sorted(last_row_of.values(), reverse=True)
        latest.append(rows[k - 1] if len(rows) >= k else -1)
    return latest


def windows_of(wearers: int, hertz: int) -> Iterator[tuple[_Int64s, _Int64s]]:
    """Yield values and sources of some windows, in order of value, time and source."""
    worn = Wearers(wearers, hertz=hertz)
    for number in _WINDOWS:
        start_ns = (_START_S + number * _WINDOW_S) * SECOND_NS
        rows = worn.samples_between(start_ns, start_ns + _WINDOW_S * SECOND_NS)
        order = np.lexsort((rows.wearer, rows.times_ns, rows.values_uv))
        yield rows.values_uv[order], rows.wearer[order]


def main() -> None:
    """Print the table."""
    print("| wearers | Hz | k | ÷ best contiguous: median | worst | best contiguous ÷ groups of k rows: median |")
    print("| --- | --- | --- | --- | --- | --- |")
    for wearers, hertz, k in CASES:
        ours, bounds = [], []
        for values, sources in windows_of(wearers, hertz):
            length = np.array([len(values)])
            best = best_contiguous_error(values, sources, k)
            ours.append(squared_error(values, groups_of_sources(values, sources, length, k)) / best)
            bounds.append(best / squared_error(values, optimal_groups(values, length, k)))
        print(f"| {wearers} | {hertz} | {k} | {median(ours):.4f} | {max(ours):.4f} | {median(bounds):.0f} |", flush=True)


if __name__ == "__main__":
    main()
