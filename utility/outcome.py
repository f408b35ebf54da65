"""Pairs samples with their released values, row by row. Holds raw values, which must not leave the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import Recipe, anonymize_chunk
from anonymizer.batch import WindowCounts
from anonymizer.samples import NO_SOURCE, Samples
from anonymizer.windows import NANOSECONDS, covering_windows
from recognition.attackers import Trace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """One source before and after, in order of time.

    Args:
        source_id: The source.
        times_ns: Nanoseconds since the epoch, shape (n,).
        raw_uv: Measured values, microvolts, shape (n,).
        released_uv: Released values, NaN for withheld rows, shape (n,).
    """

    source_id: str
    times_ns: Ints
    raw_uv: Floats
    released_uv: Floats

    @property
    def released(self) -> Trace:
        """The rows that would be released."""
        out = ~np.isnan(self.released_uv)
        return Trace(self.times_ns[out], self.released_uv[out])

    @property
    def hertz(self) -> float:
        """The sampling rate, from the median interval."""
        return NANOSECONDS / float(np.median(np.diff(self.times_ns))) if len(self.times_ns) > 1 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All usable rows with their released values; arrays have shape (n,) and are sorted by source, then time.

    Args:
        source_ids: The sources.
        source: Index of each row's source in `source_ids`.
        window: Index of each row's window.
        times_ns: Nanoseconds since the epoch.
        raw_uv: Measured values, microvolts.
        released_uv: Released values, NaN for withheld rows.
        counts: What became of all rows.
        windows: Windows with at least one row.
        withheld_windows: Of these, windows without a released row.
        withholdable_rows: Withheld rows of windows with at least k rows (or sources).
    """

    source_ids: tuple[str, ...]
    source: Ints
    window: Ints
    times_ns: Ints
    raw_uv: Floats
    released_uv: Floats
    counts: WindowCounts
    windows: int
    withheld_windows: int
    withholdable_rows: int

    def signals(self) -> Iterator[Signal]:
        """Yield the signal of each source."""
        bounds = np.searchsorted(self.source, np.arange(len(self.source_ids) + 1))
        for name, first, stop in zip(self.source_ids, bounds[:-1], bounds[1:], strict=True):
            if stop > first:
                rows = slice(first, stop)
                yield Signal(name, self.times_ns[rows], self.raw_uv[rows], self.released_uv[rows])


def outcome_of(samples: Samples, recipe: Recipe, *, window_s: int) -> Outcome:
    """Anonymize samples as the service would, and pair them with the result.

    Args:
        samples: At least one row.
        recipe: How to anonymize; it must keep source ids.
        window_s: Length of a window in seconds.
    """
    windows = covering_windows(int(samples.times_ns.min()), int(samples.times_ns.max()) + 1, window_s * NANOSECONDS)
    results = anonymize_chunk(samples, windows, recipe).results
    batches = [result.batch for result in results if result.batch is not None]
    order = _usable_rows(samples)
    source, times_ns = samples.source_codes[order].astype(np.int64), samples.times_ns[order]
    released_uv = np.full(len(order), np.nan)
    for batch in batches:
        released_uv[_positions(source, times_ns, batch.source_index, batch.times_ns)] = batch.values_uv
    window = windows.index_of(times_ns)
    return Outcome(
        source_ids=samples.source_ids,
        source=source,
        window=window,
        times_ns=times_ns,
        raw_uv=samples.values_uv[order],
        released_uv=released_uv,
        counts=sum((result.counts for result in results), WindowCounts()),
        windows=sum(result.counts.read > 0 for result in results),
        withheld_windows=sum(result.counts.read > 0 and result.batch is None for result in results),
        withholdable_rows=_withholdable(window, source, released_uv, recipe),
    )


def _usable_rows(samples: Samples) -> npt.NDArray[np.intp]:
    """Return the positions of rows with a number and a source, sorted by source and time; of duplicates, that of the lowest value."""
    usable = np.flatnonzero(np.isfinite(samples.values_uv) & (samples.source_codes != NO_SOURCE))
    keys = samples.source_codes[usable], samples.times_ns[usable]
    steps, later = np.diff(keys[0]), np.diff(keys[1])
    if ((steps > 0) | ((steps == 0) & (later > 0))).all():
        return usable  # in order already, without duplicates
    order = usable[np.lexsort((samples.values_uv[usable], keys[1], keys[0]))]
    source, times_ns = samples.source_codes[order], samples.times_ns[order]
    is_first = np.concatenate(([True], (source[1:] != source[:-1]) | (times_ns[1:] != times_ns[:-1])))[: len(order)]
    return order[is_first]


def _positions(source: Ints, times_ns: Ints, wanted_source: npt.NDArray[np.int32], wanted_ns: Ints) -> npt.NDArray[np.intp]:
    """Return the position of each wanted pair of source and time."""
    positions = np.empty(len(wanted_ns), dtype=np.intp)
    for one in np.unique(wanted_source).tolist():
        first, stop = np.searchsorted(source, (one, one + 1))
        mine = wanted_source == one
        positions[mine] = first + np.searchsorted(times_ns[first:stop], wanted_ns[mine])
    return positions


def _withholdable(window: Ints, source: Ints, released_uv: Floats, recipe: Recipe) -> int:
    """Return how many rows are withheld although their window has k rows, or k sources."""
    if not len(window):
        return 0
    if recipe.promise.k is None:
        return 0
    if recipe.promise.k_unit == "record":
        holds = np.bincount(window)
    else:
        sources = int(source.max()) + 1
        holds = np.bincount(np.unique(window * sources + source) // sources)
    return int((np.isnan(released_uv) & (holds[window] >= recipe.promise.k)).sum())
