"""The groups of k different sources that the documentation describes, written down a second time: slow, plain and exact.

A row is its value and its source, in order of value. Nothing here is shared with `anonymizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import groupby, pairwise
from math import floor
from typing import NamedTuple


class SourceRow(NamedTuple):
    """What matters of a row."""

    value_uv: int
    source: str


#: How many starts of a group are tried, and the parts of a µV² that errors are rounded down to.
STARTS, PARTS = 17, 64

Starts = Callable[[int, int], list[int]]
Error = Callable[[Sequence[SourceRow]], int | Fraction]


def holds(rows: Sequence[SourceRow], k: int) -> bool:
    """Return whether the rows have k different sources."""
    return len({row.source for row in rows}) >= k


def holds_two(rows: Sequence[SourceRow], k: int) -> bool:
    """Return whether the rows can be cut in two groups."""
    return any(holds(rows[:cut], k) and holds(rows[cut:], k) for cut in range(len(rows) + 1))


def source_group_sizes(rows: Sequence[SourceRow], k: int) -> list[int]:
    """Return the sizes of the groups, as the documentation describes them."""
    return [size for stretch in stretches(rows, k) for size in sizes_in_stretch(stretch, k)]


def stretches(rows: Sequence[SourceRow], k: int) -> list[list[SourceRow]]:
    """Return the rows cut inside long runs of equal values."""
    cuts = []
    start = 0
    for _, found in groupby(rows, key=lambda row: row.value_uv):
        run = list(found)
        of_two = [cut for cut in range(len(run) + 1) if holds_two(run[:cut], k)]
        on_the_right = [cut for cut in range(len(run) + 1) if holds_two(run[cut:], k)]
        if of_two and on_the_right and min(of_two) <= max(on_the_right):
            left, right = min(of_two), max(on_the_right)
            cuts += [start + left, start + right] if holds(run[left:right], k) else [start + right]
        start += len(run)
    bounds = [0, *cuts, len(rows)]
    return [list(rows[begin:end]) for begin, end in pairwise(bounds)]


def sizes_in_stretch(rows: Sequence[SourceRow], k: int) -> list[int]:
    """Return the sizes of the groups of one stretch."""
    if len({row.value_uv for row in rows}) == 1:
        return [len(rows)]
    return best_sizes(rows, k, tried_starts, rounded_error)


def tried_starts(latest: int, earliest: int) -> list[int]:
    """Return the starts that are tried, the latest first."""
    return [latest - (latest - earliest) * tried // (STARTS - 1) for tried in range(STARTS)]


def all_starts(latest: int, earliest: int) -> list[int]:
    """Return every start there is, the latest first."""
    return list(range(latest, earliest - 1, -1))


def best_sizes(rows: Sequence[SourceRow], k: int, starts: Starts, error: Error) -> list[int]:
    """Return the sizes of the groups with the least error, among groups that cannot be cut in two and begin at one of `starts`."""
    best: list[tuple[int | Fraction, list[int]] | None] = [(0, []), *([None] * len(rows))]
    for stop in range(1, len(rows) + 1):
        fitting = [start for start in range(stop) if holds(rows[start:stop], k)]
        if not fitting:
            continue
        uncut = [start for start in fitting if not holds_two(rows[start:stop], k)]
        for start in starts(max(fitting), min(uncut)):
            before, so_far = best[start], best[stop]
            if before is None:
                continue
            total = before[0] + error(rows[start:stop])
            # Later starts come first: of two with equal error the smaller last group stays.
            if so_far is None or total < so_far[0]:
                best[stop] = (total, [*before[1], stop - start])
    last = best[-1]
    assert last is not None, f"{len(rows)} rows hold fewer than {k} sources"
    return last[1]


def exact_error(rows: Sequence[SourceRow]) -> Fraction:
    """Return the sum of squared distances from the mean."""
    mean = Fraction(sum(row.value_uv for row in rows), len(rows))
    return sum(((row.value_uv - mean) ** 2 for row in rows), Fraction(0))


def rounded_error(rows: Sequence[SourceRow]) -> int:
    """Return the error in whole parts of a µV², rounded down."""
    return floor(PARTS * exact_error(rows))


def every_source_partition(rows: Sequence[SourceRow], k: int) -> Iterator[list[int]]:
    """Yield the sizes of every way to cut the rows in contiguous groups of at least k sources."""
    if not rows:
        yield []
    for last in range(1, len(rows) + 1):
        if holds(rows[len(rows) - last :], k):
            for before in every_source_partition(rows[: len(rows) - last], k):
                yield [*before, last]


def total_source_error(rows: Sequence[SourceRow], sizes: Sequence[int]) -> Fraction:
    """Return the squared error of the rows cut in groups of `sizes`, in order."""
    error, start = Fraction(0), 0
    for size in sizes:
        error += exact_error(rows[start : start + size])
        start += size
    return error
