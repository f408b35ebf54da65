"""Anonymizes a chunk of windows: samples in, at most one candidate batch per window out.

A pure function of samples, windows and settings, so that any process can do the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch, Certificate, Promise, WindowCounts
from anonymizer.exclusion import Exclusion, without_excluded
from anonymizer.fidelity_sums import Fidelity, fidelity_of
from anonymizer.generalization import Generalization
from anonymizer.hierarchy import STAR_LEVEL, SUPPRESSED_LEVEL
from anonymizer.public_beat import PEAK_UV
from anonymizer.samples import ArrangedSamples, Contradictions, Samples, arrange
from anonymizer.units import UnitDoubts, unit_doubts
from anonymizer.windows import Window, WindowRange

#: Windows that are generalized together: few enough that the histogram (window × value) fits the CPU's caches.
WINDOWS_AT_ONCE = 64


class Method(Protocol):
    """Forms groups (equivalence classes), such as level by level through a hierarchy."""

    def generalize(self, rows: ArrangedSamples) -> Generalization:
        """Return what is released for each row."""


class Names(Protocol):
    """How source ids are released: as pseudonyms or as they are."""

    def released_ids(self, source_ids: Sequence[str]) -> tuple[str, ...]:
        """Return the released form of each id, in order; different ids stay different."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowStatistics:
    """Statistics of a window, for operators only; never for an output.

    Args:
        rows_at_level: Released rows by level, index 0 (withheld) to 9 (suppressed), shape (10,).
        groups: Number of groups formed.
        coded: Rows that were top- or bottom-coded.
        unchanged: Released rows whose value equals the measured one.
        contradictory: Of the withheld rows, those of sources with two different values for one time.
        noisy: Of the withheld rows, those of sources whose beats cannot be told from noise.
        fidelity: How well the signal is preserved; None unless the recipe measures it.
        beats: Of the released rows, those that stand for a heartbeat; 0 unless the shape is removed.
    """

    rows_at_level: npt.NDArray[np.int64]
    groups: int
    coded: int
    unchanged: int
    contradictory: int = 0
    noisy: int = 0
    fidelity: Fidelity | None = None
    beats: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class WindowResult:
    """One window after anonymization.

    Args:
        window: The window.
        counts: What became of its rows.
        statistics: For operators only.
        batch: The candidate for release, not yet verified; None if nothing may be released, or if another process keeps it.
        certified_elsewhere: The certificate of a batch that another process keeps.
    """

    window: Window
    counts: WindowCounts
    statistics: WindowStatistics
    batch: Batch | None
    certified_elsewhere: Certificate | None = None

    @property
    def certificate(self) -> Certificate | None:
        """The certificate of its batch; None without a batch, or before verification."""
        return self.certified_elsewhere if self.batch is None else self.batch.certificate

    @property
    def has_batch(self) -> bool:
        """Whether it has a batch, here or in another process."""
        return self.batch is not None or self.certified_elsewhere is not None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything but the samples that shapes a batch.

    Args:
        method: Forms the groups.
        names: Maps source ids to released ids.
        promise: What every batch promises.
        data_set: The data set's name in batch ids.
        measures_fidelity: Whether to compute fidelity.
    """

    method: Method
    names: Names
    promise: Promise
    data_set: str
    measures_fidelity: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ChunkResult:
    """What became of a chunk.

    Args:
        results: Its windows, in order.
        outside: Rows in none of the windows.
        contradictions: Sources that contradict themselves, by window.
        units: Sources whose values seem to be in another unit.
    """

    results: tuple[WindowResult, ...]
    outside: int
    contradictions: Contradictions
    units: UnitDoubts


def anonymize_chunk(samples: Samples, windows: WindowRange, recipe: Recipe, exclusion: Exclusion | None = None) -> ChunkResult:
    """Anonymize every window on its own. Deterministic: the order of the samples does not matter.

    Rows of excluded sources are taken out before anything is computed from rows; only the counts of the results know of them.
    """
    released_ids = recipe.names.released_ids(samples.source_ids)
    excluded = np.zeros(len(windows), dtype=np.int64)
    if exclusion is not None and exclusion.until_ns:
        samples, excluded = without_excluded(samples, released_ids, windows, exclusion)
        released_ids = recipe.names.released_ids(samples.source_ids)
    ranks = np.empty(len(released_ids), dtype=np.int64)
    ranks[np.argsort(np.array(released_ids, dtype=np.object_), kind="stable")] = np.arange(len(released_ids))
    rows = arrange(samples, windows, ranks)
    results = [result for block in _blocks(rows) for result in _results(block, recipe, released_ids)]
    results = [_with_excluded(one, rows) if rows else one for one, rows in zip(results, excluded.tolist(), strict=True)]
    return ChunkResult(tuple(results), rows.outside, rows.contradictions, unit_doubts(rows, len(samples.source_ids)))


def _with_excluded(result: WindowResult, excluded: int) -> WindowResult:
    counts = replace(result.counts, read=result.counts.read + excluded, excluded=excluded)
    return replace(result, counts=counts)


def batch_id(data_set: str, window: Window) -> str:
    """Return the id of a window's batch. It does not depend on settings, so that a released window is recognised under any of them."""
    return f"{data_set}-{window.start_ns}-{window.end_ns}"


