"""Parses a file's table into samples, and keeps the kind of every time and value cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from anonymizer.samples import Samples, make_samples, picked
from inputs.file_columns import ValueKind, Values, source_ids, values
from inputs.file_survey import Cells
from inputs.file_times import Times, times


class CellParser:
    """Parses tables with the columns `timestamp`, `source_id` and `ecg`.

    Args:
        sources: Source ids to read; empty: all.
        microvolts_per_unit: 1 when values are microvolts, 1000 when they are millivolts.
    """

    def __init__(self, sources: tuple[str, ...], microvolts_per_unit: float) -> None:
        self._sources = sources
        self._microvolts_per_unit = microvolts_per_unit

    def cells(self, table: pa.Table, found: Times | None = None) -> Cells:
        """Return the rows in the table's order, values in the file's unit.

        Args:
            table: The rows.
            found: Their times, if they are parsed already.

        Raises:
            SourceRefused: A column has an unsuitable type.
        """
        found = found or times(table.column("timestamp"))
        codes, ids = source_ids(table.column("source_id"))
        numbers = within_microvolts(values(table.column("ecg")), self._microvolts_per_unit)
        samples = make_samples(found.times_ns, codes, ids, numbers.values)
        return Cells(samples, found.kinds, numbers.kinds, self.is_wanted(samples))

    def is_wanted_in(self, column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Return which cells of a source column name a requested source, shape (n,), bool."""
        return self._is_wanted(*source_ids(column))

    def is_wanted(self, samples: Samples) -> npt.NDArray[np.bool_]:
        """Return which samples are of a requested source, shape (n,), bool."""
        return self._is_wanted(samples.source_codes, samples.source_ids)

    def _is_wanted(self, codes: npt.NDArray[np.int32], ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        if not self._sources:
            return np.ones(len(codes), dtype=np.bool_)
        # The extra last entry is for rows that name no source.
        wanted = np.array([*(source_id in self._sources for source_id in ids), False])
        return wanted[codes]


def within_microvolts(numbers: Values, microvolts_per_unit: float) -> Values:
    """Mark values that overflow a float once converted to microvolts as unreadable."""
    if microvolts_per_unit <= 1.0:
        return numbers
    is_beyond = np.abs(numbers.values) > np.finfo(np.float64).max / microvolts_per_unit
    if not is_beyond.any():
        return numbers
    kinds = np.where(is_beyond, ValueKind.UNREADABLE, numbers.kinds).astype(np.int8)
    return Values(np.where(is_beyond, np.nan, numbers.values), kinds)


def between(samples: Samples, start_ns: int, end_ns: int) -> Samples:
    """Return the rows in `[start_ns, end_ns)` of samples that are sorted by time."""
    first, stop = np.searchsorted(samples.times_ns, (start_ns, end_ns))
    return picked(samples, slice(first, stop))
