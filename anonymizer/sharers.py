"""Counts what k counts: rows, or different sources."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anonymizer.batch import KUnit

_Int64s = npt.NDArray[np.int64]

#: Sources per bit mask.
_BITS = 64


def sharers_of_windows(window_index: _Int64s, source_codes: npt.NDArray[np.int32], windows: int, k_unit: KUnit) -> _Int64s:
    """Return how many rows, or different sources, each window has, shape (windows,); `window_index` ascends."""
    if k_unit == "record" or not len(source_codes):
        return np.diff(np.searchsorted(window_index, np.arange(windows + 1)))
    sources = int(source_codes.max()) + 1
    present = np.zeros(windows * sources, dtype=np.bool_)
    present[window_index * sources + source_codes] = True
    counts: _Int64s = present.reshape(windows, sources).sum(axis=1)
    return counts


class Sharers:
    """Counts the rows or sources that share sets of runs. A run is the rows of one window and value.

    Args:
        rows: Number of rows of each run, shape (runs,).
        masks: The sources of each run as bits, 64 per mask, shape (masks, runs); None if rows are counted.
    """

    def __init__(self, rows: _Int64s, masks: npt.NDArray[np.uint64] | None = None) -> None:
        self._rows, self._masks = rows, masks

    def of_sets(self, runs: npt.NDArray[np.intp], first: npt.NDArray[np.intp]) -> _Int64s:
        """Return how many rows, or sources, each set of runs has, shape (sets,). Sets are consecutive in `runs` and begin at `first`."""
        if self._masks is None:
            counts = np.add.reduceat(self._rows[runs], first)
        else:
            together = np.bitwise_or.reduceat(self._masks[:, runs], first, axis=1)
            counts = np.bitwise_count(together).sum(axis=0, dtype=np.int64)
        return np.asarray(counts, dtype=np.int64)


def source_masks(run_of_row: npt.NDArray[np.intp], source_codes: npt.NDArray[np.int32], runs: int) -> npt.NDArray[np.uint64]:
    """Return the sources of each run as bits, for `Sharers`."""
    numbers = int(source_codes.max(initial=0)) // _BITS + 1
    masks = np.empty((numbers, runs), dtype=np.uint64)
    for number in range(numbers):
        is_of_number = source_codes // _BITS == number
        present = np.zeros((runs, _BITS), dtype=np.bool_)
        present[run_of_row[is_of_number], source_codes[is_of_number] % _BITS] = True
        masks[number] = np.packbits(present, axis=1).view(np.uint64)[:, 0]
    return masks
