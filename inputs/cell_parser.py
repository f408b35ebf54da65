"""From a table of a file to its cells: times, sources and values as they were parsed, each with its kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from anonymizer.samples import Samples, make_samples, picked
from inputs.file_columns import ValueKind, Values, source_ids, values
from inputs.file_survey import Cells
from inputs.file_times import times


class CellParser:
    """Parses tables with the columns `timestamp`, `source_id` and `ecg`.

    Args:
        sources: Only these source ids are wanted; empty: all.
        microvolts_per_unit: 1 when values are microvolts, 1000 when they are millivolts.
    """

    def __init__(self, sources: tuple[str, ...], microvolts_per_unit: float) -> None:
        self._sources = sources
        self._microvolts_per_unit = microvolts_per_unit

    def cells(self, table: pa.Table) -> Cells:
        """Return the rows in their order, values in the unit of the file.

        Raises:
            SourceRefused: A column's type holds something else.
        """
        found = times(table.column("timestamp"))
        codes, ids = source_ids(table.column("source_id"))
        numbers = within_microvolts(values(table.column("ecg")), self._microvolts_per_unit)
        samples = make_samples(found.times_ns, codes, ids, numbers.values)
        return Cells(samples, found.kinds, numbers.kinds, self.is_wanted(samples))

    def is_wanted_in(self, column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Return which rows of a column of sources were asked for."""
        return self._is_wanted(*source_ids(column))

    def is_wanted(self, samples: Samples) -> npt.NDArray[np.bool_]:
        """Return which samples are of sources that were asked for."""
        return self._is_wanted(samples.source_codes, samples.source_ids)

    def _is_wanted(self, codes: npt.NDArray[np.int32], ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        if not self._sources:
            return np.ones(len(codes), dtype=np.bool_)
        # The extra last entry is for rows that name no source.
        wanted = np.array([*(source_id in self._sources for source_id in ids), False])
        return wanted[codes]


def within_microvolts(numbers: Values, microvolts_per_unit: float) -> Values:
    """Return the numbers without those that are beyond all numbers once they are microvolts: no electrode measures them."""
    if microvolts_per_unit <= 1.0:
        return numbers
    is_beyond = np.abs(numbers.values) > np.finfo(np.float64).max / microvolts_per_unit
    if not is_beyond.any():
        return numbers
    kinds = np.where(is_beyond, ValueKind.UNREADABLE, numbers.kinds).astype(np.int8)
    return Values(np.where(is_beyond, np.nan, numbers.values), kinds)


def between(samples: Samples, start_ns: int, end_ns: int) -> Samples:
    """Return the rows between two times; they are in order of time."""
    first, stop = np.searchsorted(samples.times_ns, (start_ns, end_ns))
    return picked(samples, slice(first, stop))
