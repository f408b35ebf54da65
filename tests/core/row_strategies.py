"""Chunks made up to be hard: many ties, equal distances to both sides, few rows left over, and whatever a file or database may hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import strategies as st

from anonymizer.hierarchy import LEVELS, parse_hierarchy
from anonymizer.windows import WindowRange
from tests.core.both_ways import Ranges, shipped_ranges
from tests.core.plain_anonymizer import Level, PlainSettings, Residual, Row, Unit

#: Ids that sort, print or encode unexpectedly. U+FFFF comes before U+10000 by code point, after it in UTF-16.
ODD_IDS = (
    "a",
    "b",
    "B",
    "a b",
    "a,b",
    'a"b',
    "a\nb",
    "a=1",
    "\\",
    " ",
    "é",
    "心",
    "\uffff",
    "\U00010000",
    "\x00",
    "0",
    "-1",
    "NaN",
)

ODD_VALUES_UV = (
    0.5,
    -0.5,
    -0.3,
    0.0,
    -0.0,
    5e-324,
    2499.5,
    2500.5,
    -2500.5,
    2501.0,
    -3715.0,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
)


ANY_K = st.integers(2, 8)


@dataclass(frozen=True)
class Chunk:
    """Some rows and the windows that were asked for."""

    rows: tuple[Row, ...]
    windows: WindowRange


def settings_of_any_kind(k: st.SearchStrategy[int] = ANY_K) -> st.SearchStrategy[PlainSettings]:
    """Any settings of the methods. Where sources are counted k is small, or few windows would have enough of them."""
    return st.one_of(
        _settings(k, "record", ("regroup", "impute", "drop")),
        _settings(st.integers(2, 4), "source", ("regroup", "drop")),
    )


def _settings(k: st.SearchStrategy[int], unit: Unit, residuals: tuple[Residual, ...]) -> st.SearchStrategy[PlainSettings]:
    return st.builds(
        PlainSettings,
        k=k,
        max_level=st.integers(1, 7),
        residual=st.sampled_from(residuals),
        imputation=st.sampled_from(("mean", "midpoint")),
        method=st.sampled_from(("hierarchy", "hierarchy", "optimal")),
        k_unit=st.just(unit),
    )


def ranges_of_any_kind() -> st.SearchStrategy[Ranges]:
    """The shipped hierarchy, or a small one of a user's own."""
    return st.one_of(st.builds(shipped_ranges), small_ranges())


@st.composite
def small_ranges(draw: st.DrawFn) -> Ranges:
    """A few dozen leaves; the ranges of every level are any that lie inside those of the next."""
    first = draw(st.integers(-60, 20))
    last = first + draw(st.integers(0, 50))
    cuts = sorted(draw(st.sets(st.integers(first + 1, last), max_size=6))) if first < last else []
    levels: list[Level] = []
    for _ in range(LEVELS):
        levels.insert(0, _level_between(first, last, cuts))
        finer = draw(st.sets(st.integers(first + 1, last), max_size=6)) if first < last else set()
        cuts = sorted({*cuts, *finer})
    return Ranges(parse_hierarchy(text_of_levels(levels)), levels)


def _level_between(first: int, last: int, cuts: list[int]) -> Level:
    bounds = zip([first, *cuts], [*(cut - 1 for cut in cuts), last], strict=True)
    return {leaf: (low, high) for low, high in bounds for leaf in range(low, high + 1)}


def text_of_levels(levels: list[Level]) -> str:
    """Return the hierarchy file that describes `levels`."""
    return "".join(f"{leaf},{','.join('{};{}'.format(*level[leaf]) for level in levels)},*\n" for leaf in sorted(levels[0]))


@st.composite
def chunks_of_any_kind(draw: st.DrawFn) -> Chunk:
    """Unsorted rows of few distinct values, in up to four windows and a little beyond, with gaps, duplicates and unusable rows."""
    windows = draw(window_ranges())
    value = values_of_some_kind(draw)
    ids: list[str | None] = [*draw(st.lists(st.sampled_from(ODD_IDS) | st.text(max_size=3), min_size=1, max_size=4))]
    if draw(st.integers(0, 5)) == 0:
        ids += [None, ""]
    time = st.integers(windows.start_ns - 2, windows.end_ns + 1)
    row = st.builds(Row, time, st.sampled_from(ids), value)
    # Left to itself, a list of unknown length has five rows: too few to make a group.
    number = draw(st.integers(0, 15) | st.integers(10, 40 * len(windows)) | st.integers(20, 40 * len(windows)))
    rows = draw(st.lists(row, min_size=number, max_size=number))
    # Where times meet, sources contradict themselves in nearly every window: then nothing would be left to anonymize.
    return Chunk(tuple(rows if draw(st.integers(0, 3)) == 0 else _in_agreement(rows)), windows)


def _in_agreement(rows: list[Row]) -> list[Row]:
    """Return the rows, each with the value of the first one of its time and source that holds a number."""
    first: dict[tuple[int, str | None], float] = {}
    for row in rows:
        if math.isfinite(row.value_uv):
            first.setdefault((row.time_ns, row.source), row.value_uv)
    return [row._replace(value_uv=first.get((row.time_ns, row.source), row.value_uv)) for row in rows]


