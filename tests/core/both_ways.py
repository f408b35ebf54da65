"""The same rows through the project and through the plain implementation, told in the same words so that they can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import anonymizer
from anonymizer.anonymize import ChunkResult, Method, Names, Recipe, WindowResult, anonymize_chunk
from anonymizer.batch import Promise, WindowCounts
from anonymizer.hierarchy import Hierarchy, parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.optimal_anonymizer import OptimalAnonymizer
from anonymizer.pseudonyms import KeptIds
from anonymizer.samples import NO_SOURCE, Samples, make_samples
from anonymizer.windows import WindowRange
from tests.core.plain_anonymizer import Level, PlainSettings, PlainWindow, Row, anonymize_windows, shipped_levels

SHIPPED_FILE = Path(anonymizer.__file__).with_name("smarko_hierarchy_ecg.csv")


@dataclass(frozen=True)
class Ranges:
    """One hierarchy, as the project reads it and as the plain implementation does."""

    hierarchy: Hierarchy
    levels: Sequence[Level]

    def __repr__(self) -> str:
        return f"Ranges(from {self.hierarchy.first_leaf} to {self.hierarchy.last_leaf})"


@cache
def shipped_ranges() -> Ranges:
    """Return the hierarchy that ships: the file for the one, the formula for the other."""
    return Ranges(parse_hierarchy(SHIPPED_FILE.read_text(encoding="utf-8")), shipped_levels())


@dataclass(frozen=True)
class WindowSeen:
    """All that can be said of one window. Values are kept as `repr`, which differs whenever their bytes do, also for zeros."""

    rows: tuple[tuple[int, str, str], ...]
    counts: WindowCounts
    rows_at_level: tuple[int, ...]
    imputed: tuple[bool, ...]
    imputed_value_uv: str
    groups: int
    coded: int
    unchanged: int
    contradictory: int


@dataclass(frozen=True)
class ChunkSeen:
    """All that can be said of a chunk."""

    windows: tuple[WindowSeen, ...]
    outside: int


def samples_of(rows: Sequence[Row]) -> Samples:
    """Return the rows as columns. The dictionary of ids comes in order of appearance, as a file's would."""
    ids = list(dict.fromkeys(row.source for row in rows if row.source is not None))
    codes = [NO_SOURCE if row.source is None else ids.index(row.source) for row in rows]
    return make_samples([row.time_ns for row in rows], codes, ids, [row.value_uv for row in rows])


def recipe_of(settings: PlainSettings, ranges: Ranges, names: Names | None = None) -> Recipe:
    """Return the project's recipe for `settings`; ids are kept as they are unless `names` says otherwise."""
    promise = Promise(k=settings.k, k_unit=settings.k_unit, method=settings.method)
    return Recipe(method=method_of(settings, ranges), names=names or KeptIds(), promise=promise, data_set="test")


def method_of(settings: PlainSettings, ranges: Ranges) -> Method:
    """Return the project's method for `settings`."""
    if settings.method == "optimal":
        return OptimalAnonymizer(hierarchy=ranges.hierarchy, k=settings.k, k_unit=settings.k_unit)
    return LevelHierarchyAnonymizer(
        hierarchy=ranges.hierarchy,
        k=settings.k,
        max_level=settings.max_level,
        residual=settings.residual,
        imputation=settings.imputation,
        k_unit=settings.k_unit,
    )


def through_the_project(
    rows: Sequence[Row], windows: WindowRange, settings: PlainSettings, ranges: Ranges, names: Names | None = None
) -> ChunkSeen:
    """Return what the project makes of a chunk."""
    return seen_in(anonymize_chunk(samples_of(rows), windows, recipe_of(settings, ranges, names)))


def through_the_plain_one(
    rows: Sequence[Row], windows: WindowRange, settings: PlainSettings, ranges: Ranges, release_id: Callable[[str], str] = str
) -> ChunkSeen:
    """Return what the plain implementation makes of a chunk."""
    plain, outside = anonymize_windows(
        rows,
        start_ns=windows.start_ns,
        length_ns=windows.length_ns,
        windows=len(windows),
        levels=ranges.levels,
        settings=settings,
        release_id=release_id,
    )
    return ChunkSeen(tuple(map(_seen_in_plain, plain)), outside)


Way = Callable[[Sequence[Row], WindowRange, PlainSettings, Ranges], ChunkSeen]

ONE_WINDOW = WindowRange(0, 1000, 1000)


def one_window(way: Way, rows: Sequence[Row], settings: PlainSettings) -> WindowSeen:
    """Return what one of the two makes of the rows of one window."""
    (window,) = way(rows, ONE_WINDOW, settings, shipped_ranges()).windows
    return window


def seen_in(chunk: ChunkResult) -> ChunkSeen:
    """Return what the project's result says."""
    return ChunkSeen(tuple(map(_seen_in_result, chunk.results)), chunk.outside)


def _seen_in_result(result: WindowResult) -> WindowSeen:
    batch = result.batch
    rows: tuple[tuple[int, str, str], ...] = ()
    imputed: tuple[bool, ...] = ()
    if batch is not None:
        ids = [batch.source_ids[index] for index in batch.source_index.tolist()]
        rows = tuple(zip(batch.times_ns.tolist(), ids, map(repr, batch.values_uv.tolist()), strict=True))
        imputed = (False,) * len(batch) if batch.imputed_rows is None else tuple(batch.imputed_rows.tolist())
    return WindowSeen(
        rows=rows,
        counts=result.counts,
        rows_at_level=tuple(result.statistics.rows_at_level.tolist()),
        imputed=imputed,
        imputed_value_uv=repr(None if batch is None else batch.imputed_value_uv),
        groups=result.statistics.groups,
        coded=result.statistics.coded,
        unchanged=result.statistics.unchanged,
        contradictory=result.statistics.contradictory,
    )


def _seen_in_plain(window: PlainWindow) -> WindowSeen:
    starred = sum(window.imputed) if window.rows_at_level[8] else 0
    return WindowSeen(
        rows=tuple((row.time_ns, row.released_id, repr(row.value_uv)) for row in window.rows),
        counts=WindowCounts(
            read=window.read,
            released=window.released,
            withheld=window.withheld,
            invalid=window.invalid,
            duplicate=window.duplicate,
            starred=starred,
            suppressed=sum(window.imputed) - starred,
        ),
        rows_at_level=tuple(window.rows_at_level),
        imputed=tuple(window.imputed),
        imputed_value_uv=repr(window.imputed_value_uv),
        groups=window.groups,
        coded=window.coded,
        unchanged=window.unchanged,
        contradictory=window.contradictory,
    )