def _blocks(rows: ArrangedSamples) -> Iterator[ArrangedSamples]:
    if len(rows.windows) <= WINDOWS_AT_ONCE:
        yield rows
        return
    for first in range(0, len(rows.windows), WINDOWS_AT_ONCE):
        stop = min(first + WINDOWS_AT_ONCE, len(rows.windows))
        begin, end = np.searchsorted(rows.window_index, (first, stop))
        yield ArrangedSamples(
            windows=rows.windows.part(first, stop),
            window_index=rows.window_index[begin:end] - first,
            times_ns=rows.times_ns[begin:end],
            source_codes=rows.source_codes[begin:end],
            values_uv=rows.values_uv[begin:end],
            read=rows.read[first:stop],
            invalid=rows.invalid[first:stop],
            duplicate=rows.duplicate[first:stop],
            contradictions=rows.contradictions.part(first, stop),
            outside=0,
        )


def _results(rows: ArrangedSamples, recipe: Recipe, released_ids: tuple[str, ...]) -> Iterator[WindowResult]:
    generalized = recipe.method.generalize(rows)
    bounds = np.searchsorted(rows.window_index, np.arange(len(rows.windows) + 1))
    for index, window in enumerate(rows.windows):
        span = slice(bounds[index], bounds[index + 1])
        rows_at_level = np.bincount(generalized.levels[span], minlength=SUPPRESSED_LEVEL + 1)
        contradictory = int(rows.contradictions.rows[index])
        rows_at_level[0] += contradictory
        counts = _counts(rows, generalized, index, span, rows_at_level)
        statistics = WindowStatistics(
            rows_at_level=rows_at_level,
            groups=int(generalized.groups[index]),
            coded=int(np.count_nonzero(generalized.coded[span])),
            unchanged=int(np.count_nonzero(generalized.values_uv[span] == rows.values_uv[span])),
            contradictory=contradictory,
            noisy=0 if generalized.noisy is None else int(np.count_nonzero(generalized.noisy[span])),
            fidelity=_fidelity(rows, generalized, span) if recipe.measures_fidelity else None,
            beats=int(np.count_nonzero(generalized.values_uv[span] == PEAK_UV)) if recipe.promise.k is None else 0,
        )
        batch = None
        if counts.released:
            batch = _batch(
                rows, generalized, span, recipe, released_ids, window, counts, float(generalized.imputed_values_uv[index])
            )
        yield WindowResult(window, counts, statistics, batch)


def _fidelity(rows: ArrangedSamples, generalized: Generalization, span: slice) -> Fidelity:
    released = generalized.levels[span] > 0
    columns = rows.values_uv, generalized.values_uv, rows.source_codes
    return fidelity_of(*(column[span][released] for column in columns))  # type: ignore[arg-type]  # mypy cannot tell the columns' types apart


def _counts(
    rows: ArrangedSamples, generalized: Generalization, index: int, span: slice, rows_at_level: npt.NDArray[np.int64]
) -> WindowCounts:
    usable = int(rows_at_level.sum())
    imputed_levels = generalized.levels[span][generalized.imputed[span]]
    return WindowCounts(
        read=int(rows.read[index]),
        released=usable - int(rows_at_level[0]),
        withheld=int(rows_at_level[0]),
        invalid=int(rows.invalid[index]),
        duplicate=int(rows.duplicate[index]),
        starred=int(np.count_nonzero(imputed_levels == STAR_LEVEL)),
        suppressed=int(np.count_nonzero(imputed_levels == SUPPRESSED_LEVEL)),
    )


def _batch(
    rows: ArrangedSamples,
    generalized: Generalization,
    span: slice,
    recipe: Recipe,
    released_ids: tuple[str, ...],
    window: Window,
    counts: WindowCounts,
    imputed_value_uv: float,
) -> Batch:
    released: slice | npt.NDArray[np.bool_] = slice(None)
    if counts.withheld:
        released = generalized.levels[span] > 0
    has_imputed = counts.starred + counts.suppressed > 0
    return Batch(
        batch_id=batch_id(recipe.data_set, window),
        window=window,
        times_ns=rows.times_ns[span][released],
        source_index=rows.source_codes[span][released],
        source_ids=released_ids,
        values_uv=generalized.values_uv[span][released],
        promise=recipe.promise,
        counts=counts,
        imputed_rows=generalized.imputed[span][released] if has_imputed else None,
        imputed_value_uv=imputed_value_uv if has_imputed else None,
    )
