"""One chunk of windows: planned from counts, read completely, anonymized, verified. If the source fails, it starts over."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import ChunkResult, Recipe, WindowResult, anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.errors import PrivacyViolation, SourceUnavailable
from anonymizer.exclusion import Exclusion, folded
from anonymizer.samples import NO_SOURCE, Contradictions, Samples, SampleSource, joined, picked
from anonymizer.units import UnitDoubts
from anonymizer.verify import verify
from anonymizer.windows import HOUR_NS, MOST_WINDOWS, WindowRange
from service import crash_points
from service.log_event import LogEvent
from service.state.shared_spool import Spooled

_READ_AGAIN = LogEvent(
    "read_again", "%d of %d windows have fewer rows than were counted; reading them again", "windows of_windows", logging.WARNING
)
_VERIFICATION_FAILED = LogEvent(
    "verification_failed", "❌ Withheld, because it failed verification: %s", "violation", logging.ERROR
)

#: The first chunk is this many times smaller than a full one; chunks double in size from there.
_FIRST_SHARE = 8

#: If a window has fewer rows than were counted, it is read this many times in all before the source counts as unavailable.
_MOST_READS = 3

#: Spreadsheets execute a cell that begins with one of these.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Neighbouring windows, and the rows that the source counted in each, shape (len(windows),).

    If all windows are known to be empty, the shape is (0,), since there may be millions.

    Args:
        windows: The windows.
        counted: Their rows.
        early: Returns the rows, if a read of them began while they were counted.
    """

    windows: WindowRange
    counted: npt.NDArray[np.int64]
    early: Callable[[], Samples] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the source has no row in any of the windows."""
        return not self.counted.any()


@dataclass(frozen=True, slots=True, eq=False)
class FinishedChunk:
    """The result of a chunk.

    Args:
        chunk: The chunk.
        results: One for each window; its batch is certified, or None.
        violations: The number of batches that failed verification.
        outside: The number of rows outside all windows.
        contradictions: Which sources contradict themselves, by window.
        units: How many sources seem to use another unit.
        without_source: How many of the invalid rows name no source.
        ids_like_formulas: How many released ids a spreadsheet would take for a formula.
        ids_alike: With K_UNIT=source, how many ids count as different people and differ only in spelling.
        spooled: Where the batches are that a worker has spooled; None: in the results, or there are none.
    """

    chunk: Chunk
    results: tuple[WindowResult, ...]
    violations: int
    outside: int
    contradictions: Contradictions
    units: UnitDoubts
    without_source: int = 0
    ids_like_formulas: int = 0
    ids_alike: int = 0
    spooled: Spooled | None = None

    @property
    def batches(self) -> list[Batch]:
        """The batches that may leave, and are here."""
        return [result.batch for result in self.results if result.batch is not None]


def without_rows(windows: WindowRange) -> Chunk:
    """Return a chunk of windows that are known to be empty."""
    return Chunk(windows, np.zeros(0, dtype=np.int64))


def plan_chunks(
    windows: WindowRange, counted: npt.NDArray[np.int64], *, most_rows: int, first_share: int = _FIRST_SHARE
) -> Iterator[Chunk]:
    """Yield chunks of at most `most_rows` rows each, or of a single window; empty windows form chunks of their own.

    The first chunks are smaller, each up to twice the one before, so that outputs have work while the next are read.

    Args:
        windows: All windows to cover.
        counted: Rows the source counted in each, shape (len(windows),).
        most_rows: The maximum number of rows per query. Never cuts a window.
        first_share: Divisor of the first chunk's size; 1 for none.
    """
    first, most = 0, max(most_rows // first_share, 1)
    while first < len(windows):
        stop, rows = first + 1, int(counted[first])
        is_empty = rows == 0
        while stop < len(windows) and stop - first < MOST_WINDOWS and (counted[stop] == 0) == is_empty:
            rows += int(counted[stop])
            if rows > most:
                break
            stop += 1
        yield Chunk(windows.part(first, stop), counted[first:stop])
        first, most = stop, min(2 * most, most_rows)


def plan_by_hour(windows: WindowRange, counted: npt.NDArray[np.int64], *, most_rows: int) -> Iterator[Chunk]:
    """Yield chunks that never cross a UTC hour (by window start), without smaller first ones.

    The cuts within an hour depend only on its counts: not on earlier releases, nor on where a run begins or was killed.

    Args:
        windows: The windows, starting with the first one of an hour (`from_full_hour`).
        counted: Rows the source counted in each, shape (len(windows),).
        most_rows: As for `plan_chunks`.
    """
    starts_ns = windows.start_ns + windows.length_ns * np.arange(len(windows), dtype=np.int64)
    edges = [0, *(np.flatnonzero(np.diff(starts_ns // HOUR_NS)) + 1).tolist(), len(windows)]
    for first, stop in itertools.pairwise(edges):
        yield from plan_chunks(windows.part(first, stop), counted[first:stop], most_rows=most_rows, first_share=1)


def from_full_hour(windows: WindowRange) -> WindowRange:
    """Return the windows, extended back to the first one of their UTC hour."""
    length_ns = windows.length_ns
    first_ns = -(-(windows.start_ns // HOUR_NS * HOUR_NS) // length_ns) * length_ns
    return WindowRange(min(first_ns, windows.start_ns), windows.end_ns, length_ns)


def part_of(chunk: Chunk, windows: WindowRange) -> Chunk | None:
    """Return the part of a chunk that is in a run of windows, with its counts; None if there is none."""
    start_ns, end_ns = max(chunk.windows.start_ns, windows.start_ns), min(chunk.windows.end_ns, windows.end_ns)
    if start_ns >= end_ns:
        return None
    first, stop = ((at - chunk.windows.start_ns) // windows.length_ns for at in (start_ns, end_ns))
    return Chunk(chunk.windows.part(first, stop), chunk.counted[first:stop])


def finish_chunk(
    source: SampleSource,
    chunk: Chunk,
    recipe: Recipe,
    *,
    read: Callable[[], Samples] | None = None,
    exclusion: Callable[[], Exclusion | None] = lambda: None,
) -> FinishedChunk:
    """Read, anonymize and verify a chunk.

    Args:
        source: The source of the samples.
        chunk: The windows to process.
        recipe: How they are anonymized.
        read: Returns the chunk's complete samples, if another thread reads them.
        exclusion: Returns whose rows are not released; called after the read, so that an addition acts at once.

    Raises:
        SourceUnavailable: It could not be read completely now.
    """
    samples = read_completely(source, chunk) if read is None else read()
    crash_points.reached(crash_points.AFTER_READ)
    finished = _verified(chunk, anonymize_chunk(samples, chunk.windows, recipe, exclusion()))
    return dataclasses.replace(
        finished,
        without_source=_without_source(samples, chunk.windows),
        ids_like_formulas=formula_ids(finished.batches),
        ids_alike=alike_ids(samples.source_ids) if recipe.promise.k_unit == "source" else 0,
    )


def read_completely(source: SampleSource, chunk: Chunk) -> Samples:
    """Return the chunk's rows, in each window at least as many as its latest count.

    Only windows with too few rows are counted and read again, so that rows arriving meanwhile cannot prevent completion.

    Raises:
        SourceUnavailable: The source does not answer, or returns fewer rows than it counts.
    """
    samples = source.read(chunk.windows) if chunk.early is None else chunk.early()
    counted = chunk.counted.copy()
    for _ in range(_MOST_READS - 1):
        short = np.flatnonzero(rows_in(samples, chunk.windows) < counted)
        if not len(short):
            return samples
        _READ_AGAIN.log(len(short), len(chunk.windows))
        for index in short.tolist():
            window = chunk.windows.part(index, index + 1)
            counted[index] = source.count(window)[0]
            samples = replaced(samples, window, source.read(window))
    short = np.flatnonzero(rows_in(samples, chunk.windows) < counted)
    if len(short):
        raise SourceUnavailable(f"{len(short)} windows have fewer rows than the source counts in them")
    return samples


def formula_ids(batches: Sequence[Batch]) -> int:
    """Return how many released ids a spreadsheet would execute as a formula. All batches share one table of ids."""
    ids = batches[0].source_ids if batches else ()
    suspects = {code for code, source_id in enumerate(ids) if source_id.startswith(_FORMULA_SIGNS)}
    return len(suspects & {int(code) for batch in batches for code in np.unique(batch.source_index)}) if suspects else 0


def alike_ids(source_ids: Sequence[str]) -> int:
    """Return how many ids equal another one but for case, blanks around them and forms of characters (NFKC)."""
    spellings = Counter(map(folded, set(source_ids)))
    return sum(count for count in spellings.values() if count > 1)


def _without_source(samples: Samples, windows: WindowRange) -> int:
    times_ns = samples.times_ns[samples.source_codes == NO_SOURCE]
    return int(((times_ns >= windows.start_ns) & (times_ns < windows.end_ns)).sum())


def rows_in(samples: Samples, windows: WindowRange) -> npt.NDArray[np.int64]:
    """Return how many rows are in each window, shape (len(windows),)."""
    index = windows.index_of(samples.times_ns)
    return np.bincount(index[(index >= 0) & (index < len(windows))], minlength=len(windows))


def replaced(samples: Samples, window: WindowRange, fresh: Samples) -> Samples:
    """Return `samples` with the rows of one window taken from `fresh`."""
    kept = (samples.times_ns < window.start_ns) | (samples.times_ns >= window.end_ns)
    return joined([picked(samples, np.flatnonzero(kept)), fresh])


def _verified(chunk: Chunk, anonymized: ChunkResult) -> FinishedChunk:
    results, violations = [], 0
    for result in anonymized.results:
        batch = _certified(result.batch)
        if result.batch is not None and batch is None:
            violations += 1
            result = _withheld(result)
        else:
            result = dataclasses.replace(result, batch=batch)
        results.append(result)
    return FinishedChunk(chunk, tuple(results), violations, anonymized.outside, anonymized.contradictions, anonymized.units)


def _certified(batch: Batch | None) -> Batch | None:
    """Return the batch with its certificate; None if it must not be released."""
    if batch is None:
        return None
    try:
        return batch.certified(verify(batch))
    except PrivacyViolation as violation:
        _VERIFICATION_FAILED.log(violation)
        return None


def _withheld(result: WindowResult) -> WindowResult:
    counts = result.counts
    withheld = dataclasses.replace(counts, released=0, withheld=counts.withheld + counts.released, starred=0, suppressed=0)
    rows_at_level = np.zeros_like(result.statistics.rows_at_level)
    rows_at_level[0] = withheld.withheld
    statistics = dataclasses.replace(result.statistics, rows_at_level=rows_at_level, unchanged=0)
    return dataclasses.replace(result, counts=withheld, statistics=statistics, batch=None)