def values_of_some_kind(draw: st.DrawFn) -> st.SearchStrategy[float]:
    """Return values from one palette, or with some odd ones among them."""
    usual = st.sampled_from(draw(palettes()))
    odd = st.sampled_from(ODD_VALUES_UV) | st.floats(-2600, 2600)
    # One value in some is odd, or the odd ones would leave no window with enough rows.
    return st.one_of(usual, usual, usual, usual, usual, usual, odd) if draw(st.booleans()) else usual


@st.composite
def window_ranges(draw: st.DrawFn) -> WindowRange:
    """Up to four windows, before, at or long after the epoch; in the short ones times and sources often meet."""
    length_ns = draw(st.sampled_from((8, 20, 60, 5_000_000_000)))
    first = draw(st.sampled_from((-3, -1, 0, 1_700_000_000_000_000_000 // length_ns)))
    return WindowRange(first * length_ns, (first + draw(st.integers(1, 4))) * length_ns, length_ns)


@st.composite
def palettes(draw: st.DrawFn) -> list[float]:
    """A few values to choose rows from: near each other, at equal gaps, halves, or anywhere."""
    centre = draw(st.integers(-30, 30) | st.integers(-2500, 2500))
    gap = draw(st.sampled_from((1, 2, 3, 5, 8, 20, 100)))
    steps = range(draw(st.integers(-4, 0)), draw(st.integers(1, 5)))
    spread = draw(st.sampled_from((6, 20, 80, 400, 2600)))
    return draw(
        st.sampled_from(([centre + float(gap * step) for step in steps], [centre + step / 2 for step in steps]))
        | st.lists(st.integers(-spread, spread).map(float), min_size=8, max_size=20)
        | st.lists(st.floats(-60, 60, width=16), min_size=1, max_size=20)
    )


@st.composite
def chunks_with_few_left_over(draw: st.DrawFn, k: int) -> Chunk:
    """One window: clusters of at least k rows at equal gaps, and fewer than k rows half-way between and beyond them."""
    gap = draw(st.sampled_from((10, 16, 20, 64, 100)))
    centres = draw(st.lists(st.integers(-4, 4).map(lambda step: step * gap), min_size=2, max_size=5, unique=True))
    values = [value for centre in centres for value in draw(clusters(centre, k))]
    half_way = st.integers(-9, 9).map(lambda step: step * gap // 2)
    values += draw(st.lists(half_way | half_way | st.sampled_from((-2500, 2500, 1)), min_size=1, max_size=k - 1))
    ids = draw(st.lists(st.sampled_from(ODD_IDS), min_size=1, max_size=3, unique=True))
    # Every third row shares its time with the next ones, as far as there are sources to tell them apart.
    times = [place // len(ids) for place in range(len(values))]
    order = draw(st.permutations(range(len(values))))
    rows = [Row(times[place], ids[place % len(ids)], float(values[order[place]])) for place in range(len(values))]
    return Chunk(tuple(rows), WindowRange(0, 1000, 1000))


@st.composite
def chunks_of_ties(draw: st.DrawFn, k: int) -> Chunk:
    """One window whose rows are all left over: fewer than k of each value, which stands at few times in many sources.

    Groups must be cut between rows of one value, and often of one time.
    """
    ids = draw(st.lists(st.sampled_from(ODD_IDS), min_size=4, max_size=8, unique=True))
    values = draw(st.lists(st.integers(-5, 5).map(lambda step: float(step * 100)), min_size=2, max_size=6, unique=True))
    places = draw(st.permutations([(time_ns, source) for time_ns in range(4) for source in ids]))
    of_each = [draw(st.integers(max(1, k - 2), k - 1)) for _ in values]
    measured = [value for value, rows in zip(values, of_each, strict=True) for _ in range(rows)]
    rows = [Row(time_ns, source, value) for (time_ns, source), value in zip(places, measured, strict=False)]
    return Chunk(tuple(rows), WindowRange(0, 10, 10))


@st.composite
def clusters(draw: st.DrawFn, centre: int, k: int) -> list[int]:
    """Rows about one value: all equal, symmetrical so that groups of several levels have one mean, or spread a little."""
    kind = draw(st.sampled_from(("equal", "equal", "lopsided", "nested", "spread")))
    if kind == "equal":
        return [centre] * draw(st.integers(k, k + 3))
    if kind == "lopsided":
        # Means with fractions; half-way between two that lean towards each other the distances are equal.
        return [centre] * (k - 1) + [centre + draw(st.sampled_from((-1, 1)))]
    if kind == "nested":
        half = k - k // 2
        return [centre, centre + 1] * half + [centre - 1, centre + 2] * half
    steps = draw(st.lists(st.sampled_from((0, 0, 0, 1, -1, 2, 3, -4)), min_size=k, max_size=k + 3))
    return [centre + step for step in steps]
